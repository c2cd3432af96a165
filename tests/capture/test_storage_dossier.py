"""The dossier's storage vectors (§10.1) and storage traps (§11), each a row: the real client with the real simulator.

Traps 7 and 8 are of live audio alone, and 11, 12 and 14 of finding and hearing a pendant; 12 and 14 have a row here for
what they mean to its storage.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from collections.abc import Awaitable, Callable
from itertools import pairwise

import msgspec
import pytest

from omi_edge import gatt
from omi_edge.capture import ringwire, single
from omi_edge.capture.blocks import Record, digest, record_of_ring, unpack
from omi_edge.capture.device import Storage, clock_value, storage_of
from omi_edge.capture.link import OnValue
from omi_edge.capture.offline import Capacity, capacity, drain
from omi_edge.capture.placing import place
from omi_edge.capture.ringwire import Ack, Begin, Done, Info, answer_of
from omi_edge.capture.stored import Cursor, Drained, Why
from omi_edge.clock import DrivenClock
from omi_edge.domain import DeviceInfo
from omi_edge.errors import LinkError, LinkLost
from omi_edge.virtual import ring_server
from omi_edge.virtual.faults import Fate, Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.loopback import LoopbackLink, LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import (
    CV1_3_0_15,
    CV1_3_0_16,
    CV1_3_0_18,
    CV1_3_0_21,
    CV1_CUSTODY,
    DEVKIT2_2_0_10,
    GLASS,
    PROFILES,
    Profile,
)
from tests.helpers import drive
from tests.storage_keeper import Crashed, CrashingKeeper, check_all, check_freed, raw_of
from tests.virtual.storing import NOON, fates, fill, frames, noon

FAST = Faults(storage_speed=0)
STORING = (DEVKIT2_2_0_10, CV1_3_0_15, CV1_3_0_16, CV1_3_0_18, CV1_3_0_21, CV1_CUSTODY)
ENOUGH = 700
"""Records: more than one READ."""


class Spy:
    """A link that notes what is asked of the storage and what it answers; ``change`` alters each answer."""

    def __init__(self, link: LoopbackLink) -> None:
        self.link = link
        self.address = link.address
        self.security = link.security
        self.wait_disconnected, self.offers, self.close = link.wait_disconnected, link.offers, link.close
        self.connect, self.pair, self.unpair = link.connect, link.pair, link.unpair
        self.heard: list[str] = []
        """In hex, a command with ``>`` in front, an answer with ``<``."""
        self.touched: set[str] = set()
        self.change: Callable[[bytes], bytes] = lambda value: value

    async def read(self, uuid: str) -> bytes:
        self.touched.add(uuid)
        value = await self.link.read(uuid)
        self.heard.append("= " + value.hex())
        return value

    async def write(self, uuid: str, value: bytes) -> None:
        self.touched.add(uuid)
        if uuid == gatt.STORAGE_CONTROL:
            self.heard.append("> " + value.hex())
        await self.link.write(uuid, value)

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        self.touched.add(uuid)

        def told(value: bytes) -> None:
            self.heard.append("< " + value.hex())
            on_value(self.change(value))

        await self.link.subscribe(uuid, told if uuid == gatt.STORAGE_CONTROL else on_value)

    @property
    def commands(self) -> list[bytes]:
        return [bytes.fromhex(line[2:]) for line in self.heard if line[0] == ">"]


class Home:
    """A pendant, and a client in its reach."""

    def __init__(
        self, profile: Profile = CV1_3_0_21, faults: Faults = FAST, *, mtu: int = 498, blocks: int = 0
    ) -> None:
        self.clock: DrivenClock = noon()
        self.pendant = Pendant(self.clock, profile, faults=faults, mtu=mtu)
        if blocks:
            fill(self.pendant, blocks)
        self.keeper = CrashingKeeper()
        self.keeper.on_crash = self.pendant.cut
        self.spy = Spy(LoopbackRadio(self.clock, [self.pendant]).link(self.pendant.address))
        self.storage = storage_of(profile.device)

    async def _visit(self) -> Drained:
        await self.spy.connect()
        try:
            await self.spy.subscribe(gatt.AUDIO_DATA, lambda _: None)
            if self.spy.offers(gatt.TIME_SET):
                await self.spy.write(gatt.TIME_SET, clock_value(self.clock.utc_us()))
            self.spy.touched.clear()
            return await drain(self.spy, self.storage, self.clock, self.keeper, self.keeper.cursor)
        finally:
            await self.spy.close()

    async def visit(self) -> Drained:
        """Connect, subscribe to audio, set the clock, fetch."""
        self.keeper.restart()
        return await drive(self.clock, self._visit(), step=1.0)

    def begin(self) -> asyncio.Task[Drained]:
        return asyncio.create_task(self._visit())

    @property
    def records(self) -> list[Record]:
        return [self.keeper.records[key] for key in sorted(self.keeper.records)]


async def _ended(task: asyncio.Task[Drained]) -> Drained:
    return await task


# --- vectors -------------------------------------------------------------------------------------------------------


async def _ring_of_the_vectors() -> list[str]:
    home = Home(faults=Faults(storage_speed=0, ring_records=1_045_000, no_auto_advance=True), blocks=5678)
    shelf = home.pendant.storage.shelf
    assert shelf is not None
    shelf.command(bytes.fromhex("12 00000000000004D2"))  # another client was here
    await home.visit()
    return home.spy.heard


async def _not_ready() -> list[str]:
    home = Home(faults=Faults(storage_speed=0, storage_not_ready=6.0), blocks=3)
    await home.visit()
    return home.spy.heard


async def _out_of_range() -> list[str]:
    home = Home(blocks=3)  # what was sent is freed by itself at DONE; one more that is freed meanwhile is out of range
    ring = home.pendant.storage.shelf
    assert isinstance(ring, ring_server.RingServer)

    def steal(value: bytes) -> bytes:
        if value[0] == ring_server.DONE:
            ring.ring.put(msgspec.structs.replace(home.pendant.storage.blocks[0]))
            ring.ring.advance(4, by_itself=True)
        return value

    home.spy.change = steal
    await home.visit()
    return home.spy.heard


async def _single_file_from_880() -> list[str]:
    home = Home(DEVKIT2_2_0_10, blocks=5)
    blocks = [raw_of(home.pendant, block) for block in home.pendant.storage.blocks]
    home.keeper.cursor = Cursor(1, 1320, digest(blocks[2]))
    await home.visit()
    assert [record.raw for record in home.records] == blocks[3:]
    return home.spy.heard


async def _one_file_of_noon() -> list[str]:
    home = Home(CV1_3_0_18, blocks=3)
    await home.visit()
    assert [mark.seconds for mark in home.records[0].marks] == [NOON]
    return home.spy.heard


async def _record_of_noon() -> list[str]:
    home = Home(blocks=1)
    await home.visit()
    (record,) = home.records
    assert record.stamp == NOON
    return ["= " + record.raw[:4].hex()]


async def _time_that_is_written() -> list[str]:
    return ["> " + clock_value(NOON * 1_000_000).hex()]


async def _done_with_crc() -> list[str]:
    told = ring_server.done(0, 0x0102030405060708, zlib.crc32(b"123456789"))
    assert answer_of(told) == Done(0, 0x0102030405060708, zlib.crc32(b"123456789"))
    return ["< " + told.hex()]


INFO = "02 00000000000004D2 000000000000162E 000FF208 0000000000000000 01BC"
VECTORS: list[tuple[str, str, Callable[[], Awaitable[list[str]]], object]] = [
    # item, who says what, a session in which it is said, what the client takes it for
    ("time write of noon", "> 4036006B", _time_that_is_written, None),
    ("record timestamp of noon", "= 6B003640", _record_of_noon, None),
    ("INFO command", "> 10", _ring_of_the_vectors, None),
    ("INFO", f"< {INFO}", _ring_of_the_vectors, Info(1234, 5678, 1_045_000, 0, 444)),
    ("READ 512 from 1234", "> 11 00000000000004D2 00000200", _ring_of_the_vectors, None),
    ("READ_BEGIN", "< 05 00000000000004D2 00000200", _ring_of_the_vectors, Begin(1234, 512)),
    ("DONE", "< 04 00 00000000000006D2", _ring_of_the_vectors, Done(0, 1746)),
    ("DONE with CRC", "< 04 00 0102030405060708 CBF43926", _done_with_crc, None),
    ("ADVANCE 1746", "> 12 00000000000006D2", _ring_of_the_vectors, None),
    ("ACK ok", "< 01 00", _ring_of_the_vectors, Ack(0)),
    ("ACK out of range", "< 01 0A", _out_of_range, Ack(10)),
    ("ACK not ready", "< 01 09", _not_ready, Ack(9)),
    ("gen A read from 880", "> 00 01 00000370", _single_file_from_880, None),
    ("gen B list of one file", "< 01 6B003640 00000528", _one_file_of_noon, None),
]


@pytest.mark.parametrize(("line", "session", "means"), [pytest.param(*row[1:], id=row[0]) for row in VECTORS])
async def test_vector(line: str, session: Callable[[], Awaitable[list[str]]], means: object) -> None:
    said = line[:2] + line[2:].replace(" ", "").lower()
    assert said in await session()
    if means is not None:
        assert answer_of(bytes.fromhex(said[2:])) == means


def test_the_info_of_the_vector_has_31_bytes() -> None:
    assert len(bytes.fromhex(INFO)) == 31


# --- traps ---------------------------------------------------------------------------------------------------------


async def trap_1_unsubscribed_audio_is_thrown_away() -> None:
    """What is heard live while the storage is fetched reaches the client, or is stored: nothing is discarded."""
    home = Home(faults=Faults(), blocks=ENOUGH)
    task = home.begin()
    await home.clock.advance(1.5)  # no audio so early (dossier §10)
    playing = asyncio.create_task(home.pendant.play_packets(frames(250)))
    await home.clock.advance(5.2)
    assert playing.done() and not task.done()
    assert {truth.fate for truth in home.pendant.record} == {Fate.DELIVERED}
    assert StoredFate.DISCARDED not in {truth.fate for truth in home.pendant.storage.record}
    await drive(home.clock, _ended(task), step=1.0)
    assert gatt.AUDIO_DATA not in home.spy.touched  # the subscription is left as it was


async def trap_2_a_read_consumes() -> None:
    """At every moment what the pendant has given up is durable, but for a fifth of a second of it."""
    home = Home(faults=Faults(), blocks=ENOUGH)
    task = home.begin()
    while not task.done():
        await home.clock.advance(0.5)
        freed = [raw_of(home.pendant, block) for block in home.pendant.storage.blocks if block.fate != "stored"]
        missing = set(freed) - set(home.keeper.raws)
        assert len(missing) <= 0.2 * ring_server.BYTES_PER_SECOND / 444 + 3
    assert (await task).records == ENOUGH and fates(home.pendant)["self-freed"] > 0
    check_all(home.pendant, home.keeper)


async def trap_2_what_was_consumed_unseen_is_named() -> None:
    """The client dies before its first commit, and later before another: what that cost is known to the record."""
    home = Home(faults=Faults(), blocks=ENOUGH)
    for transaction in (1, 2, 9):
        home.keeper.restart()
        home.keeper.crash_at(transaction)
        with pytest.raises(Crashed):
            await drive(home.clock, home._visit(), step=1.0)
    await home.visit()
    assert home.keeper.losses[0].first == 0 and {loss.why for loss in home.keeper.losses} == {Why.FREED}
    check_all(home.pendant, home.keeper)


async def trap_2_files_delete_themselves() -> None:
    """Generation B deletes a file once it is sent: the client that dies then still knows what it lost."""
    home = Home(CV1_3_0_18, Faults(storage_speed=0), blocks=5)
    home.pendant.reboot()  # then another file is being recorded
    await home.clock.advance(5)
    home.keeper.crash_at(2)
    with pytest.raises(Crashed):
        await drive(home.clock, home._visit(), step=1.0)
    assert fates(home.pendant)["self-freed"] == 5
    await home.visit()
    assert [(loss.records, loss.why) for loss in home.keeper.losses] == [(5, Why.FREED)]
    check_all(home.pendant, home.keeper)


async def trap_2_a_hole_takes_the_place_of_nothing() -> None:
    """A ring that keeps until told: what came whole stays, although what is read again twice misses a notification."""
    for profile in (CV1_3_0_21, CV1_CUSTODY):
        home = Home(profile, Faults(no_auto_advance=True), blocks=300)
        home.keeper.crash_at(12)
        with pytest.raises(Crashed):
            await drive(home.clock, home._visit(), step=1.0)
        assert home.keeper.cursor is not None and 50 < home.keeper.cursor.position < 200
        holes = {1: 250, 2: 20}  # of which read what data notification is lost

        def lose(value: bytes, reads: list[int] = [0, 0], holes: dict[int, int] = holes) -> bytes:  # noqa: B006
            if value[0] == ring_server.READ_BEGIN:
                reads[0] += 1
                reads[1] = 0
            reads[1] += value[0] == ring_server.DATA
            return b"" if holes.get(reads[0]) == reads[1] and value[0] == ring_server.DATA else value

        home.spy.change = lose
        drained = await home.visit()
        assert drained.retries == 2
        check_all(home.pendant, home.keeper)


async def trap_2_what_was_overwritten_is_counted_once() -> None:
    """The client dies right after it noted a loss: what the ring then gives up by itself is not called overwritten."""
    home = Home(faults=Faults(ring_records=180), blocks=36)
    await home.visit()
    fill(home.pendant, 200, seed=2)
    home.keeper.restart()
    home.keeper.crash_at(3)  # the place, the loss, and then the first records
    with pytest.raises(Crashed):
        await drive(home.clock, home._visit(), step=1.0)
    await home.visit()
    assert [loss.why for loss in home.keeper.losses] == [Why.OVERWRITTEN, Why.FREED]
    check_all(home.pendant, home.keeper)


async def trap_2_deleted_only_after_a_check() -> None:
    """Generation A leaves out a block that it cannot send; wherever the client dies, it is fetched all the same."""
    for transaction in range(1, 9):
        for after in (False, True):
            home = Home(DEVKIT2_2_0_10, Faults(), blocks=10)
            send, sent = home.pendant.send_stored, 0

            def send_stored(value: bytes, send: Callable[[bytes], bool] = send) -> bool:
                nonlocal sent
                sent += len(value) > 1
                return not (sent == 4 and len(value) > 1) and send(value)

            home.pendant.send_stored = send_stored  # type: ignore[method-assign]
            home.keeper.crash_at(transaction, after=after)
            with contextlib.suppress(Crashed):
                await drive(home.clock, home._visit(), step=1.0)
            await home.visit()
            check_freed(home.pendant, home.keeper)
            assert fates(home.pendant) == {"freed": 10} and not home.keeper.losses


async def trap_3_a_clock_that_was_never_set() -> None:
    """Nothing is stored until a client was there; from then on everything is."""
    home = Home(faults=Faults(storage_speed=0, unset_clock=True), blocks=5)
    assert fates(home.pendant) == {"no-clock": 5}
    assert (await home.visit()).records == 0
    fill(home.pendant, 5, seed=2)
    assert (await home.visit()).records == 5


async def trap_4_one_uuid_three_protocols() -> None:
    """The version alone decides; whatever is sent belongs to that generation, and none of it wipes."""
    allowed = {Storage.SINGLE_FILE: {0, 1, 3, 0x32}, Storage.MULTI_FILE: {3, 0x10, 0x11, 0x12, 0x32}}
    for profile in STORING:
        home = Home(profile, blocks=30)
        await home.visit()
        kinds = {command[0] for command in home.spy.commands}
        assert kinds <= allowed.get(home.storage, {0x03, 0x10, 0x11, 0x12, 0x14, 0x15}) and len(kinds) > 2
        assert fates(home.pendant)["wiped"] == 0 and len(home.records) == 30
    versions = {"3.0.10": "none", "3.0.11": "single-file", "3.0.16": "single-file", "3.0.17": "multi-file"}
    versions |= {"3.0.19": "multi-file", "3.0.20": "ring", "3.0.21": "ring", "4.0.0": "ring", "dev": "none", "": "none"}
    for version, storage in versions.items():
        assert storage_of(DeviceInfo("AA", "Omi", "Omi CV 1", version, "5.0", "Based Hardware")) == storage


async def trap_4_freeing_is_not_deleting() -> None:
    """12 frees by number in C, and in B deletes by an index that shifts: nothing goes that is not here."""
    for profile in (CV1_3_0_18, CV1_3_0_21):
        home = Home(profile, Faults(storage_speed=0, no_auto_advance=True))
        for number in range(4):  # of B a file each
            fill(home.pendant, 40, seed=number)
            home.pendant.reboot()
            await home.clock.advance(1900)
        await home.visit()
        check_all(home.pendant, home.keeper)
        assert len(home.records) >= 140 and fates(home.pendant)["wiped"] == 0


async def trap_5_codec_21_is_20_ms() -> None:
    """A minute of stored audio is a minute, whatever the codec."""
    for profile in (DEVKIT2_2_0_10, CV1_3_0_21):
        home = Home(profile)
        codec = profile.codec
        packets = frames(60_000_000 // codec.frame_us)
        await home.clock.advance(60)
        home.pendant.store_packets(packets)
        await home.visit()
        (run,) = place(home.records, 0, codec.frame_us)
        packing = sum(t.end_us - t.start_us for t in home.pendant.storage.record if t.fate is StoredFate.PACKING)
        assert run.duration_us == 60_000_000 - packing and packing < 400_000
        assert list(run.frames) == packets[: len(run.frames)]


async def trap_6_counting_frames_is_no_time() -> None:
    """What was heard an hour apart is placed an hour apart."""
    home = Home()
    began_us = []
    for _ in range(2):
        await home.clock.advance(3600)
        began_us.append(home.clock.utc_us() - 10_000_000)
        home.pendant.store_packets(frames(500))
    await home.visit()
    runs = place(home.records, 0, CV1_3_0_21.codec.frame_us)
    assert len(runs) == 2
    # the block that was being packed is finished in the second absence, which so begins up to a block early (§6.1)
    assert all(run.start_us is not None for run in runs)
    assert [abs((run.start_us or 0) - us) < 250_000 for run, us in zip(runs, began_us, strict=True)] == [True, True]


async def trap_9_mixed_endianness() -> None:
    """The status is little-endian, everything else of the storage big-endian."""
    home = Home(faults=Faults(ring_records=720), blocks=180)
    shelf = home.pendant.storage.shelf
    assert shelf is not None
    status = shelf.status()
    assert status == struct.pack("<4I", 180 * 444, 180, 540 * 444, 1)
    assert capacity(Storage.RING, status) == Capacity(180 * 444, 720 * 444)
    assert ringwire.read(1, 2) == bytes.fromhex("11 0000000000000001 00000002")
    assert record_of_ring(1, 0, bytes.fromhex("6B003640") + bytes(440)).stamp == NOON
    devkit = Home(DEVKIT2_2_0_10, blocks=3).pendant.storage.shelf
    assert devkit is not None and single.status_of(devkit.status()) == single.Status(1320)
    assert single.read(1320) == bytes.fromhex("00 01 00000528")


async def trap_10_the_tail_of_a_block() -> None:
    """A length that announces a frame of the next block, and what an earlier block left behind, are no frames."""
    for profile in STORING:
        home = Home(profile)
        packets = frames(2000, seed=7)
        await home.clock.advance(60)
        home.pendant.store_packets(packets)
        await home.visit()
        came = [frame for record in home.records for frame in record.frames]
        assert came == packets[: len(came)] and len(came) > 1980
    just_too_long = bytes([200]) + b"\xb8" * 200 + bytes([238]) + b"\x55" * 238
    assert unpack(just_too_long)[0] == (b"\xb8" * 200,)


async def trap_12_a_service_that_is_another() -> None:
    """OMI Glass has another service under a CV1's UUID, and no storage: it is asked and told nothing."""
    home = Home(GLASS)
    assert home.storage is Storage.NONE
    assert await home.visit() == Drained() and not home.spy.heard and not home.spy.touched
    assert {profile.name for profile in PROFILES.values() if storage_of(profile.device) is not Storage.NONE} == {
        profile.name for profile in STORING
    }


