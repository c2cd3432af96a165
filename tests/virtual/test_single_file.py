"""Generation A as a client sees it: the vector of the dossier §10.1 and the traps of §6.2."""

from __future__ import annotations

import pytest

from omi_edge import gatt
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_15, CV1_3_0_16, DEVKIT2_2_0_10, Profile
from tests.virtual.storing import NOON, Client, come, fates, fill, frames, noon, stored, unpacked


def blocks(answers: list[str]) -> list[bytes]:
    return [bytes.fromhex(answer) for answer in answers if len(answer) > 2]


def words(client_status: str) -> list[int]:
    raw = bytes.fromhex(client_status)
    return [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]


async def settled(client: Client, command: str, seconds: float = 0.6) -> list[str]:
    return await client.ask(command, seconds)


@pytest.mark.parametrize("profile", [CV1_3_0_15, DEVKIT2_2_0_10], ids=lambda profile: profile.name)
async def test_reading_from_an_offset(profile: Profile) -> None:
    client, packets = await stored(10, profile)
    assert words(await client.status()) == [4400, 0]
    answers = await client.ask("00 01 00 00 03 70", 30)
    assert answers[0] == "00"
    assert answers[-1] == "64"
    assert blocks(answers) == [block.raw for block in client.pendant.storage.blocks[2:]]
    assert [unpacked(block)[0] for block in blocks(answers)] == packets[2:10]
    assert words(await client.status()) == [4400, 4400]
    assert fates(client.pendant) == {"stored": 10}, "reading frees nothing"


async def test_the_offset_is_rounded_down_and_may_be_left_out() -> None:
    client, _ = await stored(10, CV1_3_0_15)
    whole = [block.raw for block in client.pendant.storage.blocks]
    assert blocks(await client.ask("00 01 00 00 03 6f", 30)) == whole[1:]
    assert blocks(await client.ask("00 01", 30)) == whole


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("00 02 00000000", "03"),
        ("00 01 00001130", "03"),
        ("03 01", "00"),
        ("32 01", "00"),
        ("10", "06"),
        ("00", "06"),
        ("00 01 00", "06"),
        ("04 01", "06"),
        ("", "06"),
    ],
)
async def test_statuses(command: str, answer: str) -> None:
    client, _ = await stored(10, CV1_3_0_15)
    assert await client.ask(command) == [answer]


async def test_an_empty_file() -> None:
    client, _ = await stored(0, CV1_3_0_15)
    assert await client.ask("00 01 00000000") == ["04"]
    assert words(await client.status()) == [0, 0]


@pytest.mark.parametrize(("speed", "apart"), [(1, 0.1), (4, 0.025)])
async def test_the_pace(speed: float, apart: float) -> None:
    client, _ = await stored(20, DEVKIT2_2_0_10, faults=Faults(storage_speed=speed))
    await client.ask("00 01", 0.99)
    assert len(client.values) == 1, "a second passes before the first data"
    await client.clock.advance(0.02 + 9 * apart)
    assert len(client.values) == 1 + 10
    await client.clock.advance(30)
    assert client.values[-1] == b"\x64"


async def test_each_command_holds_it_up_for_half_a_second() -> None:
    client, _ = await stored(100, CV1_3_0_15)
    await client.ask("00 01", 2.05)
    count = len(client.values)
    assert await client.ask("32 01") == ["00"]
    await client.clock.advance(0.45)
    assert len(client.values) == 1, "no data meanwhile"
    assert await client.ask("03 01") == [], "and the next command waits"
    await client.clock.advance(0.1)
    assert client.values[0] == b"\x00"
    await client.clock.advance(5)
    assert len(client.values) == 1
    assert words(await client.status())[1] == (count - 1) * 440


