"""The ring on the medium: numbers, batches, what is overwritten, what a crash takes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.virtual.holdings import Block, StoredFate
from omi_edge.virtual.ring import BATCH_RECORDS, RING_RECORDS, Ring


def filled(ring: Ring, count: int) -> list[Block]:
    blocks = [Block(bytes(440), ((index, index + 1),), 0) for index in range(count)]
    for block in blocks:
        ring.put(block)
    return blocks


def test_the_room_of_a_real_one() -> None:
    assert RING_RECORDS == (482_000_000 // 512 - 64) // 32 * 36


def test_the_oldest_batch_makes_room_as_a_whole() -> None:
    ring = Ring(capacity=108)
    blocks = filled(ring, 108)
    assert (ring.read_seq, ring.write_seq, ring.dropped) == (0, 108, 0)
    blocks += filled(ring, 1)
    assert (ring.read_seq, ring.write_seq, ring.dropped) == (36, 109, 36)
    assert [block.fate for block in blocks[34:38]] == [StoredFate.OVERWRITTEN] * 2 + [StoredFate.STORED] * 2
    filled(ring, 35)
    assert (ring.read_seq, ring.dropped) == (36, 36)


def test_what_was_freed_is_not_counted_as_dropped() -> None:
    ring = Ring(capacity=72)
    blocks = filled(ring, 72)
    ring.advance(20, by_itself=False)
    filled(ring, 1)
    assert (ring.read_seq, ring.dropped) == (36, 16)
    assert Counter(block.fate for block in blocks) == {
        StoredFate.FREED: 20, StoredFate.OVERWRITTEN: 16, StoredFate.STORED: 36
    }  # fmt: skip


def test_a_crash_takes_the_unfinished_batch_unless_it_was_written() -> None:
    ring = Ring()
    blocks = filled(ring, BATCH_RECORDS + 10)
    ring.commit()
    blocks += filled(ring, 5)
    ring.crash()
    assert ring.write_seq == BATCH_RECORDS + 10
    assert [block.fate for block in blocks[-6:]] == [StoredFate.STORED] + [StoredFate.CRASHED] * 5
    ring.crash()
    assert ring.write_seq == BATCH_RECORDS + 10


def test_a_cleared_ring_is_another() -> None:
    ring = Ring(seed=4)
    first = ring.ring_id
    block = filled(ring, 5)[4]
    ring.advance(3, by_itself=True)
    ring.clear()
    assert (ring.read_seq, ring.write_seq, ring.dropped, ring.store) == (0, 0, 0, 2)
    assert ring.ring_id not in (0, first)
    assert block.fate is StoredFate.WIPED
    assert filled(ring, 1)[0].store == 2
    assert Ring(seed=4).ring_id == first


@given(
    st.integers(1, 200),
    st.lists(st.one_of(st.integers(1, 90), st.sampled_from(["advance", "crash", "commit"])), max_size=25),
)
def test_it_always_holds_what_it_says(capacity: int, acts: list[int | str]) -> None:
    ring, blocks = Ring(capacity), []
    for act in acts:
        if isinstance(act, int):
            blocks += filled(ring, act)
        elif act == "advance":
            ring.advance((ring.read_seq + ring.write_seq) // 2, by_itself=False)
        elif act == "crash":
            ring.crash()
        else:
            ring.commit()
        stored = [block for block in blocks if block.fate is StoredFate.STORED]
        assert [block.seq for block in stored] == list(range(ring.read_seq, ring.write_seq))
        assert all(ring.get(block.seq) is block for block in stored)
        assert ring.unread <= max(BATCH_RECORDS, capacity)
        assert ring.dropped == sum(block.fate is StoredFate.OVERWRITTEN for block in blocks)


@pytest.mark.parametrize(("unseen", "fate"), [(True, StoredFate.SELF_FREED_UNSEEN), (False, StoredFate.SELF_FREED)])
def test_who_freed_a_record_is_remembered(unseen: bool, fate: StoredFate) -> None:
    ring = Ring()
    block = filled(ring, 1)[0]
    block.unseen = unseen
    ring.advance(1, by_itself=True)
    assert block.fate is fate
    assert ring.get(0) is None