async def trap_13_a_tap_switches_it_off() -> None:
    """In the middle of a transfer: it goes on where it was."""
    for profile in STORING:
        home = Home(profile, Faults(tap_power_off=True), blocks=300)
        task = home.begin()
        await home.clock.advance(4.0)
        home.pendant.press()
        with pytest.raises(LinkLost):
            await drive(home.clock, _ended(task), step=1.0)
        before = len(home.records)
        assert 0 < before < 300
        home.pendant.power_on()
        await home.visit()
        assert len(home.records) == 300
        check_all(home.pendant, home.keeper)


async def trap_14_a_small_mtu() -> None:
    """Generation A sends blocks whole or not at all; the others are cut to what the link allows."""
    for profile in (CV1_3_0_18, CV1_3_0_21):
        home = Home(profile, blocks=80, mtu=100)
        await home.visit()
        check_all(home.pendant, home.keeper)
    home = Home(DEVKIT2_2_0_10, blocks=3, mtu=185)
    with pytest.raises(LinkError, match="failed 4 times"):
        await home.visit()
    assert fates(home.pendant) == {"stored": 3} and not home.records


async def trap_15_answers_do_not_name_their_question() -> None:
    """One command at a time: before the next the last was answered, or what follows it is waited for in vain."""
    for profile in STORING:
        home = Home(profile, Faults(done_crc=True), blocks=ENOUGH)
        await home.visit()
        talk = [line for line in home.spy.heard if line[0] in "<>"]
        assert [one for one, other in pairwise(talk) if one[0] == other[0] == ">"] == []
        reading = False
        for line in talk:
            if line[0] == ">":
                assert not reading or line[2:4] in ("03", "32"), "a command in the middle of a transfer"
                reading = reading or line[2:4] in (("00",) if home.storage is Storage.SINGLE_FILE else ("11",))
            ended = line[2:4] == "04" if home.storage is Storage.RING else line == "< 64"
            reading = reading and not (line[0] == "<" and ended) and line[:4] != "> 03"


async def trap_16_lengths_are_minimums() -> None:
    """INFO of 31 and 41 bytes, DONE of 10 and 14, ACK of 2 and 3, status of 8, 12 and 16; and of more."""
    seen: set[tuple[str, int]] = set()
    for profile in STORING:
        for crc in (False, True):
            home = Home(profile, Faults(storage_speed=0, done_crc=crc), blocks=80)
            if home.storage is Storage.RING:
                home.spy.change = lambda value: value + (b"more" if value[0] in (2, 5) else b"")
            await home.visit()
            check_all(home.pendant, home.keeper)
            seen |= {(line[:4], len(line) // 2 - 1) for line in home.spy.heard if home.storage is Storage.RING}
            seen |= {("=", len(line) // 2 - 1) for line in home.spy.heard if line[0] == "="}
    assert {("< 02", 31), ("< 02", 41), ("< 04", 10), ("< 04", 14), ("< 01", 2), ("< 01", 3)} <= seen
    assert {("=", 8), ("=", 12), ("=", 16)} <= seen


TRAPS = [found for name, found in sorted(globals().items()) if name.startswith("trap_")]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
async def test_trap(trap: Callable[[], Awaitable[None]]) -> None:
    await trap()
