"""What pendants make of PCM: Opus as everywhere, and the formats of the first DevKits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from omi_edge.domain import Codec
from omi_edge.opus import Encoder, Samples

_BIAS = 132
_CLIP = 32_635
"""Of mu-law compression (ITU-T G.711)."""


def encoder(codec: Codec) -> Callable[[Samples], bytes]:
    """Return what makes one codec frame of int16 samples, shape (frame at 16 kHz,)."""
    if codec is Codec.PCM16:
        return lambda pcm: pcm.astype("<i2").tobytes()
    if codec is Codec.PCM8:  # 8-bit unsigned at 8 kHz, one of the readings of the dossier §5.1
        return lambda pcm: ((_halved(pcm) >> 8) + 128).astype(np.uint8).tobytes()
    if codec is Codec.MULAW16:
        return _mulaw
    if codec is Codec.MULAW8:
        return lambda pcm: _mulaw(_halved(pcm))
    return Encoder(codec).encode


def _halved(pcm: Samples) -> Samples:
    """16 kHz to 8 kHz, by the mean of neighbours."""
    return ((pcm[0::2].astype(np.int32) + pcm[1::2]) // 2).astype(np.int16)


def _mulaw(pcm: Samples) -> bytes:
    magnitude = np.minimum(np.abs(pcm.astype(np.int32)), _CLIP) + _BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    sign = np.where(pcm < 0, 0x80, 0)
    code: bytes = (~(sign | exponent << 4 | mantissa)).astype(np.uint8).tobytes()
    return code
