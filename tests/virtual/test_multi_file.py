"""Generation B as a client sees it: the vector of the dossier §10.1 and the traps of §6.4."""

from __future__ import annotations

import pytest

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_18
from tests.virtual.storing import NOON, Client, come, fates, fill, noon, stored, unpacked

HALF_HOUR = 1800
FAST = Faults(storage_speed=0)


def listed(answers: list[str]) -> list[tuple[int, int]]:
    raw = bytes.fromhex(answers[0])
    assert len(raw) == 1 + 8 * raw[0]
    return [
        (int.from_bytes(raw[at : at + 4], "big"), int.from_bytes(raw[at + 4 : at + 8], "big"))
        for at in range(1, len(raw), 8)
    ]


def content(answers: list[str], name: int) -> bytes:
    values = [bytes.fromhex(answer) for answer in answers if len(answer) > 2]
    assert all(value[:4] == name.to_bytes(4, "big") for value in values)
    return b"".join(value[4:] for value in values)


async def files(*blocks: int, mtu: int = 498, faults: Faults = FAST) -> tuple[DrivenClock, Client, list[list[bytes]]]:
    """A client of a pendant with so many blocks in each of its files, and their frames."""
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_18, mtu=mtu, faults=faults)
    packets = []
    for index, count in enumerate(blocks):
        if index:
            await clock.advance(HALF_HOUR + 10)
        packets.append(fill(pendant, count, seed=index))
    return clock, await come(clock, pendant), packets


async def test_a_list_with_one_file() -> None:
    client, _ = await stored(3, CV1_3_0_18)
    assert await client.ask("10") == ["016b00364000000528"]


async def test_nothing_is_listed_as_nothing() -> None:
    client, _ = await stored(0, CV1_3_0_18)
    assert await client.ask("10") == ["00"]
    assert await client.status() == "00" * 16


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("11 02 00000000", "08"),
        ("12 02", "08"),
        ("11 00 ffffffff", "03"),
        ("03", "00"),
        ("32", "00"),
        ("13", "06"),
        ("11", "06"),
        ("12", "06"),
        ("", "06"),
    ],
)
async def test_statuses(command: str, answer: str) -> None:
    _, client, _ = await files(10, 10)
    assert await client.ask(command) == [answer]


@pytest.mark.parametrize(("mtu", "chunk"), [(498, 440), (447, 440), (446, 439), (185, 178), (23, 16)])
async def test_a_file_is_a_stream_of_bytes(mtu: int, chunk: int) -> None:
    _, client, packets = await files(10, 5, mtu=mtu)
    answers = await client.ask("11 00 00000000", 5)
    values = [bytes.fromhex(answer) for answer in answers if len(answer) > 2]
    assert {len(value) - 4 for value in values[:-1]} == {chunk}
    data = content(answers, int.from_bytes(values[0][:4], "big"))
    assert (answers[0], answers[-1]) == ("00", "64")
    assert [unpacked(data[at : at + 440])[0] for at in range(0, 4400, 440)] == packets[0][:10]


async def test_what_was_sent_is_deleted_before_the_end_is_told() -> None:
    clock, client, _ = await files(10, 5)
    seen: list[dict[str, int]] = []
    await client.link.subscribe(
        gatt.STORAGE_CONTROL, lambda value: seen.append(dict(fates(client.pendant))) if value == b"\x64" else None
    )
    await client.ask("11 00 00000000", 5)
    assert seen == [{"self-freed": 10, "stored": 5}]
    client = Client(clock, client.pendant, client.link)
    await client.link.subscribe(gatt.STORAGE_CONTROL, client.values.append)
    assert [size for _, size in listed(await client.ask("10"))] == [5 * 440], "the others move down"


async def test_the_one_being_recorded_stays() -> None:
    _, client, packets = await files(10, 5)
    name, _ = listed(await client.ask("10"))[1]
    answers = await client.ask("11 01 00000370", 5)
    assert [unpacked(content(answers, name)[at : at + 440])[0] for at in range(0, 3 * 440, 440)] == packets[1][1:4]
    assert fates(client.pendant) == {"stored": 15}
    assert await client.ask("12 01") == ["00"]
    assert fates(client.pendant) == {"stored": 10, "freed": 5}


