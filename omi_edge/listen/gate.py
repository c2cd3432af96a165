"""Two decisions on one stream: what is transcribed, cut strictly; and what is kept, gated permissively.

Positions are samples since the run began. Every segment lies inside what is kept.
"""

from __future__ import annotations

import math
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE
from omi_edge.listen.vad import CHUNK_SAMPLES

COULD_BE = 0.10
"""Probability from which a chunk could be speech. See docs/testing.md for the measured share of words it misses."""
AROUND_SECONDS = 2.0
"""What lies within this of possible speech is kept."""
MINIMUM_SECONDS = 0.25
PRE_ROLL_SECONDS = 0.3
PADDING_SECONDS = 0.1
HANG_OVER_SECONDS = 0.6
SHORT_SECONDS = 1.0
SHORT_HANG_OVER_SECONDS = 1.5
"""While less than ``SHORT_SECONDS`` was said, a longer pause is waited for a neighbour to join."""
SHORT_SURROUNDINGS_SECONDS = 0.5
"""A short stretch without a neighbour is transcribed with this much of what follows it."""
LONGEST_SECONDS = 30.0
SPLIT_SEARCH_SECONDS = 6.0
"""The quietest point is looked for in this last part of a segment that must be split; nothing in it is confirmed
before, so that a live recogniser never hears past the cut."""


class Opened(msgspec.Struct, frozen=True):
    """A segment begins at sample ``start``."""

    start: int


class Confirmed(msgspec.Struct, frozen=True):
    """The open segment surely reaches sample ``end``."""

    end: int


class Closed(msgspec.Struct, frozen=True):
    """The open segment was [start, end), ``speech`` samples of it speech."""

    start: int
    end: int
    speech: int


class Decided(msgspec.Struct, frozen=True):
    """Everything since the last decision up to sample ``end`` is kept, or not."""

    end: int
    keep: bool


GateEvent = Opened | Confirmed | Closed | Decided


