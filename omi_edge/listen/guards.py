"""Guards against invented words: what a recogniser wrote is kept where the sound supports it. Pure.

Whisper writes something for whatever it is given: credits of films over silence, one phrase again and again, whole
sentences over a cough. Each guard takes words away and names why; none adds, changes or moves one.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from omi_edge.engine import HeardWord, Rejected
from omi_edge.listen.phantoms import is_phantom, letters

NO_SPEECH = 0.6
NO_SPEECH_LOGPROB = -1.0
"""A piece is silence when its no-speech probability is above the one and its average log-probability below the other:
the Whisper paper, §4.5, and the defaults of OpenAI's ``transcribe``."""
COMPRESSION = 2.4
"""Text that gzip makes smaller than this many times is a loop: the Whisper paper, §4.5, and OpenAI's default."""
FASTEST_WORDS_PER_SECOND = 655 / 60
"""The record of speaking English fast: 655 words a minute, Sean Shannon, 1995 (Wikipedia, "Steve Woodmore", whose 637
that broke). Single Chinese or Japanese characters, which Whisper takes for words, are taken for no faster: a choice."""
FAST_WORDS = 5
"""So many words are needed to call them too fast: fewer may only be placed badly. A choice."""
PADDING_MS = 400
"""How far from detected speech a word may lie: the padding that faster-whisper gives speech (VadOptions)."""
LEAST_SPEECH = 0.2
"""Share of a piece's words, in time, that must be speech. A choice."""
PHANTOM_SPEECH = 0.5
PHANTOM_PROBABILITY = 0.6
"""A phrase that Whisper is known to invent is believed when it lies in speech to this share, its words have this mean
probability, and the model does not call it silence. A choice."""
LONGEST_LOOP = 12
"""Words of the longest phrase that is looked for in a loop. A choice."""
MOST_REPEATS = {1: 5, 2: 3}
MOST_REPEATS_OF_MORE = 2
"""How often people say a phrase of one, of two, of more words in a row; beyond that only the first is kept. A choice:
"no, no, no, no" is said, and three equal sentences are hardly ever."""

Span = tuple[int, int]
"""Start and end in milliseconds."""


class Reason(StrEnum):
    """Why words were taken away."""

    NO_SPEECH = "no-speech"
    LITTLE_SPEECH = "little-speech"
    PHANTOM = "phantom-phrase"
    OUTSIDE = "outside-speech"
    TOO_FAST = "too-fast"
    REPETITION = "repetition"
    COMPRESSION = "compression"


