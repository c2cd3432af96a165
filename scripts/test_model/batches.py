"""Batches: windows beside the tokens to write, and beside where and what each helper of the training should see.

A batch follows from the seed and its number alone, so that a training that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from scripts.test_model.data import FRAME, Pauses, Window, Word, nothing, talk
from scripts.test_model.network import FRAMES, MELS
from scripts.test_model.speech import PAUSE, RATE, Spoken
from scripts.test_model.vocabulary import SPACE, WORDS, tokenizer

TOKENS = tokenizer().get_vocab()
END, START, BEFORE, NO_SPEECH, NO_TIMES = (
    TOKENS[f"<|{name}|>"] for name in ("endoftext", "startoftranscript", "startofprev", "nospeech", "notimestamps")
)
FIRST_TIME = TOKENS["<|0.00|>"]
STOP = TOKENS["."]
FIRST_START = 50
"""Whisper is made to begin within the first second (``max_initial_timestamp``), in steps of 20 ms."""
WORD_NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
PHONES = (
    PAUSE,
    *"aa ae ah ao aw ax axr ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w".split(),
    *"y z zh".split(),
)
PHONE_NUMBERS = {phone: number for number, phone in enumerate(PHONES)}
REMEMBERED = 0.5
"""Seconds of pause after which the word before is no longer to be named."""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Batch:
    """All are arrays with the window first; T positions of 20 ms, N tokens."""

    features: Floats
    """(B, 80, 2T)"""
    offsets: Ints
    """(B,): the position that the window begins at."""
    tokens: Ints
    """(B, N)"""
    labels: Ints
    """(B, N): the token that follows, -1 where it is not learnt."""
    look: Floats
    """(B, N, T): where the following token is said, sums to 1; all 0 where nothing is known."""
    phones: Ints
    words: Ints
    previous: Ints
    """(B, T): number of the phone, word, and word before, 0 for none."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a batch is made of."""

    windows: int
    sentences: tuple[int, int]
    pauses: Pauses
    full: bool = False
    """Windows of 30 s, as faster-whisper makes them; otherwise as long as the longest, at any position."""


SHORT = Recipe(32, (1, 1), Pauses((0, 0.6), (0.05, 0.9), 8))
MIDDLE = Recipe(12, (2, 4), Pauses((0, 1.5), (0.2, 1.2), 15))
FULL = Recipe(6, (1, 4), Pauses((0, 12), (0.2, 1.5), 29), full=True)
LONG = Recipe(6, (3, 12), Pauses((0, 1.5), (0.2, 1.2), 29), full=True)


def make(seed: str, corpus: Sequence[Spoken], recipe: Recipe, share: float = 1.0) -> Batch:
    """Make a batch. ``corpus`` is in order of length; its first ``share`` is drawn from."""
    draw = random.Random(seed)
    count = max(200, int(len(corpus) * share))
    if recipe.sentences == (1, 1):  # of about the same length, or most of the batch is padding
        middle = draw.randrange(count)
        first = max(0, min(middle - 100, count - 200))
        pool: Sequence[Spoken] = corpus[first : first + 200]
    else:
        pool = corpus[:count]
    windows = [
        nothing(draw)
        if recipe.full and draw.random() < 0.08
        else talk(draw, draw.sample(pool, draw.randint(*recipe.sentences)), _pauses(draw, recipe))
        for _ in range(recipe.windows)
    ]
    longest = max(window.features.shape[1] for window in windows) // 2 + 1
    frames = FRAMES if recipe.full else min(FRAMES, longest + draw.randint(2, 25))
    return _assemble(draw, windows, frames)


def _pauses(draw: random.Random, recipe: Recipe) -> Pauses:
    """Long silences before are the exception."""
    low, high = recipe.pauses.before
    return recipe.pauses if draw.random() < 0.35 else dataclasses.replace(recipe.pauses, before=(low, min(high, 0.6)))


