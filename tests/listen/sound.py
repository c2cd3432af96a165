"""Sounds that the tests of this folder listen to."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omi_edge.capture.replay import Recording
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.listen.gate import Closed, GateEvent, SpeechGate
from omi_edge.listen.vad import SileroVad
from omi_edge.opus import Decoder, Encoder
from omi_edge.virtual.script import Line, Script, load_script, recording_path

Samples = npt.NDArray[np.int16]

RECORDINGS = Path(__file__).parents[1] / "recordings"
SHORT = RECORDINGS / "short.ogg"
WORDS = tuple(RECORDINGS / f"words-{name}.flac" for name in ("16k-mono", "48k-stereo", "44k1-stereo"))
CONVERSATION = recording_path()


@functools.cache
def recording(path: Path) -> Samples:
    """A recording as the pendant sends it: through its codec."""
    samples = np.concatenate(list(Recording(path).read()))
    encoder, decoder = Encoder(), Decoder(Codec.OPUS_20MS)
    padded = np.pad(samples, (0, -len(samples) % 320))
    return np.concatenate([decoder.decode(encoder.encode(frame)) for frame in padded.reshape(-1, 320)])


@functools.cache
def script(path: Path) -> Script:
    """Who says what in it."""
    return load_script(RECORDINGS / "words.toml" if path in WORDS else path)


@functools.cache
def events(path: Path) -> tuple[GateEvent, ...]:
    """What the gate makes of it."""
    gate = SpeechGate(SileroVad())
    return (*gate.accept(recording(path)), *gate.finish())


def segments(path: Path) -> list[Closed]:
    """What is to be transcribed of it."""
    return [event for event in events(path) if isinstance(event, Closed)]


def cut(samples: Samples, start: float, end: float) -> Samples:
    """Seconds ``start`` to ``end``."""
    return samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]


def said(path: Path, speaker: str | None = None, conversation: int | None = None) -> list[tuple[Line, Samples]]:
    """The lines of one speaker, of one conversation, each with its sound."""
    return [
        (line, cut(recording(path), line.start, line.end))
        for line in script(path).lines
        if speaker in (None, line.speaker) and conversation in (None, line.conversation)
    ]


def noise(seconds: float, level: float, *, pink: bool = False, seed: int = 5) -> Samples:
    """White or pink noise; ``level`` is its rms in 16-bit units."""
    rng = np.random.default_rng(seed)
    white = rng.normal(0, 1, round(seconds * SAMPLE_RATE))
    if pink:
        spectrum = np.fft.rfft(white) / np.sqrt(np.maximum(1, np.arange(len(white) // 2 + 1)))
        white = np.fft.irfft(spectrum, len(white))
    samples: Samples = np.clip(white / white.std() * level, -32768, 32767).astype(np.int16)
    return samples
