"""The ring as a client sees it: every vector of the dossier §10.1 and every trap of §6.5 to §6.7, byte for byte."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from omi_edge import gatt
from omi_edge.domain import Ending
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, CV1_CUSTODY
from omi_edge.virtual.ring_server import RingServer, done
from tests.virtual.storing import NOON, Client, come, fates, fill, noon, stored, unpacked

FAST = Faults(storage_speed=0)
LONG = 40.0
"""Seconds: more than any transfer here takes."""


def server(client: Client) -> RingServer:
    shelf = client.pendant.storage.shelf
    assert isinstance(shelf, RingServer)
    return shelf


def data(answers: list[str]) -> bytes:
    return b"".join(bytes.fromhex(answer)[1:] for answer in answers if answer.startswith("03"))


def records(answers: list[str]) -> list[bytes]:
    stream = data(answers)
    assert len(stream) % 444 == 0
    return [stream[at : at + 444] for at in range(0, len(stream), 444)]


def u64(number: int) -> str:
    return number.to_bytes(8, "big").hex()


class TestVectors:
    async def test_info_read_and_advance(self) -> None:
        client, packets = await stored(5678, faults=Faults(storage_speed=0, ring_records=1_045_000))
        assert await client.ask("12 00000000000004d2") == ["0100"]
        assert await client.ask("10") == ["0200000000000004d2000000000000162e000ff208000000000000000001bc"]
        answers = await client.ask("11 00000000000004d2 00000200", 1)
        assert answers[0] == "0500000000000004d200000200"
        assert answers[-1] == "040000000000000006d2"
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[1234:1746]
        assert await client.ask("12 00000000000006d2") == ["0100"]

    async def test_a_record_that_was_full_at_noon(self) -> None:
        client, _ = await stored(3)
        answers = await client.ask(f"11{u64(0)}", LONG)
        assert records(answers)[-1][:4].hex() == "6b003640"

    def test_done_with_its_check(self) -> None:
        check = zlib.crc32(b"123456789")
        assert done(0, 0x0102030405060708, check).hex() == "04000102030405060708cbf43926"
        assert done(0, 1746).hex() == "040000000000000006d2"

    @pytest.mark.parametrize(
        ("command", "answer"),
        [
            ("03", "0100"),
            ("12 0000000000000000", "0100"),
            ("12 000000000000000b", "010a"),
            ("11 000000000000000b", "010a"),
            ("13 00", "0106"),
            ("10 00", "0106"),
            ("11 00", "0106"),
            ("11 0000000000000000 0000", "0106"),
            ("12", "0106"),
            ("14 01 0f", "0106"),
            ("15 0000000000000000 0000000000000000", "0106"),
            ("", "0106"),
            ("ff", "0106"),
        ],
    )
    async def test_statuses(self, command: str, answer: str) -> None:
        client, _ = await stored(10)
        assert await client.ask(command, 0.1) == [answer]

    async def test_an_empty_range_begins_and_is_over(self) -> None:
        client, _ = await stored(10)
        assert await client.ask(f"11{u64(10)}", 1) == [f"05{u64(10)}00000000", f"0400{u64(10)}"]


class TestTransfers:
    @pytest.mark.parametrize(("mtu", "room"), [(498, 494), (185, 181), (100, 96), (23, 19)])
    async def test_data_are_cut_anywhere_but_never_span_a_batch(self, mtu: int, room: int) -> None:
        client, packets = await stored(100, mtu=mtu, faults=FAST)
        await client.ask(f"12{u64(30)}")
        answers = await client.ask(f"11{u64(30)}{60:08x}", 5)
        sizes = [len(answer) // 2 - 1 for answer in answers if answer.startswith("03")]
        assert max(sizes) == room
        expected: list[int] = []
        for batch in (6, 36, 18):  # records 30 to 35, 36 to 71, 72 to 89
            whole, rest = divmod(batch * 444, room)
            expected += [room] * whole + ([rest] if rest else [])
        assert sizes == expected
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[30:90]
        assert answers[-1] == f"0400{u64(90)}"

    @pytest.mark.parametrize("count", ["", "00000000", "00000400"])
    async def test_without_a_count_all_comes(self, count: str) -> None:
        client, packets = await stored(50, faults=FAST)
        answers = await client.ask(f"11{u64(0)}{count}", 1)
        assert answers[0] == f"05{u64(0)}{50:08x}"
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[:50]

    async def test_the_pace_is_that_of_real_ones(self) -> None:
        client, _ = await stored(400)
        answers = await client.ask(f"11{u64(0)}", 10)
        assert len(data(answers)) / 10 == pytest.approx(16 * 1024, rel=0.01)
        faster, _ = await stored(400, faults=Faults(storage_speed=2))
        assert len(data(await faster.ask(f"11{u64(0)}", 4))) / 4 == pytest.approx(32 * 1024, rel=0.02)

    async def test_the_check_is_over_all_data(self) -> None:
        client, _ = await stored(50, faults=Faults(storage_speed=0, done_crc=True))
        answers = await client.ask(f"11{u64(0)}", 1)
        assert len(answers[-1]) == 28
        assert int(answers[-1][-8:], 16) == zlib.crc32(data(answers))

    async def test_stop_ends_without_done_and_what_was_queued_still_comes(self) -> None:
        client, _ = await stored(100)
        begun = await client.ask(f"11{u64(0)}", 1)
        answers = await client.ask("03", LONG)
        assert [answer[:2] for answer in answers] == ["01", "03"]
        assert data(begun + answers) == b"".join(
            block.record for block in client.pendant.storage.blocks
        )[: len(data(begun + answers))]  # fmt: skip
        assert await client.ask("03", 1) == ["0100"]

    async def test_stop_right_before_the_end_brings_no_done_either(self) -> None:
        client, _ = await stored(1)
        await client.ask(f"11{u64(0)}", 0.02)
        assert await client.ask("03", 1) == ["0100"]

    async def test_nothing_is_answered_to_who_did_not_subscribe(self) -> None:
        client, _ = await stored(10)
        client.link.unsubscribe(gatt.STORAGE_CONTROL)
        assert await client.ask("10") == []
        assert await client.ask(f"11{u64(0)}", LONG) == []
        assert fates(client.pendant) == {"stored": 10}

    async def test_a_transfer_waits_for_a_stalled_link(self) -> None:
        client, packets = await stored(100)
        before = await client.ask(f"11{u64(0)}", 0.5)
        client.pendant.stall(2)
        client.values.clear()
        await client.clock.advance(1.9)
        assert client.values == []
        await client.clock.advance(LONG)
        answers = before + [value.hex() for value in client.values]
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[:100]

    async def test_the_second_read_takes_the_place_of_the_first(self) -> None:
        client, _ = await stored(100)
        await client.ask(f"11{u64(0)}{10:08x}")
        answers = await client.ask(f"11{u64(20)}{5:08x}", LONG)
        assert [answer[:2] for answer in answers if not answer.startswith("03")] == ["05", "04"]
        assert answers[0] == f"05{u64(20)}{5:08x}"

    async def test_a_read_during_a_read_ends_the_first_silently(self) -> None:
        client, _ = await stored(100)
        await client.ask(f"11{u64(0)}", 0.3)
        answers = await client.ask(f"11{u64(20)}{5:08x}", LONG)
        others = [answer for answer in answers if not answer.startswith("03")]
        assert others == [f"05{u64(20)}{5:08x}", f"0400{u64(25)}"]


class TestFreedWhileSending:
    async def test_every_two_seconds(self) -> None:
        client, _ = await stored(400)
        await client.ask(f"11{u64(0)}", 1.9)
        ring = server(client).ring
        assert ring.read_seq == 0
        await client.clock.advance(0.2)
        first = ring.read_seq
        assert first == pytest.approx(2 * 16 * 1024 / 444, abs=2)
        await client.clock.advance(1.5)
        assert ring.read_seq == first
        await client.clock.advance(0.5)
        assert ring.read_seq == pytest.approx(2 * first, abs=2)

    async def test_at_the_end_and_then_advance_is_late(self) -> None:
        client, _ = await stored(20)
        answers = await client.ask(f"11{u64(0)}{10:08x}", 1)
        assert answers[-1] == f"0400{u64(10)}"
        assert fates(client.pendant) == {"self-freed": 10, "stored": 10}
        assert await client.ask(f"12{u64(10)}") == ["0100"]
        assert await client.ask(f"12{u64(9)}") == ["010a"]
        assert await client.ask(f"11{u64(9)}", 1) == ["010a"]

    @pytest.mark.parametrize("ending", [Ending.LOCAL, Ending.TIMEOUT])
    async def test_when_the_link_ends(self, ending: Ending) -> None:
        client, _ = await stored(400)
        answers = await client.ask(f"11{u64(0)}", 1.0)
        client.link.end(ending)
        got, freed = len(data(answers)) // 444, server(client).ring.read_seq
        assert got - 2 <= freed <= got, "what the link layer has not acknowledged is kept"
        assert freed > 0
        again = await come(client.clock, client.pendant)
        assert (await again.ask(f"11{u64(freed)}{1:08x}", 1))[0] == f"05{u64(freed)}{1:08x}"

    async def test_not_what_a_link_that_hears_nothing_has_not_taken(self) -> None:
        client, _ = await stored(400)
        answers = await client.ask(f"11{u64(0)}", 1.0)
        client.pendant.go_away()
        await client.clock.advance(10)
        assert not client.link.alive
        assert 0 < server(client).ring.read_seq <= len(data(answers)) // 444

    async def test_not_by_stop_nor_by_a_crash(self) -> None:
        client, _ = await stored(400)
        await client.ask(f"11{u64(0)}", 1.0)
        await client.ask("03")
        assert fates(client.pendant) == {"stored": 400}
        await client.ask(f"11{u64(0)}", 1.0)
        client.pendant.reboot()
        await client.clock.advance(10)
        assert fates(client.pendant) == {"stored": 400}

    async def test_what_the_host_lost_is_freed_all_the_same(self) -> None:
        client, _ = await stored(400, faults=Faults(storage_speed=0, lose_stored=0.05, seed=3))
        answers = await client.ask(f"11{u64(0)}", 1)
        assert answers[-1] == f"0400{u64(400)}"
        found = fates(client.pendant)
        assert found["self-freed"] + found["self-freed-unseen"] == 400
        missing = 400 * 444 - len(data(answers))
        assert found["self-freed-unseen"] >= missing / 494 > 0

    @pytest.mark.parametrize(
        ("profile", "faults"), [(CV1_3_0_21, Faults(no_auto_advance=True)), (CV1_CUSTODY, Faults())]
    )
    async def test_not_everywhere(self, profile: object, faults: Faults) -> None:
        client, _ = await stored(200, profile, faults=faults)  # type: ignore[arg-type]
        await client.ask(f"11{u64(0)}", LONG)
        await client.ask(f"11{u64(0)}", 1)
        client.link.end()
        assert fates(client.pendant) == {"stored": 200}
        client = await come(client.clock, client.pendant)
        assert await client.ask(f"12{u64(150)}") == ["0100"]
        assert fates(client.pendant) == {"freed": 150, "stored": 50}


class TestNotReady:
    async def test_it_is_asked_too_early(self) -> None:
        client, _ = await stored(10, faults=Faults(storage_not_ready=5))
        for command in (f"11{u64(0)}", f"12{u64(1)}", "13"):
            assert await client.ask(command, 0.1) == ["0109"]
        assert await client.ask("03") == ["0100"]
        assert await client.ask("10", 4.5) == [], "INFO waits"
        client.values.clear()
        await client.clock.advance(0.5)
        assert [value.hex()[:2] for value in client.values] == ["02"]
        assert await client.ask(f"12{u64(1)}") == ["0100"]
        client.link.end()
        client = await come(client.clock, client.pendant)
        assert await client.ask(f"12{u64(2)}") == ["0109"], "after each connect"

    async def test_info_gives_up_after_five_seconds(self) -> None:
        client, _ = await stored(10, faults=Faults(storage_not_ready=12))
        assert await client.ask("10", 4.9) == []
        await client.clock.advance(0.2)
        assert [value.hex() for value in client.values] == ["0109"]

    @pytest.mark.parametrize(
        ("profile", "mtu", "answer"),
        [(CV1_3_0_21, 34, "02"), (CV1_3_0_21, 33, ""), (CV1_CUSTODY, 44, "02"), (CV1_CUSTODY, 43, "0109")],
    )
    async def test_info_needs_room(self, profile: object, mtu: int, answer: str) -> None:
        client, _ = await stored(10, profile, mtu=mtu)  # type: ignore[arg-type]
        answers = await client.ask("10", 6)
        assert "".join(answers)[: len(answer)] == answer
        assert bool(answers) == bool(answer)


class TestStatus:
    async def test_what_it_says(self) -> None:
        client, _ = await stored(100, faults=Faults(ring_records=1000))
        words = [100 * 444, 100, 900 * 444, 1]
        assert await client.status() == b"".join(word.to_bytes(4, "little") for word in words).hex()

    async def test_it_is_a_quarter_of_a_second_old(self) -> None:
        client, _ = await stored(100)
        before = await client.status()
        await client.ask(f"12{u64(100)}")
        assert await client.status() == before
        await client.clock.advance(0.25)
        assert (await client.status())[:16] == "00" * 8

    async def test_the_clock_is_not_set(self) -> None:
        client, _ = await stored(0, faults=Faults(unset_clock=True))
        assert (await client.status())[-8:] == "00000000"
        await client.link.write(gatt.TIME_SET, NOON.to_bytes(4, "little"))
        await client.clock.advance(0.3)
        assert (await client.status())[-8:] == "01000000"


class TestOverwriting:
    async def test_the_oldest_batch_goes_and_is_counted(self) -> None:
        client, packets = await stored(200, faults=Faults(ring_records=108, storage_speed=0))
        info = bytes.fromhex((await client.ask("10"))[0])
        assert [int.from_bytes(info[at : at + 8], "big") for at in (1, 9, 21)] == [108, 200, 108]
        answers = await client.ask(f"11{u64(108)}", 1)
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[108:200]
        assert fates(client.pendant) == {"overwritten": 108, "self-freed": 92}

    async def test_clear_is_the_end_of_everything(self) -> None:
        client, _ = await stored(200)
        assert await client.ask("13") == ["0100"]
        assert fates(client.pendant) == {"wiped": 200}
        assert (await client.ask("10"))[0][2:34] == "00" * 16


class TestStamps:
    async def test_a_clock_that_was_never_set_stores_nothing(self) -> None:
        client, _ = await stored(30, faults=Faults(unset_clock=True))
        assert fates(client.pendant) == {"no-clock": 30}
        assert (await client.ask("10"))[0][2:34] == "00" * 16

    async def test_a_clock_that_cannot_be_right_is_like_none(self) -> None:
        clock = noon()
        pendant = Pendant(clock)
        pendant.clock.set(1_699_999_000)
        fill(pendant, 5)
        assert fates(pendant) == {"no-clock": 5}

    @pytest.mark.parametrize(("zero", "stamp"), [(False, 0x80000000 | 100), (True, 0)])
    async def test_custody_stores_without_the_time(self, zero: bool, stamp: int) -> None:
        clock = noon()
        pendant = Pendant(clock, CV1_CUSTODY, faults=Faults(unset_clock=True, zero_stamps=zero, storage_speed=0))
        await clock.advance(100)
        fill(pendant, 2)
        client = await come(clock, pendant)
        answers = await client.ask(f"11{u64(0)}", 1)
        assert int.from_bytes(records(answers)[-1][:4], "big") == stamp

    async def test_whole_seconds_of_the_pendants_own_clock(self) -> None:
        clock = noon()
        pendant = Pendant(clock, faults=Faults(drift_ppm=1000, storage_speed=0))
        await clock.advance(10_000)
        fill(pendant, 100)
        client = await come(clock, pendant)
        stamps = [int.from_bytes(record[:4], "big") for record in records(await client.ask(f"11{u64(0)}", 1))]
        assert stamps[-1] == NOON + 10_010, "ten seconds ahead"
        assert stamps == sorted(stamps)
        assert stamps.count(NOON + 10_009) == pytest.approx(50, abs=5), "one frame of 20 ms in each"

    async def test_they_go_back_with_the_clock(self) -> None:
        clock = noon()
        pendant = Pendant(clock, faults=FAST)
        await clock.advance(3600)
        fill(pendant, 36)
        pendant.reboot()
        await clock.advance(5)
        fill(pendant, 36)
        pendant.clock.set(NOON - 86_400)
        fill(pendant, 36)
        client = await come(clock, pendant)
        stamps = [int.from_bytes(record[:4], "big") for record in records(await client.ask(f"11{u64(0)}", 1))]
        assert (stamps[35], stamps[36 + 35], stamps[-1]) == (NOON + 3600, NOON + 5, NOON - 86_400)

    async def test_after_a_crash_custody_waits_for_the_time(self) -> None:
        clock = noon()
        pendant = Pendant(clock, CV1_CUSTODY, faults=FAST)
        pendant.reboot()
        await clock.advance(102)
        fill(pendant, 1)
        assert pendant.storage.blocks[-1].stamp == 0x80000000 | 100
        client = await come(clock, pendant)
        await client.link.write(gatt.TIME_SET, NOON.to_bytes(4, "little"))
        client.link.end()
        fill(pendant, 1)
        assert pendant.storage.blocks[-1].stamp == NOON


class TestCustody:
    async def test_info_tells_more(self) -> None:
        client, _ = await stored(10, CV1_CUSTODY)
        info = bytes.fromhex((await client.ask("10"))[0])
        assert len(info) == 41
        assert info[31:33] == b"\x0f\x01"
        assert int.from_bytes(info[33:], "big") == server(client).ring.ring_id != 0

    @pytest.mark.parametrize(
        ("command", "answer"), [("14 01 0f", "01000f"), ("14 01 f1", "010001"), ("14 02 01", "0106"), ("14 01", "0106")]
    )
    async def test_what_is_enabled(self, command: str, answer: str) -> None:
        client, _ = await stored(10, CV1_CUSTODY)
        assert await client.ask(command) == [answer]

    async def test_a_read_during_a_read_is_refused(self) -> None:
        client, packets = await stored(100, CV1_CUSTODY)
        answers = await client.ask(f"11{u64(0)}")
        assert await client.ask(f"11{u64(5)}") == ["0109"]
        answers = await client.ask("10", 1)
        answers += (refused := await client.ask(f"11{u64(5)}"))
        assert refused == ["0109"]
        answers += await client.ask(f"12{u64(5)}", LONG)
        assert "0100" in answers, "it may be advanced during a read"
        assert [unpacked(record[4:])[0] for record in records(answers)] == packets[:100]
        assert answers[-1] == f"0400{u64(100)}"
        assert fates(client.pendant) == {"freed": 5, "stored": 95}

    async def test_advancing_again_is_no_error(self) -> None:
        client, _ = await stored(100, CV1_CUSTODY)
        assert await client.ask(f"12{u64(50)}") == ["0100"]
        assert await client.ask(f"12{u64(20)}") == ["0100"]
        assert await client.ask(f"12{u64(101)}") == ["010a"]
        assert fates(client.pendant) == {"freed": 50, "stored": 50}

    async def test_advance_belongs_to_one_ring(self) -> None:
        client, _ = await stored(100, CV1_CUSTODY)
        before = server(client).ring.ring_id
        assert await client.ask(f"15{u64(before)}{u64(10)}") == ["0100"]
        client.pendant.storage.wipe()
        fill_later = server(client).ring.ring_id
        assert await client.ask(f"15{u64(before)}{u64(0)}") == ["010b"]
        assert await client.ask(f"15{u64(fill_later)}{u64(0)}") == ["0100"]
        assert fates(client.pendant) == {"freed": 10, "wiped": 90}

    async def test_live_audio_is_stored_too_after_the_opt_in(self) -> None:
        client, _ = await stored(0, CV1_CUSTODY, faults=FAST)
        heard: list[bytes] = []
        await client.link.subscribe(gatt.AUDIO_DATA, heard.append)
        await client.clock.advance(2)
        packets = [bytes([index]) * 200 for index in range(1, 101)]
        await self.spoken(client, packets[:10])
        assert client.pendant.storage.record == []
        await client.ask("14 01 02")
        client.values.clear()
        await self.spoken(client, packets[10:])
        assert [value[3:] for value in heard] == packets
        marks = [value for value in client.values if value[0] == 6]
        assert len(marks) == 1
        assert len(marks[0]) == 19
        ring_id, seq, live = (int.from_bytes(marks[0][at:end], "big") for at, end in ((1, 9), (9, 17), (17, 19)))
        assert (ring_id, seq) == (server(client).ring.ring_id, 36)
        answers = await client.ask(f"11{u64(0)}{36:08x}", 1)
        kept = [frame for record in records(answers) for frame in unpacked(record[4:])]
        assert kept == packets[10 : 10 + len(kept)]
        first_left_out = next(value for value in heard if value[3:] == packets[10 + len(kept)])
        assert live == int.from_bytes(first_left_out[:2], "little")
        client.link.end()
        client = await come(client.clock, client.pendant)
        await client.clock.advance(2)
        size = len(client.pendant.storage.blocks)
        await self.spoken(client, packets)
        assert len(client.pendant.storage.blocks) == size, "the opt-in ends with the connection"

    async def spoken(self, client: Client, packets: list[bytes]) -> None:
        await asyncio.gather(client.pendant.play_packets(packets), client.clock.advance(len(packets) / 50 + 0.1))


async def test_a_crash_takes_at_most_a_batch() -> None:
    clock = noon()
    pendant = Pendant(clock)
    fill(pendant, 50)
    pendant.reboot()
    await clock.advance(5)
    assert fates(pendant) == {"stored": 36, "crashed": 14}
    fill(pendant, 50)
    pendant.power_off(1)
    await clock.advance(5)
    assert fates(pendant) == {"stored": 86, "crashed": 14}, "switched off in order, it writes the batch first"
    assert [block.seq for block in pendant.storage.blocks if block.fate is StoredFate.STORED] == list(range(86))
