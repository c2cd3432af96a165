"""As many words as fit, the first ones, whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.listen.hotwords import fitting

WORDS = st.lists(st.text("abü -<|", min_size=1, max_size=12), max_size=12)


@given(WORDS, st.integers(0, 40))
def test_the_first_that_fit_are_taken_whole(words: list[str], most: int) -> None:
    found = fitting(words, len, most)
    allowed = [word for word in words if "<|" not in word]
    takes = [", ".join(allowed[:count]) for count in range(len(allowed) + 1)]
    assert found in takes
    assert not found or len(" " + found) <= most
    longer = takes.index(found) + 1
    if longer < len(takes) and takes[longer]:
        assert len(" " + takes[longer]) > most


def test_none_is_none() -> None:
    assert fitting((), len, 223) == ""