class Vad(Protocol):
    """Where probabilities come from."""

    def probabilities(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """Return one probability for each whole chunk of 512 samples."""


def _chunks(seconds: float) -> int:
    return max(1, round(seconds * SAMPLE_RATE / CHUNK_SAMPLES))


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


class SpeechGate:
    """One run of audio. ``open`` and ``close`` are the probabilities of the hysteresis."""

    def __init__(self, vad: Vad, *, open: float = 0.5, close: float = 0.35) -> None:
        self._vad = vad
        self._could_be = min(COULD_BE, close)  # what is transcribed is kept, however low the settings are
        self._around = math.ceil(AROUND_SECONDS * SAMPLE_RATE / CHUNK_SAMPLES)
        self._open_at = open
        self._close_at = close
        self._heard = 0
        """Samples taken."""
        self._done = 0
        """Chunks judged."""
        self._out: list[GateEvent] = []
        self._decided = 0
        self._keep_until = 0
        """Chunks below this are near possible speech that was heard already."""
        self._candidate: int | None = None
        """First chunk of speech that is not yet long enough to open a segment."""
        self._start: int | None = None
        """First sample of the open segment."""
        self._last_speech = 0
        """Chunk after the last one with speech, in the open segment or candidate."""
        self._speech = 0
        """Chunks of speech in the open segment or candidate."""
        self._in_speech = False
        self._end_of_last = 0
        """End of the segment before, in samples."""
        self._history: list[float] = []
        """Probabilities of the open segment's chunks since it opened."""

    def accept(self, pcm: npt.NDArray[np.int16]) -> list[GateEvent]:
        """Take samples; return what is certain now, in order."""
        self._heard += len(pcm)
        for probability in self._vad.probabilities(pcm).tolist():
            self._judge(probability)
        return self._taken()

    def finish(self) -> list[GateEvent]:
        """End the run: close what is open, decide the rest."""
        if self._start is None and self._candidate is not None and self._speech >= _chunks(MINIMUM_SECONDS):
            self._open()
        if self._start is not None:
            self._close(self._heard)
        end = self._keep_until * CHUNK_SAMPLES
        if self._decided < min(end, self._heard):
            self._decide(min(end, self._heard), keep=True)
        if self._decided < self._heard:
            self._decide(self._heard, keep=False)
        return self._taken()

    # --- what is kept ---------------------------------------------------------------------------------------------

    def _judge(self, probability: float) -> None:
        chunk = self._done
        self._done += 1
        if probability >= self._could_be:
            self._decide((chunk - self._around) * CHUNK_SAMPLES, keep=False)
            self._keep_until = chunk + 1 + self._around
        if chunk < self._keep_until:
            self._decide((chunk + 1) * CHUNK_SAMPLES, keep=True)
        else:  # undecided until nothing within reach can be speech any more
            self._decide((chunk + 1 - self._around) * CHUNK_SAMPLES, keep=False)
        self._segment(chunk, probability)

    def _decide(self, end: int, *, keep: bool) -> None:
        if end > self._decided:
            self._out.append(Decided(end, keep))
            self._decided = end

    # --- what is transcribed --------------------------------------------------------------------------------------

    def _segment(self, chunk: int, probability: float) -> None:
        self._in_speech = probability >= (self._close_at if self._in_speech else self._open_at)
        if self._start is not None:
            self._history.append(probability)
        if self._in_speech:
            if self._start is None and self._candidate is None:
                self._candidate = chunk
                self._speech = 0
            self._speech += 1
            self._last_speech = chunk + 1
        if self._start is None:
            if self._candidate is not None:
                self._grow_candidate(chunk)
        elif (chunk + 1) * CHUNK_SAMPLES - self._start >= _samples(LONGEST_SECONDS):
            self._split(chunk)
        elif self._in_speech:
            # a pause inside what is already confirmed belongs to the segment as well
            self._confirm()
        elif chunk + 1 - self._last_speech >= self._hang_over():
            self._close((chunk + 1) * CHUNK_SAMPLES)

    def _grow_candidate(self, chunk: int) -> None:
        if self._speech >= _chunks(MINIMUM_SECONDS):
            self._open()
        elif chunk + 1 - self._last_speech >= _chunks(HANG_OVER_SECONDS):
            self._candidate = None  # a click: kept, not transcribed
            self._speech = 0

    def _hang_over(self) -> int:
        short = self._speech < _chunks(SHORT_SECONDS)
        return _chunks(SHORT_HANG_OVER_SECONDS if short else HANG_OVER_SECONDS)

    def _open(self) -> None:
        assert self._candidate is not None
        self._start = max(self._end_of_last, self._candidate * CHUNK_SAMPLES - _samples(PRE_ROLL_SECONDS), 0)
        self._candidate = None
        self._history = []
        self._out.append(Opened(self._start))
        self._confirm()

    def _confirm(self) -> None:
        assert self._start is not None
        surely = self._start + _samples(LONGEST_SECONDS - SPLIT_SEARCH_SECONDS - 1.0)
        self._out.append(Confirmed(min(surely, self._last_speech * CHUNK_SAMPLES)))

    def _close(self, limit: int) -> None:
        """Close at the last speech and its padding, at most at ``limit``."""
        assert self._start is not None
        short = self._speech < _chunks(SHORT_SECONDS)
        padding = SHORT_SURROUNDINGS_SECONDS if short else PADDING_SECONDS
        longest = self._start + _samples(LONGEST_SECONDS)
        end = min(limit, longest, self._last_speech * CHUNK_SAMPLES + _samples(padding))
        self._out.append(Closed(self._start, end, min(self._speech * CHUNK_SAMPLES, end - self._start)))
        self._end_of_last = end
        self._start = None
        self._speech = 0
        self._candidate = None
        self._in_speech = False

    def _split(self, chunk: int) -> None:
        """Cut at the quietest point of the last ``SPLIT_SEARCH_SECONDS``; the rest goes on as a segment of its own."""
        assert self._start is not None
        search = min(len(self._history), _chunks(SPLIT_SEARCH_SECONDS))
        # the mean of five chunks; beyond the ends the nearest counts, or every end would look quiet
        recent = np.convolve(np.pad(self._history[-search:], 2, "edge"), np.full(5, 0.2), "valid")
        quietest = chunk + 1 - search + int(np.argmin(recent))
        cut = min(quietest * CHUNK_SAMPLES + CHUNK_SAMPLES // 2, self._start + _samples(LONGEST_SECONDS))
        after = sum(p >= self._close_at for p in self._history[len(self._history) - (chunk - quietest) :])
        self._out.append(Closed(self._start, cut, min(max(1, self._speech - after) * CHUNK_SAMPLES, cut - self._start)))
        self._end_of_last = cut
        self._start = cut
        self._speech = after
        self._history = self._history[len(self._history) - (chunk - quietest) :]
        self._out.append(Opened(cut))
        if self._last_speech * CHUNK_SAMPLES > cut:
            self._confirm()
        else:
            self._last_speech = quietest + 1

    def _taken(self) -> list[GateEvent]:
        out, self._out = self._out, []
        return out
