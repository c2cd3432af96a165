"""Stored audio comes home whole and once, from each generation and through every interruption."""

from __future__ import annotations

import asyncio
import random

import pytest

from omi_edge import gatt
from omi_edge.capture.device import Storage
from omi_edge.capture.offline import Capacity, capacity, drain
from omi_edge.capture.stored import Cursor, Drained, Loss, Why
from omi_edge.clock import DrivenClock
from omi_edge.errors import BadPeripheral, DiskFull, LinkError, LinkLost
from scripts.soak_fuzz_storage import SESSIONS, one_round
from tests.capture.storages import EPOCH, MultiLink, Owner, RingLink, SingleLink, StorageLink, block_of, record_of
from tests.helpers import START_US, drive

RING, SINGLE, MULTI = Storage.RING, Storage.SINGLE_FILE, Storage.MULTI_FILE


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(START_US)


async def fetch(link: StorageLink, owner: Owner, storage: Storage = RING) -> Drained:
    return await drive(link.clock, drain(link, storage, link.clock, owner, owner.cursor), step=1.0)


async def resume(link: StorageLink, owner: Owner, storage: Storage = RING) -> Drained:
    link.reconnect()
    return await fetch(link, owner, storage)


RECORDS = [record_of(number) for number in range(700)]
BLOCKS = [block_of(number) for number in range(300)]
FILE = b"".join(BLOCKS)


async def test_ring_is_read_in_bounded_reads_and_freed_after_each(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS, first=100), Owner()
    drained = await fetch(link, owner)
    assert owner.raw == RECORDS and not owner.losses
    assert drained == Drained(records=700, payload=700 * 444)
    assert [c for c in link.commands if c[0] in (0x11, 0x12)] == [
        bytes.fromhex("11 0000000000000064 00000200"),
        bytes.fromhex("12 0000000000000264"),
        bytes.fromhex("11 0000000000000264 000000bc"),
        bytes.fromhex("12 0000000000000320"),
    ]
    assert link.commands[0] == b"\x03" and 0x13 not in link.kinds
    assert max(owner.batches) <= 64
    assert owner.told[-1] == (700 * 444, 700 * 444)
    assert link.touched == {gatt.STORAGE_CONTROL}
    first = owner.records[1, 100]
    assert (first.stamp, first.seq, len(first.frames)) == (EPOCH, 100, 5)


async def test_records_are_durable_as_they_arrive(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS, frees=True), Owner()
    task = asyncio.create_task(drain(link, RING, clock, owner))
    await clock.advance(3.0)
    received = link.read_seq
    assert not task.done() and received > 100
    assert received - len(owner.raw) <= 25  # 0.2 s at 100 notifications a second
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert link.commands[-1] == b"\x03"
    assert len(owner.raw) == link.read_seq == owner.cursor.position  # type: ignore[union-attr]


@pytest.mark.parametrize("frees", [False, True])
@pytest.mark.parametrize("cut", [3, 4, 60, 300, 465, 466, 467, 600])
async def test_interruptions_lose_nothing_and_bring_nothing_twice(clock: DrivenClock, frees: bool, cut: int) -> None:
    link, owner = RingLink(clock, RECORDS, frees=frees), Owner()
    link.cut_after = cut
    with pytest.raises(LinkLost):
        await fetch(link, owner)
    await resume(link, owner)
    assert owner.raw == RECORDS and not owner.losses
    assert {store for store, _ in owner.records} == {1}
    assert link.read_seq == link.write_seq


async def test_what_3_0_21_freed_unseen_is_told_exactly(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS, frees=True), Owner()
    link.cut_after = 100
    with pytest.raises(LinkLost):
        await fetch(link, owner)
    assert owner.cursor is not None
    had = owner.cursor.position
    link.read_seq += 7
    drained = await resume(link, owner)
    assert owner.losses == [Loss(1, had, had + 6, 7, Why.FREED)]
    assert owner.raw == RECORDS[:had] + RECORDS[had + 7 :] and drained.lost == 7


