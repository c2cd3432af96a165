"""The microphone of a pendant: blocks of PCM, and the sleep that falls on it when it is quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from omi_edge.domain import SAMPLE_RATE
from omi_edge.opus import Samples

BLOCK_SAMPLES = SAMPLE_RATE // 10
"""Microphone block of 100 ms: bursts of five frames on a CV1, ten on a DevKit (dossier §10, item 5)."""
BLOCK_US = BLOCK_SAMPLES * 1_000_000 // SAMPLE_RATE
QUIET_LEVEL = 250
"""Mean of the samples' magnitudes below which a block is quiet (dossier §5.5)."""
QUIET_SECONDS = 10.0
"""So long a quiet puts the microphone to sleep (dossier §5.5)."""
SETTLE_SECONDS = 0.8
"""From the sound that wakes it to the first audio: so we read the dossier's settle time (§5.5)."""


class Sleep:
    """Decides block by block whether the microphone hears."""

    def __init__(self) -> None:
        self._quiet = 0
        self._settling = 0
        self.asleep = False

    def hears(self, block: Samples) -> bool:
        """Take one block; say whether the microphone was awake for it."""
        loud = float(np.abs(block.astype(np.int32)).mean()) >= QUIET_LEVEL
        if self.asleep:
            if self._settling == 0 and loud:
                self._settling = round(SETTLE_SECONDS * SAMPLE_RATE / BLOCK_SAMPLES)
            if self._settling:
                self._settling -= 1
                if self._settling == 0:
                    self.asleep, self._quiet = False, 0
            return False
        self._quiet = 0 if loud else self._quiet + BLOCK_SAMPLES
        if self._quiet >= QUIET_SECONDS * SAMPLE_RATE:
            self.asleep, self._settling = True, 0
        return True


def blocks(samples: Iterable[Samples]) -> Iterator[Samples]:
    """Cut int16 pieces of any length into blocks of shape (BLOCK_SAMPLES,); the last is filled with silence."""
    rest = np.zeros(0, np.int16)
    for piece in samples:
        rest = np.concatenate([rest, piece])
        whole = len(rest) - len(rest) % BLOCK_SAMPLES
        yield from rest[:whole].reshape(-1, BLOCK_SAMPLES)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, BLOCK_SAMPLES - len(rest)))