async def test_what_could_not_be_sent_is_left_out_and_the_end_is_stale() -> None:
    client, _ = await stored(200, DEVKIT2_2_0_10, faults=Faults(storage_speed=0, lose_stored=0.1, seed=2))
    whole = [block.raw for block in client.pendant.storage.blocks]
    answers = await client.ask("00 01", 60)
    got = blocks(answers)
    assert answers[-1] == "64"
    assert len(got) == 200, "as many as there are, but not those"
    kept = list(dict.fromkeys(got))
    assert kept == [block for block in whole if block in set(kept)]
    assert 150 < len(kept) < 200
    assert set(got[len(kept) :]) == {whole[-1]}


async def test_a_small_mtu_brings_nothing() -> None:
    client, _ = await stored(10, CV1_3_0_15, mtu=442)
    assert await client.ask("00 01", 60) == ["00"]
    client, _ = await stored(10, CV1_3_0_15, mtu=443)
    assert len(await client.ask("00 01", 60)) == 12


async def test_delete_is_told_when_it_is_done() -> None:
    client, _ = await stored(10, CV1_3_0_15)
    assert await client.ask("01 01") == ["00"]
    await client.clock.advance(1)
    assert [value.hex() for value in client.values] == ["00", "c8"]
    assert words(await client.status()) == [0, 0]
    assert fates(client.pendant) == {"freed": 10}
    client.link.end()
    fill(client.pendant, 3)
    assert (client.pendant.storage.blocks[-1].store, client.pendant.storage.blocks[-1].seq) == (2, 880)


async def test_nuke_says_nothing_more() -> None:
    client, _ = await stored(10, CV1_3_0_15)
    assert await client.ask("02 01", 5) == ["00"]
    assert fates(client.pendant) == {"wiped": 10}


async def test_a_link_that_ends_leaves_the_offset_saved() -> None:
    client, _ = await stored(100, CV1_3_0_15)
    await client.ask("00 01", 3.05)
    client.link.end()
    client = await come(client.clock, client.pendant)
    assert words(await client.status())[1] == pytest.approx(20 * 440, abs=440)
    assert await client.ask("", 5) == ["06"], "nothing goes on by itself"


async def test_a_full_one_stops_without_a_word() -> None:
    client, _ = await stored(30, CV1_3_0_15, faults=Faults(ring_records=20))
    assert words(await client.status())[0] == 20 * 440
    assert fates(client.pendant) == {"stored": 20, "full": 10}


async def test_it_records_without_a_clock() -> None:
    client, _ = await stored(30, CV1_3_0_15, faults=Faults(unset_clock=True))
    assert fates(client.pendant) == {"stored": 30}


async def test_the_times_of_3_0_16() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_16, faults=Faults(storage_speed=0))
    packets = frames(300)
    await clock.advance(10)
    pendant.store_packets(packets[:150])
    client = await come(clock, pendant)
    assert words(await client.status())[2] == NOON + 7
    client.link.end()
    await clock.advance(600)
    pendant.store_packets(packets[150:])
    client = await come(clock, pendant)
    got = blocks(await client.ask("00 01", 60))
    assert got[0][:5] == b"\xff" + (NOON + 7).to_bytes(4, "little")
    assert sum(block.count(b"\xff" + (NOON + 607).to_bytes(4, "little")) for block in got) >= 1
    found = [frame for block in got for frame in unpacked(block, marks=True)]
    assert found == packets[: len(found)]
    assert len(found) > 290


async def test_a_restart_loses_what_is_in_ram_alone() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_15)
    fill(pendant, 10)
    pendant.reboot()
    await clock.advance(5)
    fill(pendant, 1)
    assert [block.seq for block in pendant.storage.blocks] == [index * 440 for index in range(11)]
    assert [truth.fate for truth in pendant.storage.record if truth.fate is StoredFate.CRASHED] == [StoredFate.CRASHED]
    client = await come(clock, pendant)
    assert await client.link.read(gatt.STORAGE_STATUS) == (11 * 440).to_bytes(4, "little") + bytes(4)
