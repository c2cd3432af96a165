"""Sources: registered once, counted as they are heard, and what each holds."""

from __future__ import annotations

import pytest

from omi_edge.domain import Codec
from omi_edge.errors import NotFound
from omi_edge.store import sources
from omi_edge.store.connection import Connection
from omi_edge.store.filters import Filters
from tests.helpers import START_US
from tests.store.filling import SOURCES, add_conversation, add_source


def test_a_pendant_is_found_by_its_address(conn: Connection) -> None:
    add_source(conn)
    found = sources.for_device(conn, "AA:BB")
    assert found is not None
    assert found.id == SOURCES[0]
    assert sources.for_device(conn, "CC:DD") is None
    with pytest.raises(NotFound):
        sources.get(conn, "src_nowhere")


def test_what_was_heard_never_goes_back_and_counters_add_up(conn: Connection) -> None:
    add_source(conn)
    sources.advance(conn, SOURCES[0], heard_until_us=START_US + 5, lost_frames=2, dropped_bytes=10, dropped_us=20)
    sources.advance(conn, SOURCES[0], heard_until_us=START_US + 3, lost_frames=1, dropped_bytes=1, dropped_us=1)
    row = sources.get(conn, SOURCES[0])
    assert (row.heard_until_us, row.lost_frames, row.dropped_bytes, row.dropped_us) == (START_US + 5, 3, 11, 21)


def test_recordings_whose_end_was_not_noted_are_known(conn: Connection) -> None:
    add_source(conn)  # a pendant has no end
    for name in ("done", "cut"):
        sources.add(
            conn, id=f"src_{name}", kind="file", name=name, device_id=None, client_id=None, codec=Codec.OPUS_20MS,
            created_us=START_US,
        )  # fmt: skip
    sources.set_ended(conn, "src_done", START_US)
    assert [row.id for row in sources.unfinished(conn)] == ["src_cut"]


def test_holdings_are_counted_and_narrowed(conn: Connection) -> None:
    add_source(conn)
    add_source(conn, SOURCES[1], device_id=None)
    for n in range(3):
        add_conversation(conn, f"con_{n}", SOURCES[0])
    counts = {row.id: tuple(held) for row, *held in sources.holdings(conn)}
    assert counts == {SOURCES[0]: (3, 0, 0), SOURCES[1]: (0, 0, 0)}
    assert [row.id for row, *_ in sources.holdings(conn, Filters(device="AA:BB"))] == [SOURCES[0]]
    assert sources.holdings(conn, Filters(client="nobody")) == []
