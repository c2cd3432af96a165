"""What was kept with a hole in it, because a notification got lost and the link broke off before any check."""

from __future__ import annotations

import pytest

from omi_edge.capture.device import Storage
from omi_edge.capture.offline import drain
from omi_edge.capture.stored import overlap
from omi_edge.clock import DrivenClock
from omi_edge.errors import LinkLost
from tests.capture.storages import MultiLink, Owner, RingLink, SingleLink, StorageLink, block_of, record_of
from tests.helpers import START_US, drive

RING, SINGLE, MULTI = Storage.RING, Storage.SINGLE_FILE, Storage.MULTI_FILE
RECORDS = [record_of(number) for number in range(300)]
BLOCKS = [block_of(number) for number in range(200)]
FILE = b"".join(BLOCKS)
NAME = 0x6920_0000


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


async def fetch(link: StorageLink, owner: Owner, storage: Storage) -> None:
    await drive(link.clock, drain(link, storage, link.clock, owner, owner.cursor), step=1.0)


async def broken_off(link: StorageLink, owner: Owner, storage: Storage, lost: int, cut: int) -> None:
    """Lose that notification, counted from 0, and be cut off after so many."""
    link.drop, link.cut_after = {lost}, cut
    with pytest.raises(LinkLost):
        await fetch(link, owner, storage)
    link.reconnect()


@pytest.mark.parametrize("ring_id", [None, 7])
@pytest.mark.parametrize(
    ("lost", "cut"), [(5, 8), (5, 9), (5, 60), (6, 8), (6, 60), (40, 60), (58, 60), (20, 272), (271, 273)]
)
async def test_a_ring_with_a_hole_is_still_the_same(
    clock: DrivenClock, lost: int, cut: int, ring_id: int | None
) -> None:
    link, owner = RingLink(clock, RECORDS, ring_id=ring_id), Owner()
    await broken_off(link, owner, RING, lost, cut)
    await fetch(link, owner, RING)
    assert owner.raw == RECORDS and not owner.losses
    assert {store for store, _ in owner.records} == {1}


