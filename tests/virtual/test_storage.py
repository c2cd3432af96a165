"""When a pendant stores, and what it remembers of it (dossier §6.0)."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.opus import Decoder
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate, StoredTruth, joined
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import (
    CV1_3_0_15,
    CV1_3_0_18,
    CV1_3_0_21,
    CV1_CUSTODY,
    DEVKIT2_2_0_10,
    FRIEND,
    GLASS,
    Profile,
)
from tests.virtual.storing import come, fates, fill, frames, noon, unpacked

STORING = [CV1_3_0_15, CV1_3_0_18, CV1_3_0_21, CV1_CUSTODY, DEVKIT2_2_0_10]
ids = pytest.mark.parametrize("profile", STORING, ids=lambda profile: profile.name)


async def played(clock: DrivenClock, pendant: Pendant, packets: list[bytes]) -> None:
    """Let it hear packets; of 20 or of 10 ms."""
    seconds = len(packets) * pendant.profile.codec.frame_us / 1e6
    task = asyncio.create_task(pendant.play_packets(packets))
    await clock.advance(seconds + 0.2)
    assert task.done()


def kept(pendant: Pendant) -> list[bytes]:
    return [frame for block in pendant.storage.blocks for frame in unpacked(block.raw)]


def seconds(pendant: Pendant) -> dict[str, float]:
    found: Counter[str] = Counter()
    for truth in pendant.storage.record:
        found[str(truth.fate)] += (truth.end_us - truth.start_us) / 1e6  # type: ignore[assignment]
    return {fate: round(value, 6) for fate, value in found.items()}


@ids
async def test_stored_while_nobody_is_connected(profile: Profile) -> None:
    clock = noon()
    pendant = Pendant(clock, profile)
    packets = frames(500)
    began_us = clock.boot_us()
    await played(clock, pendant, packets)
    whole = profile.codec.frame_us * 500
    found = kept(pendant)
    assert found == packets[: len(found)]
    assert len(found) > 490
    record = pendant.storage.record
    assert [truth.fate for truth in record] == [StoredFate.STORED, StoredFate.PACKING]
    assert (record[0].start_us, record[-1].end_us) == (began_us, began_us + whole)
    assert record[0].end_us == record[1].start_us == began_us + len(found) * profile.codec.frame_us


@ids
async def test_nothing_is_stored_while_somebody_is_connected(profile: Profile) -> None:
    clock = noon()
    pendant = Pendant(clock, profile)
    client = await come(clock, pendant, audio=False)
    await played(clock, pendant, frames(100))
    lost = profile.codec.frame_us * 100 / 1e6
    assert seconds(pendant) == {"discarded": lost}, "connected and not subscribed: thrown away"
    await client.link.subscribe(gatt.AUDIO_DATA, lambda _: None)
    await played(clock, pendant, frames(100))
    assert seconds(pendant) == {"discarded": lost}, "subscribed: sent alone"
    assert pendant.storage.blocks == ()


async def test_a_small_mtu_is_like_no_subscription() -> None:
    clock = noon()
    pendant = Pendant(clock, mtu=99)
    await come(clock, pendant)
    await clock.advance(2)
    await played(clock, pendant, frames(100))
    assert seconds(pendant) == {"discarded": 2.0}


async def test_another_central_keeps_it_from_storing() -> None:
    clock = noon()
    pendant = Pendant(clock)
    pendant.hold()
    await played(clock, pendant, frames(100))
    pendant.let_go()
    await played(clock, pendant, frames(100))
    found = seconds(pendant)
    assert found.pop("discarded") == 2.0
    assert sum(found.values()) == 2.0


async def test_out_of_range_it_stores_once_the_link_has_ended() -> None:
    clock = noon()
    pendant = Pendant(clock)
    await come(clock, pendant)
    await clock.advance(2)
    pendant.go_away()
    await played(clock, pendant, frames(500))
    found = pendant.storage.record
    assert (found[-1].end_us - found[0].start_us) / 1e6 == pytest.approx(10 - 4, abs=0.2)
    assert found[0].fate is StoredFate.STORED


@pytest.mark.parametrize(("profile", "codec"), [(FRIEND, None), (GLASS, None), (CV1_3_0_21, Codec.PCM16)])
async def test_not_everything_can_be_stored(profile: Profile, codec: Codec | None) -> None:
    clock = noon()
    pendant = Pendant(clock, profile, codec=codec)
    await played(clock, pendant, [bytes(320)] * 100)
    assert pendant.storage.blocks == ()
    assert seconds(pendant) == ({} if codec is None else {"discarded": 1.0})


async def test_nothing_is_stored_while_it_is_off() -> None:
    clock = noon()
    pendant = Pendant(clock)
    pendant.power_off()
    await played(clock, pendant, frames(100))
    assert pendant.storage.record == []


async def test_a_block_is_finished_in_the_next_absence() -> None:
    clock = noon()
    pendant = Pendant(clock)
    packets = frames(20)
    pendant.store_packets(packets)
    waiting = len(packets) - len(kept(pendant))
    assert waiting > 0
    client = await come(clock, pendant)
    await clock.advance(60)
    client.link.end()
    pendant.store_packets(more := frames(20, seed=2))
    block = next(block for block in pendant.storage.blocks if packets[-1] in unpacked(block.raw))
    assert unpacked(block.raw)[:waiting] == packets[-waiting:]
    gap = [later[0] - earlier[1] for earlier, later in itertools.pairwise(block.spans)]
    assert max(gap) == 60_000_000 - 20 * 20_000, "its first frames are a minute older than its time"
    assert block.stamp == int(clock.utc_us() / 1e6) - 1 or block.stamp == int(clock.utc_us() / 1e6)
    assert kept(pendant) == (packets + more)[: len(kept(pendant))]


async def test_what_is_played_is_what_is_stored() -> None:
    clock = noon()
    pendant = Pendant(clock)
    times = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    assert pendant.store([tone], seconds=3) == 3
    assert sum(seconds(pendant).values()) == 3.0
    decoder = Decoder(Codec.OPUS_20MS)
    pcm = np.concatenate([decoder.decode(packet) for packet in kept(pendant)]).astype(float)
    peak = np.argmax(np.abs(np.fft.rfft(pcm[SAMPLE_RATE : 2 * SAMPLE_RATE])))
    assert peak == 440


async def test_the_microphone_does_not_sleep_during_a_transfer() -> None:
    clock = noon()
    pendant = Pendant(clock)
    fill(pendant, 2000)
    client = await come(clock, pendant)
    await clock.advance(2)
    heard: list[bytes] = []
    await client.link.subscribe(gatt.AUDIO_DATA, heard.append)
    await client.ask(f"11{bytes(8).hex()}")
    task = asyncio.create_task(pendant.play([np.zeros(30 * SAMPLE_RATE, np.int16)]))
    await clock.advance(31)
    assert task.done()
    assert len(heard) == 30 * 50


async def test_a_restart_loses_what_is_in_ram() -> None:
    clock = noon()
    pendant = Pendant(clock, CV1_3_0_15)
    pendant.store_packets(frames(20))
    packing = seconds(pendant)["packing"]
    pendant.reboot()
    assert seconds(pendant)["crashed"] == packing
    assert pendant.storage.blocks[-1].fate is StoredFate.STORED


@ids
async def test_a_client_reaches_it_over_a_link(profile: Profile) -> None:
    clock = noon()
    pendant = Pendant(clock, profile, faults=Faults(storage_speed=0))
    fill(pendant, 40)
    radio = LoopbackRadio(clock, [pendant])
    radio.trust([pendant.address])
    link = radio.link(pendant.address)
    connecting = asyncio.create_task(link.connect())
    await clock.advance(1)
    await connecting
    values: list[bytes] = []
    await link.subscribe(gatt.STORAGE_CONTROL, values.append)
    assert any(await link.read(gatt.STORAGE_STATUS))
    command = {CV1_3_0_15: "0001", DEVKIT2_2_0_10: "0001", CV1_3_0_18: "1100"}.get(profile, "11" + "00" * 8)
    await link.write(gatt.STORAGE_CONTROL, bytes.fromhex(command))
    await clock.advance(5)
    assert sum(map(len, values)) > 40 * 440
    assert {len(value) for value in values} & {1, 10}, "and it ends"
    pendant.close()
    await clock.advance(5)
    assert not pendant.storage.sending


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(STORING),
    st.lists(
        st.tuples(st.sampled_from(["speak", "visit", "deaf", "reboot", "off", "drain"]), st.integers(1, 200)),
        max_size=12,
    ),
)
async def test_every_frame_has_one_fate(profile: Profile, acts: list[tuple[str, int]]) -> None:
    clock = noon()
    pendant = Pendant(clock, profile, faults=Faults(ring_records=72, storage_speed=0))
    told = 0
    for act, number in acts:
        if act == "speak":
            pendant.store_packets(frames(number, seed=number))
            told += number
        elif act == "reboot":
            pendant.reboot()
        elif act == "off":
            pendant.power_off(3)
        elif pendant.advertising:
            client = await come(clock, pendant, audio=act != "deaf")
            if act == "deaf":
                await played(clock, pendant, frames(number))
                told += number
            elif act == "drain":
                command = {"cv1-3.0.18": "1100", "cv1-3.0.15": "0101"}.get(profile.name, "11" + "00" * 8)
                await client.ask(command, number / 100)
            client.link.end()
        await clock.advance(10)
    frame_us = profile.codec.frame_us
    record = pendant.storage.record
    assert sum(truth.end_us - truth.start_us for truth in record) == told * frame_us
    assert all(earlier.end_us <= later.start_us for earlier, later in itertools.pairwise(record))
    places = [(block.store, block.seq) for block in pendant.storage.blocks if block.fate is StoredFate.STORED]
    assert len(places) == len(set(places)) == fates(pendant)["stored"]


def test_neighbours_of_one_fate_are_one() -> None:
    a, b = StoredFate.STORED, StoredFate.FREED
    parts = [StoredTruth(20, 30, a), StoredTruth(0, 10, a), StoredTruth(10, 20, a), StoredTruth(30, 40, b)]
    assert joined(parts) == [StoredTruth(0, 30, a), StoredTruth(30, 40, b)]