async def test_overwritten_records_are_told_apart_from_freed_ones(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:100], frees=True), Owner()
    await fetch(link, owner)
    link.records = list(RECORDS)
    link.read_seq += 4
    link.overwrite(36)
    await resume(link, owner)
    assert owner.losses == [Loss(1, 100, 103, 4, Why.FREED), Loss(1, 104, 139, 36, Why.OVERWRITTEN)]
    assert len(owner.raw) == 660


async def test_a_lost_notification_is_found_and_the_read_repeated(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    link.drop = {50}
    drained = await fetch(link, owner)
    assert owner.raw == RECORDS and not owner.losses and drained.retries == 1
    assert drained.records == 700


async def test_a_lost_notification_of_a_ring_that_frees_is_told(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:200], frees=True), Owner()
    link.drop = {50}
    await fetch(link, owner)
    assert owner.losses == [Loss(1, 0, 199, 2, Why.GARBLED)]
    assert link.read_seq == 200


async def test_crc_is_checked_before_anything_is_freed(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:20], crc=True), Owner()
    honest = link.send
    spoilt = iter([True])

    def spoil(value: bytes, then: object = None) -> None:
        if value[0] == 3 and next(spoilt, False):
            value = value[:200] + bytes([value[200] ^ 1]) + value[201:]
        honest(value)

    link.send = spoil  # type: ignore[method-assign]
    drained = await fetch(link, owner)
    assert drained.retries == 1 and owner.raw == RECORDS[:20]
    assert link.kinds.count(0x12) == 1


async def test_custody_is_asked_for_and_advances_are_scoped(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:30], ring_id=0xABCD, crc=True), Owner()
    await fetch(link, owner)
    assert bytes.fromhex("14 01 0D") in link.commands  # never 0x02: live audio would be stored as well
    assert bytes.fromhex("15 000000000000ABCD 000000000000001E") in link.commands and 0x12 not in link.kinds
    assert owner.cursor is not None and owner.cursor.identity == 0xABCD


async def test_another_ring_is_another_store(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:30], ring_id=0xABCD), Owner()
    await fetch(link, owner)
    again = RingLink(clock, RECORDS[100:180], ring_id=0xEF)
    await fetch(again, owner)
    assert owner.raw == RECORDS[:30] + RECORDS[100:180] and not owner.losses
    assert owner.records[2, 0].raw == RECORDS[100]
    assert bytes.fromhex("15 00000000000000EF 0000000000000050") in again.commands


@pytest.mark.parametrize("length", [20, 30, 31, 200])
async def test_a_cleared_ring_without_an_id_is_recognised(clock: DrivenClock, length: int) -> None:
    link, owner = RingLink(clock, RECORDS[:30]), Owner()
    await fetch(link, owner)
    again = RingLink(clock, RECORDS[100 : 100 + length])
    await fetch(again, owner)
    assert owner.raw == RECORDS[:30] + RECORDS[100 : 100 + length] and not owner.losses


async def test_storage_that_is_not_ready_is_waited_for(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:30], not_ready=3), Owner()
    assert (await fetch(link, owner)).retries == 3
    assert owner.raw == RECORDS[:30]


async def test_an_advance_that_came_too_late_is_a_success(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:30], frees=True), Owner()
    link._advance = lambda seq: link.send(b"\x01\x0a")  # type: ignore[method-assign]
    assert (await fetch(link, owner)).retries == 0
    assert owner.freed_at[-1] == (1, 30)


async def test_a_pendant_that_says_nothing_ends_with_an_error(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS[:30]), Owner()
    link.mute = True
    with pytest.raises(LinkError, match="failed 4 times"):
        await fetch(link, owner)
    assert set(link.kinds) == {0x03, 0x10}


