"""A hole, and what of it the owner withheld."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.domain import Withholding
from omi_edge.pipeline.gaps import SEAM_US, apart

S = 1_000_000


def span(start: float, end: float | None, kind: Withholding = Withholding.MUTED) -> tuple[int, int, str]:
    return round(start * S), 1 << 62 if end is None else round(end * S), kind.value


@pytest.mark.parametrize(
    ("spans", "pieces"),
    [
        ([], [(0, 60, "")]),
        ([span(0, 60)], [(0, 60, "muted")]),
        ([span(-10, None)], [(0, 60, "muted")]),
        ([span(0.5, 59.5)], [(0, 60, "muted")]),
        ([span(20, 40)], [(0, 20, ""), (20, 40, "muted"), (40, 60, "")]),
        (
            [span(20, 30), span(30, 50, Withholding.OFF_RECORD)],
            [(0, 20, ""), (20, 30, "muted"), (30, 50, "off_record"), (50, 60, "")],
        ),
        ([span(50, None)], [(0, 50, ""), (50, 60, "muted")]),
    ],
)
def test_what_was_withheld_is_cut_out(
    spans: list[tuple[int, int, str]], pieces: list[tuple[float, float, str]]
) -> None:
    assert apart(0, 60 * S, spans) == [(round(a * S), round(b * S), kind) for a, b, kind in pieces]


@given(st.lists(st.integers(-20, 80), min_size=0, max_size=8), st.integers(1, 60))
def test_the_pieces_fill_the_hole_without_overlap(edges: list[int], length: int) -> None:
    edges = sorted(set(edges))
    spans = [span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    pieces = apart(0, length * S, spans)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == length * S
    assert all(before[1] == after[0] for before, after in itertools.pairwise(pieces))
    assert all(end - start > SEAM_US for start, end, kind in pieces if not kind and len(pieces) > 1)