def _assemble(draw: random.Random, windows: Sequence[Window], frames: int) -> Batch:
    offsets = [draw.randint(1, FRAMES - frames) if frames < FRAMES and draw.random() < 0.5 else 0 for _ in windows]
    written = [_Writer(window, offset) for window, offset in zip(windows, offsets, strict=True)]
    for one in written:
        one.write(draw)
    longest = max(len(one.tokens) for one in written)
    shape = (len(windows), frames)
    batch = Batch(
        np.zeros((len(windows), MELS, 2 * frames), np.float32),
        np.array(offsets),
        np.full((len(windows), longest), END),
        np.full((len(windows), longest), -1),
        np.zeros((len(windows), longest, frames), np.float32),
        *(np.zeros(shape, np.int64) for _ in range(3)),
    )
    for row, (window, one) in enumerate(zip(windows, written, strict=True)):
        heard = window.features[:, : 2 * frames]
        batch.features[row, :, : heard.shape[1]] = heard
        batch.tokens[row, : len(one.tokens)] = one.tokens
        batch.labels[row, : len(one.labels)] = one.labels
        for column, (first, last) in one.spans.items():
            first, last = max(0, min(first, frames - 2)), min(frames, max(last, 1))
            batch.look[row, column, first:last] = 1 / (last - first)
        for phone in window.phones:
            batch.phones[row, _steps(phone.start) : _steps(phone.end)] = PHONE_NUMBERS.get(phone.text, 0)
        _name_words(window.words, batch.words[row], batch.previous[row])
    return batch


def _name_words(words: Sequence[Word], current: Ints, previous: Ints) -> None:
    before: Word | None = None
    for word in words:
        where = slice(_steps(word.start), _steps(word.end))
        current[where] = WORD_NUMBERS[word.text]
        if before is not None and word.start - before.end < REMEMBERED:
            previous[where] = WORD_NUMBERS[before.text]
        before = word


class _Writer:
    """The tokens of one window, what follows each, and where in the sound that is."""

    def __init__(self, window: Window, offset: int) -> None:
        self.tokens: list[int] = []
        self.labels: list[int] = []
        self.spans: dict[int, tuple[int, int]] = {}
        self._window = window
        self._offset = offset

    def write(self, draw: random.Random) -> None:
        """Half with times, half without; a fifth after a prompt that says nothing about the sound."""
        prompt = [BEFORE, *_prompt(draw)] if draw.random() < 0.2 else []
        self.tokens = [*prompt, START]
        self.labels = [-1] * len(self.tokens)
        times = draw.random() < 0.5
        if not self._window.sentences:
            self.labels[-1] = NO_SPEECH
            self._append(FIRST_TIME if times else NO_TIMES)
            self.labels[-1] = END
            return
        if not times:
            self._append(NO_TIMES)
        for number, sentence in enumerate(self._window.sentences):
            self._say(sentence, times=times, first=number == 0)
        end = _steps(self._window.words[-1].end)
        self._expect(END, (end + 3, end + 15))

    def _say(self, sentence: Sequence[Word], *, times: bool, first: bool) -> None:
        start, end = _steps(sentence[0].start), _steps(sentence[-1].end)
        if times:
            told = min(start, FIRST_START) if first and not self._offset else start
            self._follow(FIRST_TIME + told + self._offset, (start - 2, start + 3))
        for word in sentence:
            begins = _steps(word.start)
            self._follow(TOKENS[SPACE + word.text], (begins, max(_steps(word.end), begins + 2)))
        self._follow(STOP, (end, end + 6))
        if times:
            self._follow(FIRST_TIME + end + self._offset, (end - 3, end + 3))

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        self.labels.append(-1)

    def _expect(self, token: int, span: tuple[int, int]) -> None:
        self.labels[-1] = token
        self.spans[len(self.tokens) - 1] = span

    def _follow(self, token: int, span: tuple[int, int]) -> None:
        self._expect(token, span)
        self._append(token)


def _prompt(draw: random.Random) -> list[int]:
    """Draw what an owner's vocabulary may look like: known words, and now and then bytes of others."""
    words = [TOKENS[SPACE + word] for word in WORDS]
    length = draw.randint(1, 60 if draw.random() < 0.15 else 12)
    return [draw.choice(words) if draw.random() < 0.85 else draw.randrange(256) for _ in range(length)]


def _steps(seconds: float) -> int:
    return round(seconds / FRAME)


assert RATE * FRAME == 320