async def test_a_hole_in_what_comes_again_does_not_make_another_ring(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    link.cut_after = 6
    with pytest.raises(LinkLost):
        await fetch(link, owner, RING)
    assert 0 < len(owner.raw) < 4
    link.reconnect()
    link.drop = {3, 4}
    await fetch(link, owner, RING)
    assert owner.raw == RECORDS and not owner.losses


async def test_a_ring_that_really_is_another_one_leaves_what_was_kept(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    await broken_off(link, owner, RING, 20, 60)
    had = owner.raw
    link.records = [record_of(number) for number in range(1000, 1200)]
    await fetch(link, owner, RING)
    assert owner.raw == had + link.records and {store for store, _ in owner.records} == {1, 2}


@pytest.mark.parametrize("frees", [False, True])
async def test_another_ring_is_kept_whole_after_a_few_records_of_one(clock: DrivenClock, frees: bool) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    link.cut_after = 6
    with pytest.raises(LinkLost):
        await fetch(link, owner, RING)
    had = owner.raw
    assert 0 < len(had) < 4
    link.reconnect()
    link.records = [record_of(number) for number in range(1000, 1030)]
    link.frees = frees  # what is asked for again is gone by then
    await fetch(link, owner, RING)
    assert owner.raw == had + link.records and not owner.losses


async def test_overwritten_records_do_not_hide_that_it_is_the_same_ring(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    await broken_off(link, owner, RING, 20, 60)
    link.overwrite(30)
    await fetch(link, owner, RING)
    assert owner.raw[30:] == RECORDS[30:] and {store for store, _ in owner.records} == {1}


@pytest.mark.parametrize("ring_id", [None, 7])
@pytest.mark.parametrize("overwritten", [0, 350])
async def test_the_first_word_tells_where_the_ring_ends_now(
    clock: DrivenClock, ring_id: int | None, overwritten: int
) -> None:
    link, owner = RingLink(clock, RECORDS, ring_id=ring_id), Owner()
    await fetch(link, owner, RING)
    link.reconnect()
    link.records += [record_of(number) for number in range(1000, 1100)]
    link.read_seq = max(link.read_seq, overwritten)
    owner.ends.clear()
    await fetch(link, owner, RING)
    assert set(owner.ends) == {400}  # all of it was recorded before this visit


@pytest.mark.parametrize(("lost", "cut"), [(2, 6), (3, 20), (3, 21), (60, 61), (60, 150), (100, 200)])
@pytest.mark.parametrize("in_pendant", [False, True])
async def test_a_single_file_with_a_hole_is_still_the_same(
    clock: DrivenClock, lost: int, cut: int, in_pendant: bool
) -> None:
    link, owner = SingleLink(clock, FILE), Owner()
    if in_pendant:  # it left out a block and goes on: the same to us
        link.skip = [440 * (lost - 2)]
    await broken_off(link, owner, SINGLE, -1 if in_pendant else lost, cut)
    await fetch(link, owner, SINGLE)
    assert owner.raw == BLOCKS and not owner.losses
    assert {store for store, _ in owner.records} == {1} and link.content == b""
    starts = [int.from_bytes(command[2:], "big") for command in link.commands if command[0] == 0 and len(command) == 6]
    assert starts.count(0) <= 4, "it is not read again from its beginning over and over"


@pytest.mark.parametrize("mtu", [498, 185])
@pytest.mark.parametrize(("lost", "cut"), [(3, 5), (3, 9), (3, 60), (60, 150), (140, 150), (20, 195), (3, 201)])
async def test_a_file_with_a_hole_is_still_there(clock: DrivenClock, lost: int, cut: int, mtu: int) -> None:
    link, owner = MultiLink(clock, {NAME: FILE, NAME + 9: FILE[::-1]}, mtu), Owner()
    await broken_off(link, owner, MULTI, lost, cut)
    assert not [at for at in owner.freed_at if at[0]], "nothing is final before the pendant has given it up"
    await fetch(link, owner, MULTI)
    assert b"".join(owner.raw) == FILE + FILE[::-1] and not owner.losses
    assert {store for store, _ in owner.records} == {1, 2} and not link.files


async def test_what_is_final_of_a_growing_file_stays(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {NAME: FILE[: 440 * 50]}), Owner()
    link.keeps_last = True
    await fetch(link, owner, MULTI)
    assert owner.cursor is not None
    await owner.freed(owner.cursor)  # as is done when all that a pendant holds is here
    link.reconnect()
    link.files[NAME] = FILE
    await broken_off(link, owner, MULTI, 20, 120)
    await fetch(link, owner, MULTI)
    assert owner.raw == BLOCKS and not owner.losses and {store for store, _ in owner.records} == {1}


@pytest.mark.parametrize("lost", [0, 100, 200, 300, 350, 390, 700])
@pytest.mark.parametrize("size", [93, 178, 494])
def test_what_has_a_hole_is_known_again(lost: int, size: int) -> None:
    whole = b"".join(RECORDS[:16])
    holed = whole[:lost] + whole[lost + size :]
    for here, there in ((holed, whole), (whole, holed)):
        kept = [(at // 444, here[at : at + 444]) for at in range(0, len(here) - 443, 444)]
        assert overlap(kept, there) and overlap(kept[1:], there)


def test_a_stale_tail_does_not_make_it_the_same() -> None:
    kept = [(0, RECORDS[0])]
    assert not overlap(kept, RECORDS[1][:300] + RECORDS[0][-144:])
    assert not overlap([], RECORDS[0]) and not overlap([(0, b"")], RECORDS[0])
    assert overlap([(0, b"short")], b"shorter") and not overlap([(440, b"tail")], b"a tail")