async def test_indices_shift() -> None:
    _, client, _ = await files(1, 2, 3, 4)
    assert [size // 440 for _, size in listed(await client.ask("10"))] == [1, 2, 3, 4]
    await client.ask("12 01")
    assert [size // 440 for _, size in listed(await client.ask("10"))] == [1, 3, 4]
    await client.ask("11 00", 5)
    assert [size // 440 for _, size in listed(await client.ask("10"))] == [3, 4]
    assert await client.status() == (7 * 440).to_bytes(4, "little").hex() + "02000000" + "00" * 8


async def test_a_new_file_every_half_hour_and_after_each_start() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_18)
    pendant.store_packets([bytes(200)] * 50 * 60 * 95)
    assert len({block.store for block in pendant.storage.blocks}) == 4
    names = [name for name, _ in listed(await (await come(clock, pendant)).ask("10"))]
    assert [name - names[0] for name in names] == [0, 1800, 3600, 5400]
    pendant.disconnect()
    pendant.reboot()
    await clock.advance(5)
    fill(pendant, 1)
    assert len({block.store for block in pendant.storage.blocks}) == 5


async def test_a_transfer_that_is_cut_off_frees_nothing() -> None:
    _, client, _ = await files(300, 5, faults=Faults())
    answers = await client.ask("11 00", 2)
    assert len(content(answers, listed(await client.ask("10"))[0][0])) / 2 == pytest.approx(16 * 1024, rel=0.05)
    await client.ask("03", 5)
    assert len(client.values) == 1
    client.link.end()
    assert fates(client.pendant) == {"stored": 305}


async def test_what_the_host_lost_is_deleted_all_the_same() -> None:
    _, client, _ = await files(300, 5, faults=Faults(storage_speed=0, lose_stored=0.1))
    answers = await client.ask("11 00", 5)
    assert answers[-1] == "64"
    got = sum(len(answer) > 2 for answer in answers)
    assert fates(client.pendant) == {"self-freed": got, "self-freed-unseen": 300 - got, "stored": 5}
    assert 0 < got < 300


async def test_names_are_temporary_until_the_time_is_set() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_18, faults=Faults(unset_clock=True))
    await clock.advance(100)
    fill(pendant, 10)
    await clock.advance(HALF_HOUR + 100)
    fill(pendant, 10)
    client = await come(clock, pendant)
    before = [name for name, _ in listed(await client.ask("10"))]
    assert before == [99, 1999]
    await client.link.write(gatt.TIME_SET, (NOON + 5000).to_bytes(4, "little"))
    after = [name for name, _ in listed(await client.ask("10"))]
    assert after == [NOON + 5000 - 1901, NOON + 5000 - 1], "the time at which each began"
    client.link.end()
    pendant.reboot()
    await clock.advance(5)
    pendant.clock.set(None)
    fill(pendant, 1)
    fill(pendant, 1)
    client = await come(clock, pendant)
    names = [name for name, _ in listed(await client.ask("10"))]
    assert names[0] < 10, "an uptime comes first"
    assert names[1:] == after


async def test_two_files_never_have_one_name() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_18)
    fill(pendant, 1)
    pendant.reboot()
    pendant.clock.set(NOON - 2)
    await clock.advance(2)
    fill(pendant, 1)
    names = [name for name, _ in listed(await (await come(clock, pendant)).ask("10"))]
    assert len(set(names)) == 2


async def test_a_list_has_no_room_for_more_than_61() -> None:
    _, client, _ = await files(*[1] * 70)
    assert len(listed(await client.ask("10"))) == 61


async def test_a_full_one_stops_without_a_word() -> None:
    _, client, _ = await files(30, faults=Faults(ring_records=20))
    assert fates(client.pendant) == {"stored": 20, "full": 10}
