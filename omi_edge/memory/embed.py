"""The built-in embedding: hashed character n-grams, so that a word misheard by a letter or two still lies near.

It knows spelling, not meaning. Every feature is hashed to one of 384 dimensions with a sign (feature hashing,
Weinberger et al. 2009), which keeps dot products unbiased.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
import zlib
from collections import Counter

import numpy as np
import numpy.typing as npt

from omi_edge.memory.vocabulary import STOP_WORDS

DIMENSIONS = 384
"""Size of common sentence embeddings (all-MiniLM-L6-v2, bge-small): stores and bit scans need no second shape."""
GRAM_SIZES = (3, 4, 5)
STOP_WEIGHT = 0.1
"""Share of a full word that a stop word counts: enough that a text of stop words alone has a direction."""
WORD_WEIGHT, GRAM_WEIGHT, SOUND_WEIGHT = 1.0, 1.2, 0.7
"""Lengths of the three parts of a word: its stem, its n-grams together, its consonants."""
CACHED_WORDS = 20_000
"""Words whose features are remembered; everyday English speech uses fewer."""
LONGEST_WORD = 64
"""Characters of a word that count; longer ones are noise or keys, and would cost time."""

_WORD = re.compile(r"\w+(?:'\w+)?")
_SUFFIXES = ("ingly", "edly", "ings", "ing", "ied", "ies", "ers", "er", "ed", "es", "ly", "s")
_SOUNDS = str.maketrans({"c": "k", "q": "k", "x": "k", "z": "s", "v": "f", "d": "t", "b": "p", "j": "g", "m": "n"})

Features = tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]


class HashedNgrams:
    """Implements ``engine.Embedder``.

    The same text gives the same vector in every process and on every machine. A text without a letter or digit gets
    the zero vector, which is near to nothing.
    """

    name = "hashed-ngrams 1"
    dimensions = DIMENSIONS

    def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return one row for each text, float32, shape (len(texts), 384), of length 1 or 0."""
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = _vector(text)
        return vectors


def stem(word: str) -> str:
    """Return ``word`` without its most common English endings; crude, and only ever compared with itself."""
    word = word.removesuffix("'s")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)] + ("y" if suffix in ("ied", "ies") else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def _vector(text: str) -> npt.NDArray[np.float64]:
    counts = Counter(_WORD.findall(_plain(text)))
    if not counts:
        return np.zeros(DIMENSIONS)
    found = [(_features(word[:LONGEST_WORD]), 1.0 + math.log(count)) for word, count in counts.items()]
    places = np.concatenate([places for (places, _), _ in found])
    values = np.concatenate([values * weight for (_, values), weight in found])
    vector: npt.NDArray[np.float64] = np.bincount(places, values, DIMENSIONS).astype(np.float64)
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


@functools.lru_cache(CACHED_WORDS)
def _features(word: str) -> Features:
    grams = _grams(word)
    parts = [("w" + stem(word), WORD_WEIGHT), ("p" + _sound(word), SOUND_WEIGHT)]
    parts += [("g" + gram, GRAM_WEIGHT / math.sqrt(len(grams))) for gram in grams]
    full = STOP_WEIGHT if word in STOP_WORDS else 1.0
    hashes = [_hash(feature) for feature, _ in parts]
    places = np.array([value % DIMENSIONS for value in hashes], np.intp)
    signs = np.array([1.0 if value & 0x8000_0000 else -1.0 for value in hashes])
    return places, signs * np.array([weight for _, weight in parts]) * full


def _grams(word: str) -> list[str]:
    edged = f"<{word}>"
    return [edged[at : at + size] for size in GRAM_SIZES for at in range(len(edged) - size + 1)] or [edged]


def _sound(word: str) -> str:
    """Return the consonants with those that are mistaken for one another made equal; vowels are what ASR errs in."""
    rough = word.replace("ph", "f").replace("ck", "k").replace("gh", "").translate(_SOUNDS)
    kept = [letter for letter in rough[1:] if letter not in "aeiouyhw'"]
    return rough[:1] + "".join(letter for letter, _ in itertools.groupby(kept))


def _hash(feature: str) -> int:
    """Spread CRC-32, which is the same everywhere but linear, by Knuth's multiplicative constant."""
    value = zlib.crc32(feature.encode("utf-8", "surrogatepass")) * 2_654_435_761 & 0xFFFF_FFFF
    return value ^ value >> 15


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("’", "'").casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