async def test_a_failing_keeper_stops_the_pendant(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    owner.error = DiskFull("no space.")
    with pytest.raises(DiskFull):
        await fetch(link, owner)
    assert link.commands[-1] == b"\x03" and link.read_seq == 0 and not owner.records


async def test_records_of_another_size_are_left_alone(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    link.command = lambda value: link.send(bytes.fromhex("02" + "00" * 29 + "BD"))  # type: ignore[method-assign]
    with pytest.raises(BadPeripheral, match="189 bytes"):
        await fetch(link, owner)


async def test_a_flood_ends_with_an_error(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()

    def flood(value: bytes) -> None:
        for _number in range(50_000):
            link._on_value(b"\x03" + bytes(100))  # type: ignore[misc]

    link.command = flood  # type: ignore[method-assign]
    with pytest.raises(BadPeripheral, match="more than was asked"):
        await fetch(link, owner)


async def test_single_file_is_deleted_after_commit_and_check(clock: DrivenClock) -> None:
    link, owner = SingleLink(clock, FILE), Owner()
    drained = await fetch(link, owner, SINGLE)
    assert owner.raw == BLOCKS and drained.records == 300 and not link.content
    assert link.commands[1] == bytes.fromhex("00 01 00000000")
    assert link.commands[-1] == b"\x01\x01" and 0x02 not in link.kinds
    assert owner.cursor == Cursor(2, 0)
    assert await resume(link, owner, SINGLE) == Drained()


@pytest.mark.parametrize("cut", [1, 2, 3, 100, 302, 303, 305])
async def test_single_file_goes_on_where_it_was(clock: DrivenClock, cut: int) -> None:
    link, owner = SingleLink(clock, FILE), Owner()
    link.cut_after = cut
    with pytest.raises(LinkLost):
        await fetch(link, owner, SINGLE)
    await resume(link, owner, SINGLE)
    assert owner.raw == BLOCKS and not link.content


async def test_single_file_that_is_another_one_is_read_whole(clock: DrivenClock) -> None:
    """The deletion was not acknowledged, and the pendant recorded more than it had before."""
    link, owner = SingleLink(clock, FILE[:4400]), Owner()
    link.cut_after = 15
    with pytest.raises(LinkLost):
        await fetch(link, owner, SINGLE)
    link.content = b"".join(block_of(number) for number in range(1000, 1050))
    await resume(link, owner, SINGLE)
    assert owner.raw == BLOCKS[:10] + [block_of(number) for number in range(1000, 1050)]


@pytest.mark.parametrize("repeats", [False, True])
async def test_single_file_blocks_left_out_are_fetched_again(clock: DrivenClock, repeats: bool) -> None:
    link, owner = SingleLink(clock, FILE, skip=[440 * 77, 440 * 200], repeats=repeats), Owner()
    drained = await fetch(link, owner, SINGLE)
    assert owner.raw == BLOCKS and drained.retries >= 1 and not link.content


async def test_single_file_is_told_that_we_live(clock: DrivenClock) -> None:
    link, owner = SingleLink(clock, FILE), Owner()
    link.step = 0.5
    await fetch(link, owner, SINGLE)
    assert owner.raw == BLOCKS and link.kinds.count(0x32) >= 4


@pytest.mark.parametrize("mtu", [498, 100, 23])
async def test_files_are_fetched_oldest_first_and_cut_into_blocks(clock: DrivenClock, mtu: int) -> None:
    files = {EPOCH: FILE[:4400], EPOCH + 1800: FILE[4400:13200], EPOCH + 3600: FILE[13200:17600]}
    link, owner = MultiLink(clock, dict(files), mtu), Owner()
    await fetch(link, owner, MULTI)
    assert owner.raw == BLOCKS[:40] and not link.files and not owner.losses
    assert [owner.records[store, 0].marks[0].seconds for store in (1, 2, 3)] == list(files)
    assert link.kinds.count(0x12) == 1  # the last one alone does not delete itself


@pytest.mark.parametrize("cut", [2, 3, 10, 13, 14, 15, 20, 35])
async def test_files_go_on_where_they_were(clock: DrivenClock, cut: int) -> None:
    files = {EPOCH: FILE[:4400], EPOCH + 1800: FILE[4400:13200]}
    link, owner = MultiLink(clock, files), Owner()
    link.cut_after = cut
    with pytest.raises(LinkLost):
        await fetch(link, owner, MULTI)
    await resume(link, owner, MULTI)
    assert owner.raw == BLOCKS[:30] and not link.files and not owner.losses


async def test_a_file_that_is_gone_too_early_is_told(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {EPOCH: FILE[:4400], EPOCH + 9: FILE[4400:8800]}), Owner()
    link.cut_after = 8
    with pytest.raises(LinkLost):
        await fetch(link, owner, MULTI)
    assert owner.cursor is not None
    had = owner.cursor.position
    del link.files[EPOCH]
    await resume(link, owner, MULTI)
    assert owner.losses == [Loss(1, had, 4399, (4400 - had) // 440, Why.FREED)]


async def test_a_file_by_uptime_may_get_its_name_in_between(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {77: FILE[:4400]}), Owner()
    link.cut_after = 8
    with pytest.raises(LinkLost):
        await fetch(link, owner, MULTI)
    link.files = {EPOCH: link.files[77]}
    await resume(link, owner, MULTI)
    assert owner.raw == BLOCKS[:10] and not owner.losses


async def test_the_file_being_recorded_may_stay(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {EPOCH: FILE[:4400], EPOCH + 9: FILE[4400:8800]}), Owner()
    link.keeps_last = True
    await fetch(link, owner, MULTI)
    link.files[EPOCH + 9] += FILE[8800:13200]
    await resume(link, owner, MULTI)
    assert owner.raw == BLOCKS[:30]


async def test_a_short_file_is_told_when_it_is_gone_and_read_again_when_not(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {EPOCH: FILE[:4400], EPOCH + 9: FILE[4400:8800]}), Owner()
    link.drop = {5, 21}
    drained = await fetch(link, owner, MULTI)
    assert owner.losses == [Loss(1, 0, 4399, 1, Why.GARBLED)]
    assert drained.retries == 1 and owner.raw[-10:] == BLOCKS[10:20]


async def test_a_status_of_another_generation_is_left_alone(clock: DrivenClock) -> None:
    link, owner = MultiLink(clock, {}), Owner()
    link.status = lambda: bytes.fromhex("00100000 00200000 00000000 00000000")  # type: ignore[method-assign]
    with pytest.raises(BadPeripheral):
        await fetch(link, owner, MULTI)
    assert not link.commands


async def test_no_storage_is_no_command(clock: DrivenClock) -> None:
    link, owner = RingLink(clock, RECORDS), Owner()
    assert await fetch(link, owner, Storage.NONE) == Drained()
    assert not link.touched


@pytest.mark.parametrize("generation", [RING, SINGLE, MULTI])
@pytest.mark.parametrize("seed", range(4))
async def test_mutated_notifications_end_with_a_named_error_or_recover(generation: Storage, seed: int) -> None:
    counts = dict.fromkeys(("parsed", "sent", "sessions", "refused"), 0)
    await one_round(random.Random(seed), generation, counts)
    assert counts["sessions"] == SESSIONS and counts["sent"] > 0


def test_capacity() -> None:
    ring = bytes.fromhex("00100000 02000000 00300000 01000000")
    assert capacity(RING, ring) == Capacity(0x1000, 0x4000)
    assert capacity(RING, bytes(16)) is None
    single = capacity(SINGLE, (384_000_000).to_bytes(4, "little") + bytes(4))
    assert single is not None and single.share == 0.8
    assert capacity(Storage.NONE, ring) is capacity(MULTI, b"1234567") is None
