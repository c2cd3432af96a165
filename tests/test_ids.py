"""Ids: unique, sorted by time, of one form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.ids import new_id
from tests.helpers import START_US

TIMES = st.integers(0, (1 << 48) * 1000 - 1)


def test_ids_differ_within_one_microsecond() -> None:
    assert len({new_id("con", START_US) for _ in range(10_000)}) == 10_000


@given(TIMES, TIMES)
def test_ids_sort_by_millisecond(one: int, other: int) -> None:
    if one // 1000 < other // 1000:
        assert new_id("con", one) < new_id("con", other)


@given(TIMES)
def test_form(at: int) -> None:
    prefix, _, rest = new_id("tsk", at).partition("_")
    assert prefix == "tsk"
    assert len(rest) == 26
    assert rest.isalnum()
    assert rest == rest.lower()
    assert not set(rest) & set("ilou")  # Crockford's alphabet leaves out what is misread
