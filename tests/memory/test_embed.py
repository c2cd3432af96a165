"""The built-in embedder: unit vectors that come out the same everywhere, near for what sounds and means alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.memory.embed import DIMENSIONS, HashedNgrams

EMBEDDER = HashedNgrams()


def likeness(one: str, other: str) -> float:
    a, b = EMBEDDER.embed([one, other])
    return float(a @ b)


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_text_has_a_unit_vector_or_none(texts: list[str]) -> None:
    rows = EMBEDDER.embed(texts)
    assert rows.shape == (len(texts), DIMENSIONS)
    assert rows.dtype == np.float32
    lengths = np.linalg.norm(rows, axis=1)
    assert all(abs(length - 1) < 1e-3 or length == 0 for length in lengths)
    assert np.array_equal(rows, EMBEDDER.embed(texts))


def test_the_order_and_case_of_words_hardly_matter() -> None:
    assert likeness("call the Dentist", "the dentist call") > 0.99


def test_a_misheard_word_is_nearer_than_another() -> None:
    meant, misheard, other = "appointment with the dentist", "appointments with a dentists", "the train to boston"
    assert likeness(meant, misheard) > 0.6 > 0.3 > likeness(meant, other)


def test_the_same_numbers_on_every_machine() -> None:
    """A vault moves from one machine to another: nothing may hang on the process, as Python's own hash does."""
    (row,) = EMBEDDER.embed(["milk bread and cheese"])
    assert np.flatnonzero(row)[:4].tolist() == [0, 18, 27, 33]