class Piece(msgspec.Struct, frozen=True):
    """One segment of Whisper; word times in milliseconds from the first sample."""

    text: str
    words: tuple[HeardWord, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float = 0.0
    window: int = 0
    """Which decoding it is from; ``compression_ratio`` is of the whole decoding."""


class Guarded(msgspec.Struct, frozen=True):
    """What is left, and what was taken away, both in the order of the pieces."""

    words: tuple[HeardWord, ...]
    rejected: tuple[Rejected, ...] = ()


class _Word:
    """A word on its way through the guards."""

    def __init__(self, word: HeardWord, piece: Piece, number: int) -> None:
        self.word = word
        self.piece = piece
        self.number = number
        """Of its piece."""
        self.letters = letters(word.text)
        self.reason: Reason | None = None


def guard(
    pieces: Sequence[Piece],
    speech: Sequence[Span],
    *,
    language: str = "en",
    prompt: Sequence[str] = (),
    phantoms: bool = True,
) -> Guarded:
    """Return the words of ``pieces`` that the sound supports, and the rest with reasons.

    ``speech`` are the spans that a VAD calls speech, in order and apart. ``prompt`` are the texts that the recogniser
    was given beforehand: it is known to repeat them over silence, so they are doubted as phantom phrases are.
    ``phantoms``: whether the recogniser is one that has learnt to invent phrases, from subtitles.
    """
    words = [_Word(word, piece, n) for n, piece in enumerate(pieces) for word in piece.words]
    for piece, group in itertools.groupby(words, key=lambda one: one.number):
        reason = _of_piece(pieces[piece], speech)
        if phantoms and reason is None and _is_invented(pieces[piece], speech, language, prompt):
            reason = Reason.PHANTOM
        for one in group:
            one.reason = reason
    _mark_outside(_left(words), speech)
    _mark_loops(_left(words))
    _mark_fast(_left(words), speech)  # behind the loops, which are squeezed and would take real words with them
    for _, window in itertools.groupby(_left(words), key=lambda one: one.piece.window):
        _mark_compressed(list(window))
    return Guarded(tuple(one.word for one in _left(words)), tuple(_rejected(words)))


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib makes the text, as Whisper counts it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def reasons(rejected: Iterable[Rejected]) -> str:
    """Return all reasons in one line, each once; "" without any."""
    return ", ".join(dict.fromkeys(one.reason for one in rejected))


def _of_piece(piece: Piece, speech: Sequence[Span]) -> Reason | None:
    if piece.no_speech_prob > NO_SPEECH and piece.avg_logprob < NO_SPEECH_LOGPROB:
        return Reason.NO_SPEECH
    return Reason.LITTLE_SPEECH if _speech_share(piece.words, speech) < LEAST_SPEECH else None


def _is_invented(piece: Piece, speech: Sequence[Span], language: str, prompt: Sequence[str]) -> bool:
    probability = sum(word.confidence for word in piece.words) / max(1, len(piece.words))
    heard = _speech_share(piece.words, speech) >= PHANTOM_SPEECH and probability >= PHANTOM_PROBABILITY
    return not (heard and piece.no_speech_prob <= NO_SPEECH) and is_phantom(piece.text, language, prompt)


def _left(words: Iterable[_Word]) -> list[_Word]:
    return [one for one in words if one.reason is None]


def _overlap(start_ms: int, end_ms: int, speech: Sequence[Span], padding_ms: int = 0) -> int:
    """Return the milliseconds of [start, end] in speech, a word without length counting as one."""
    end_ms = max(end_ms, start_ms + 1)
    return sum(max(0, min(end_ms, end + padding_ms) - max(start_ms, start - padding_ms)) for start, end in speech)


def _speech_share(words: Sequence[HeardWord], speech: Sequence[Span]) -> float:
    length = sum(max(1, word.end_ms - word.start_ms) for word in words)
    return sum(_overlap(word.start_ms, word.end_ms, speech) for word in words) / max(1, length)


def _mark_outside(words: Sequence[_Word], speech: Sequence[Span]) -> None:
    """Mark words away from speech. One without length was not placed, a neighbour has its time: it goes with them."""
    for at, one in enumerate(words):
        beside = words[max(0, at - 1) : at + 2] if one.word.start_ms == one.word.end_ms else [one]
        mine = [other.word for other in beside if other.number == one.number]
        start_ms, end_ms = min(word.start_ms for word in mine), max(word.end_ms for word in mine)
        if not _overlap(start_ms, end_ms, speech, PADDING_MS):
            one.reason = Reason.OUTSIDE


def _mark_fast(words: Sequence[_Word], speech: Sequence[Span]) -> None:
    """Mark words that lie closer together than people speak, and pieces with more words than their speech holds."""
    shortest_ms = FAST_WORDS / FASTEST_WORDS_PER_SECOND * 1000
    for first in range(len(words) - FAST_WORDS + 1):
        run = words[first : first + FAST_WORDS]
        if max(one.word.end_ms for one in run) - run[0].word.start_ms < shortest_ms:
            for one in run:
                one.reason = Reason.TOO_FAST
    for _, group in itertools.groupby(words, key=lambda one: one.number):
        piece = list(group)
        start_ms, end_ms = piece[0].word.start_ms, max(one.word.end_ms for one in piece)
        most = _overlap(start_ms, end_ms, speech) / 1000 * FASTEST_WORDS_PER_SECOND
        if len(piece) >= FAST_WORDS and len(piece) > most:
            for one in piece:
                one.reason = Reason.TOO_FAST


def _mark_loops(words: Sequence[_Word]) -> None:
    first = 0
    while first < len(words):
        for length in range(1, LONGEST_LOOP + 1):
            repeats = _repeats(words, first, length)
            if repeats > MOST_REPEATS.get(length, MOST_REPEATS_OF_MORE):
                for one in words[first + length : first + length * repeats]:
                    one.reason = Reason.REPETITION
                first += length * repeats
                break
        else:
            first += 1


def _repeats(words: Sequence[_Word], first: int, length: int) -> int:
    """Return how often in a row the phrase of ``length`` words at ``first`` is said."""
    phrase = [one.letters for one in words[first : first + length]]
    if len(phrase) < length or not any(phrase):
        return 0
    repeats, at = 1, first + length
    while [one.letters for one in words[at : at + length]] == phrase:
        repeats += 1
        at += length
    return repeats


def _mark_compressed(window: Sequence[_Word]) -> None:
    """Mark what is still repetitive of a decoding that was, once the loops are out."""
    if all(one.piece.compression_ratio <= COMPRESSION for one in window):
        return
    between = " " if " " in window[0].piece.text.strip() else ""
    if compression_ratio(between.join(one.word.text for one in window)) > COMPRESSION:
        for one in window:
            one.reason = Reason.COMPRESSION


def _rejected(words: Sequence[_Word]) -> Iterator[Rejected]:
    for (reason, _), group in itertools.groupby(words, key=lambda one: (one.reason, one.number)):
        if reason is not None:
            run = [one.word for one in group]
            yield Rejected(run[0].start_ms, max(word.end_ms for word in run), reason.value, len(run))
