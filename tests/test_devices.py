"""Pendants as their owner meets them: a real daemon, a real vault, and virtual pendants that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.config import Config, ConversationConfig, DeviceConfig, ListenConfig, MemoryConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import Cause, Codec, Gap, LinkState, Security, Withholding
from omi_edge.errors import (
    BadInput,
    BadPeripheral,
    BluetoothOff,
    DiskFull,
    LinkLost,
    LinkUnavailable,
    NotFound,
    PairingFailed,
    PendantAbsent,
    VaultError,
)
from omi_edge.store import audio, bookmarks, conversations, devices, gaps, notices, sources, withheld
from omi_edge.store.withheld import WithheldRow
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import CV1_3_0_21, PROFILES, Pendant
from omi_edge.virtual.profiles import StorageKind
from tests.helpers import PASSPHRASE, drive
from tests.scripted import register

BASE = Config(
    conversation=ConversationConfig(silence=30.0),
    listen=ListenConfig(recognizer="scripted", diarizer="scripted"),
    memory=MemoryConfig(extractor="scripted"),
)
EVER_US = 1 << 62


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


class World:
    """One machine, its radio, and pendants around it."""

    def __init__(self, folder: Path, clock: DrivenClock, config: Config = BASE) -> None:
        self.folder = folder
        self.clock = clock
        self.config = config
        self.radio = LoopbackRadio(clock, [])
        self.noise = np.random.default_rng(1)

    def pendant(self, profile: str = "cv1-3.0.21", *, address: str | None = None, **options: Any) -> Pendant:
        pendant = Pendant(self.clock, PROFILES[profile], address=address, **options)
        self.radio.pendants[pendant.address] = pendant
        return pendant

    @contextlib.asynccontextmanager
    async def daemon(self, *, listen: bool = True, **device: Any) -> AsyncIterator[Daemon]:
        config = msgspec.structs.replace(self.config, device=DeviceConfig(**device))
        async with Daemon(
            config, self.folder, PASSPHRASE, self.clock, serve_tcp=False, radio=self.radio, listen=listen
        ) as daemon:
            yield daemon
        self.radio = LoopbackRadio(self.clock, self.radio.pendants.values())

    async def paired(self, daemon: Daemon, pendant: Pendant, **options: Any) -> devices.DeviceRow:
        row = await drive(self.clock, daemon.pair_device(pendant.address, options.get("name")))
        await self.clock.advance(2)
        return row

    async def hear(self, pendant: Pendant, seconds: float, level: float = 3000.0) -> None:
        """Let the pendant hear noise."""

        def blocks() -> Iterator[np.ndarray[tuple[int], np.dtype[np.int16]]]:
            for _ in range(round(seconds * 10)):
                yield self.noise.normal(0, level, 1600).astype(np.int16)

        playing = asyncio.create_task(pendant.play(blocks()))
        while not playing.done():
            await self.clock.advance(0.5)
        await self.clock.settle()


async def _all(*work: Coroutine[Any, Any, Any]) -> None:
    await asyncio.gather(*work)


@pytest.fixture
def world(folder: Path, clock: DrivenClock) -> World:
    return World(folder, clock)


async def heard(daemon: Daemon) -> dict[str | None, float]:
    """Seconds that were heard of each device, kept or thrown away as silence."""
    found = {}
    for row in await daemon.db.read(sources.list_all):
        chunks = await daemon.db.read(lambda conn, row=row: audio.between(conn, row.id, 0, EVER_US))  # type: ignore[misc]
        found[row.device_id] = (sum(chunk.duration_us for chunk in chunks) + row.dropped_us) / 1e6
    return found


async def kept_seconds(daemon: Daemon) -> float:
    """Of all devices, once what was open is closed for want of frames."""
    clock = daemon.clock
    assert isinstance(clock, DrivenClock)
    await clock.advance(4)
    return sum((await heard(daemon)).values())


def withheld_by(daemon: Daemon) -> WithheldRow | None:
    """A call, since a type checker takes a property for constant."""
    return daemon.withheld


async def gaps_of(daemon: Daemon) -> list[Gap]:
    page = await daemon.db.read(lambda conn: gaps.listed(conn, limit=50))
    return list(reversed(page.items))


async def notices_of(daemon: Daemon) -> dict[str, int]:
    return {notice.code: notice.count for notice in await daemon.db.read(notices.active)}


# --- pairing ----------------------------------------------------------------------------------------------------------


async def test_the_only_pendant_in_sight_is_paired_remembered_and_heard(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        row = await drive(world.clock, daemon.pair_device(None, "Mine"))
        assert (row.address, row.name, row.own_name) == (pendant.address, "Mine", "Omi")
        assert (row.model, row.firmware, row.security) == ("Omi CV 1", "3.0.21", "bonded")
        await world.clock.advance(3)
        state = daemon.device_state(row.address)
        assert (state.state, state.security, state.battery) == (LinkState.CONNECTED, Security.BONDED, 82)
        assert state.rssi == -60
        assert (state.led, state.mic_gain, state.storage, state.codec) == (50, 6, "ring", Codec.OPUS_20MS)
        assert "haptic" in state.features
        await world.hear(pendant, 5)
    async with world.daemon() as daemon:  # remembered over a restart
        await world.clock.advance(3)
        assert daemon.device_state(row.address).state is LinkState.CONNECTED
        assert await kept_seconds(daemon) == pytest.approx(5, abs=0.1)
        (last, _) = await daemon.db.read(lambda conn: devices.connections(conn, row.address, 10))
        assert last.ended_us is None
    assert world.radio.trusted == frozenset()


async def test_nobody_in_sight_and_several_in_sight_are_told(world: World) -> None:
    async with world.daemon() as daemon:
        with pytest.raises(PendantAbsent, match="connected to a phone"):
            await drive(world.clock, daemon.pair_device(None, None))
        world.pendant()
        world.pendant("devkit2-2.0.10")
        with pytest.raises(BadInput, match="2 pendants are in sight"):
            await drive(world.clock, daemon.pair_device(None, None))
        assert await daemon.db.read(devices.list_all) == []


async def test_two_pendants_are_heard_at_once_each_in_its_own_source(world: World) -> None:
    first, second = world.pendant(), world.pendant("devkit2-2.0.10")
    async with world.daemon() as daemon:
        await world.paired(daemon, first)
        await world.paired(daemon, second)
        await asyncio.gather(world.hear(first, 4), world.hear(second, 6))
    async with world.daemon() as daemon:
        assert await heard(daemon) == {
            first.address: pytest.approx(4, abs=0.2), second.address: pytest.approx(6, abs=0.2)
        }  # fmt: skip


async def test_one_that_refuses_to_bond_is_heard_over_an_open_link_unless_encryption_is_required(world: World) -> None:
    pendant = world.pendant()
    pendant.accept_pairing = lambda connection: None  # type: ignore[method-assign]
    async with world.daemon(require_encryption="require") as daemon:
        with pytest.raises(PairingFailed):
            await drive(world.clock, daemon.pair_device(None, None))
        assert await daemon.db.read(devices.list_all) == []
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        assert daemon.device_state(pendant.address).security is Security.OPEN
        await world.hear(pendant, 3)
        assert await kept_seconds(daemon) == pytest.approx(3, abs=0.1)
    async with world.daemon(require_encryption="require") as daemon:
        await world.clock.advance(5)
        state = daemon.device_state(pendant.address)
        assert state.state is LinkState.REFUSED
        assert "refused" in state.message
        await world.hear(pendant, 3)
        assert await kept_seconds(daemon) == pytest.approx(3, abs=0.1)
        assert "pendant-refused" in await notices_of(daemon)


async def test_a_forgotten_pendant_leaves_its_recordings_and_loses_its_bond(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        row = await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        assert world.radio.bonds
        await daemon.forget_device(row.address.lower())
        assert not world.radio.bonds
        await world.hear(pendant, 3)
        assert await kept_seconds(daemon) == pytest.approx(3, abs=0.1)
        with pytest.raises(NotFound):
            await daemon.forget_device(row.address)


async def test_a_bond_that_the_pendant_forgot_is_renewed_with_a_notice(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        pendant.forget_bonds()
        pendant.cut()
        await world.clock.advance(5)
        assert daemon.device_state(pendant.address).security is Security.BONDED
        assert (await notices_of(daemon))["bond-renewed"] == 1


async def test_pairing_by_hand_replaces_a_bond_that_the_pendant_forgot(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        # it forgets the bond that was renewed as well, so that only its owner can help
        pendant.forget_bonds()
        pendant.faults = Faults(stale_bond=True)
        pendant._forgetful = True
        pendant.cut()
        await world.clock.advance(5)
        assert daemon.device_state(pendant.address).cause == "bond-lost"
        await world.paired(daemon, pendant)
        assert daemon.device_state(pendant.address).security is Security.BONDED


async def test_a_pendant_that_wants_encryption_gets_it(world: World) -> None:
    pendant = world.pendant(faults=Faults(insufficient_encryption=True))
    async with world.daemon(require_encryption="off") as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        assert daemon.device_state(pendant.address).security is Security.BONDED
        assert await kept_seconds(daemon) == pytest.approx(3, abs=0.1)


async def test_what_is_no_pendant_is_not_remembered(world: World) -> None:
    pendant = world.pendant()
    del pendant.characteristics[gatt.AUDIO_DATA]
    async with world.daemon() as daemon:
        with pytest.raises(BadPeripheral, match="no Omi pendant"):
            await drive(world.clock, daemon.pair_device(None, None))
        assert await daemon.db.read(devices.list_all) == []


async def test_without_a_daemon_that_listens_pairing_works_and_nothing_is_heard(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon(listen=False) as daemon:
        await world.paired(daemon, pendant)
        assert daemon.device_state(pendant.address).state is LinkState.OFF
        assert not pendant.connected


async def test_a_pair_that_is_refused_leaves_a_pendant_that_is_listened_to(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        link = pendant._connection
        for name in ("a\nb", "x" * 101, " "):
            with pytest.raises(BadInput):
                await drive(world.clock, daemon.pair_device(pendant.address, name))
        assert pendant._connection is link
        pendant.end()
        pendant.hold(60)  # it cannot be found
        await world.clock.advance(3)
        with pytest.raises(PendantAbsent):
            await drive(world.clock, daemon.pair_device(pendant.address, "Mine"))
        await world.clock.advance(90)
        assert daemon.device_state(pendant.address).state is LinkState.CONNECTED


async def test_pairing_one_that_is_connected_costs_nothing_and_may_rename_it(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        link = pendant._connection
        row = await drive(world.clock, daemon.pair_device(pendant.address, "Mine"))
        assert (row.name, pendant._connection) == ("Mine", link)
        with pytest.raises(PendantAbsent, match="connected to already"):
            await drive(world.clock, daemon.pair_device(None, None))
        (seen,) = await drive(world.clock, daemon.scan_devices(2))
        assert seen.address == pendant.address


async def test_pairing_and_forgetting_at_once_end_in_one_of_both(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        pendant.cut()
        await drive(
            world.clock,
            _all(
                daemon.pair_device(pendant.address, "one"),
                daemon.forget_device(pendant.address),
                daemon.pair_device(pendant.address, "two"),
            ),
        )
        await world.clock.advance(5)
        (row,) = await daemon.db.read(devices.list_all)
        assert row.name == "two"
        await daemon.forget_device(pendant.address)
        await world.clock.advance(5)
        assert not pendant.connected


async def test_a_bond_that_this_machine_lost_is_made_again(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        world.radio.bonds.clear()
        pendant.cut()
        await world.clock.advance(5)
        assert daemon.device_state(pendant.address).security is Security.BONDED
        world.radio.bonds.clear()
        pendant.accept_pairing = lambda connection: None  # type: ignore[method-assign]
        pendant.cut()
        await world.clock.advance(5)
        assert daemon.device_state(pendant.address).security is Security.OPEN
        assert (await notices_of(daemon))["link-open"] == 1
        await daemon.forget_device(pendant.address)
        assert await notices_of(daemon) == {}


# --- Bluetooth of this machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["power", "service", "adapter", "permission"])
async def test_bluetooth_that_goes_away_is_named_and_comes_back(world: World, fault: str) -> None:
    pendant = world.pendant("friend")  # it stores nothing, so what was missed stays so
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        getattr(world.radio, fault)(False)
        await world.hear(pendant, 20)
        state = daemon.device_state(pendant.address)
        assert state.state is LinkState.UNAVAILABLE
        assert state.cause in ("bluetooth-off", "no-bluetooth-service", "no-adapter", "no-bluetooth-permission")
        assert (await notices_of(daemon))["bluetooth-unavailable"] == 1
        with pytest.raises(LinkUnavailable):
            await drive(world.clock, daemon.scan_devices(3))
        getattr(world.radio, fault)(True)
        await world.hear(pendant, 20)
        assert daemon.device_state(pendant.address).state is LinkState.CONNECTED
        assert "bluetooth-unavailable" not in await notices_of(daemon)
        (gap,) = await gaps_of(daemon)
        assert gap.causes == (Cause.DISCONNECTED,)


async def test_a_machine_without_bluetooth_runs_all_the_same(world: World) -> None:
    world.radio.power(False)
    async with world.daemon() as daemon:
        with pytest.raises(BluetoothOff):
            await drive(world.clock, daemon.pair_device(None, None))
        assert daemon.ready


# --- gaps -------------------------------------------------------------------------------------------------------------


async def test_each_gap_has_its_length_and_its_causes(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 12)
        pendant.hold(20, consuming=True)
        await world.hear(pendant, 40)
        pendant.reboot()
        await world.hear(pendant, 40)
        pendant.go_away(30)
        await world.hear(pendant, 60)
        found = await gaps_of(daemon)
    assert [set(gap.causes) for gap in found] == [
        {Cause.DISCONNECTED}, {Cause.PENDANT_OFF}, {Cause.OUT_OF_RANGE, Cause.DISCONNECTED},
    ]  # fmt: skip
    missing = [t for t in pendant.record if t.fate.value != "delivered" and t.start_us > world.clock.boot_us() - 152e6]
    truth = sum(t.end_us - t.start_us for t in missing) / 1e6
    came_later = sum(t.end_us - t.start_us for t in pendant.storage.record if t.fate is StoredFate.SELF_FREED) / 1e6
    assert 20 < came_later < 35
    # a recording is placed by stamps of whole seconds, and slivers beside it are none
    assert sum(gap.end_us - gap.start_us for gap in found) / 1e6 == pytest.approx(truth - came_later, abs=2.0)


async def test_a_microphone_that_sleeps_is_told_from_a_link_that_fails(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        await world.hear(pendant, 60, level=5)
        await world.hear(pendant, 5)
        (gap,) = await gaps_of(daemon)
        assert gap.causes == (Cause.DEVICE_SILENT,)
        assert (gap.end_us - gap.start_us) / 1e6 == pytest.approx(50, abs=1.0)
        assert pendant.connected
        row = await daemon.db.read(lambda conn: devices.get(conn, pendant.address))
        assert row.connects == 1


async def test_a_microphone_that_is_woken_at_once_is_no_bad_link(world: World) -> None:
    """The hole is so short that it shows only once speech goes on."""
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        for _ in range(3):
            await world.hear(pendant, 3)
            await world.hear(pendant, 10.3, level=5)
        await world.hear(pendant, 8)
        found = await gaps_of(daemon)
        assert len(found) == 3
        assert all(Cause.DEVICE_SILENT in gap.causes for gap in found)


async def test_a_full_disk_does_not_keep_a_pendant_from_being_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)

        def full(*_: object, **__: object) -> None:
            raise DiskFull("no space.")

        with monkeypatch.context() as patch:
            for module, name in ((devices, "began"), (devices, "note"), (notices, "clear"), (audio, "put")):
                patch.setattr(module, name, full)
            pendant.cut()
            await world.clock.advance(3)
            assert daemon.device_state(pendant.address).state is LinkState.CONNECTED
            await world.hear(pendant, 5)
        await world.clock.advance(10)
        assert await kept_seconds(daemon) == pytest.approx(5, abs=0.1)


# --- mute and off the record ------------------------------------------------------------------------------------------


async def test_what_is_muted_is_never_heard_and_noted_with_its_times(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        begun = await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        assert await kept_seconds(daemon) == pytest.approx(5, abs=0.1)
        ended = await daemon.resume("test")
        assert ended is not None
        assert (ended.end_us or 0) - begun.start_us == pytest.approx(24_000_000, abs=200_000)
        await world.hear(pendant, 5)
        (gap,) = await gaps_of(daemon)
        assert (gap.causes, gap.frames) == ((Cause.MUTED,), 0)
        assert (gap.end_us - gap.start_us) / 1e6 == pytest.approx(24, abs=0.2)
        assert await kept_seconds(daemon) == pytest.approx(10, abs=0.1)
        assert (await daemon.db.read(sources.list_all))[0].lost_frames == 0
        assert await daemon.resume("test") is None


async def test_a_mute_survives_a_restart_and_ends_in_its_time(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await daemon.withhold(Withholding.OFF_RECORD, 60.0, "test")
        await world.hear(pendant, 10)
    async with world.daemon() as daemon:
        await world.clock.advance(2)
        await world.hear(pendant, 20)
        assert withheld_by(daemon) is not None
        assert await kept_seconds(daemon) == 0
        await world.clock.advance(40)
        assert withheld_by(daemon) is None
        await world.hear(pendant, 4)
        assert await kept_seconds(daemon) == pytest.approx(4, abs=0.1)
        (row,) = await daemon.db.read(lambda conn: withheld.listed(conn))
        assert row.end_us is not None
        assert row.end_us - row.start_us == pytest.approx(60_000_000, abs=1_000_000)


async def test_a_later_wish_never_shortens_an_earlier_one(world: World) -> None:
    async with world.daemon() as daemon:
        row = await daemon.withhold(Withholding.MUTED, 60.0, "test")
        assert (await daemon.withhold(Withholding.MUTED, 5.0, "test")).until_us == row.until_us
        await daemon.withhold(Withholding.MUTED, None, "test")
        await daemon.withhold(Withholding.OFF_RECORD, 5.0, "test")
        await world.clock.advance(3600)
        held = withheld_by(daemon)
        assert held is not None
        assert (held.kind, held.until_us) == (Withholding.OFF_RECORD, None)
        await daemon.resume("test")
        await daemon.withhold(Withholding.OFF_RECORD, 5.0, "test")
        await world.clock.advance(6)
        assert withheld_by(daemon) is None


async def test_one_whose_time_passed_while_the_daemon_was_down_is_over(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        row = await daemon.withhold(Withholding.MUTED, 60.0, "test")
    await world.clock.advance(3600)
    async with world.daemon() as daemon:
        assert withheld_by(daemon) is None
        (row,) = await daemon.db.read(lambda conn: withheld.listed(conn))
        assert row.end_us == row.until_us


async def test_a_full_disk_does_not_keep_anybody_from_muting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)

        def full(*_: object, **__: object) -> None:
            raise VaultError("no space.")

        with monkeypatch.context() as patch:
            patch.setattr(withheld, "begin", full)
            await daemon.withhold(Withholding.MUTED, None, "test")
            await world.hear(pendant, 10)
            assert await kept_seconds(daemon) == 0
        await daemon.resume("test")
        await daemon.withhold(Withholding.MUTED, None, "test")
        assert await daemon.db.read(withheld.current) is not None


async def test_a_muted_stretch_inside_an_absence_is_told_apart(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.reboot()
        pendant.power_off(60, graceful=False)
        await world.hear(pendant, 20)
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        await world.hear(pendant, 50)
        assert [gap.causes for gap in await gaps_of(daemon)] == [
            (Cause.PENDANT_OFF,), (Cause.MUTED,), (Cause.PENDANT_OFF,),
        ]  # fmt: skip


# --- gestures, haptics, settings --------------------------------------------------------------------------------------


async def test_gestures_do_what_the_owner_chose_and_are_felt(world: World) -> None:
    pendant = world.pendant()
    wanted: dict[str, Any] = {
        "single_tap": "conversation", "double_tap": "bookmark", "long_press": "mute",
        "haptics": ("bookmark:1", "mute:2", "resume:3"),
    }  # fmt: skip
    async with world.daemon(**wanted) as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 8)
        await world.hear(pendant, 3, level=3)
        pendant.press(2)
        await world.clock.advance(1)
        (mark,) = (await daemon.db.read(lambda conn: bookmarks.listed(conn))).items
        assert mark.by == "gesture"
        pendant.press(3)
        await world.clock.advance(1)
        assert withheld_by(daemon) is not None
        pendant.press(3)
        await world.clock.advance(1)
        assert withheld_by(daemon) is None
        pendant.press(1)
        await world.clock.advance(2)
        assert pendant.board.buzzes == [1, 2, 3]
        assert await daemon.db.read(conversations.open_ones) == []


async def test_a_tap_that_switches_the_pendant_off_is_no_gesture(world: World) -> None:
    pendant = world.pendant(faults=Faults(tap_power_off=True))
    async with world.daemon(single_tap="mute") as daemon:
        await world.paired(daemon, pendant)
        pendant.press(1)
        await world.clock.advance(10)
        assert withheld_by(daemon) is None


async def test_the_last_gesture_is_not_done_again_after_a_reconnect(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon(double_tap="bookmark") as daemon:
        await world.paired(daemon, pendant)
        pendant.press(2)
        await world.clock.advance(1)
        pendant.cut()
        await world.clock.advance(10)
        assert len((await daemon.db.read(lambda conn: bookmarks.listed(conn))).items) == 1


async def test_settings_are_written_where_the_pendant_offers_them(world: World) -> None:
    pendant, devkit = world.pendant(), world.pendant("devkit2-2.0.10")
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.paired(daemon, devkit)
        state = await daemon.set_device(pendant.address, led=10, mic_gain=8, own_name=None)
        assert (pendant.board.led, pendant.board.mic_gain) == (10, 8)
        assert (state.led, state.mic_gain) == (10, 8)
        await daemon.set_device(pendant.address, led=None, mic_gain=0, own_name=None)
        assert "microphone-off" in await notices_of(daemon)
        await daemon.set_device(pendant.address, led=None, mic_gain=8, own_name=None)
        assert "microphone-off" not in await notices_of(daemon)
        with pytest.raises(BadInput) as refused:
            await daemon.set_device(pendant.address, led=None, mic_gain=None, own_name="Anna")
        assert refused.value.field == "own_name"
        with pytest.raises(BadInput):
            await daemon.set_device(devkit.address, led=10, mic_gain=None, own_name=None)
        pendant.go_away()
        await world.clock.advance(10)
        with pytest.raises(LinkLost, match="not connected"):
            await daemon.set_device(pendant.address, led=20, mic_gain=None, own_name=None)


async def test_a_glass_is_never_written_to(world: World) -> None:
    glass = world.pendant("glass")
    async with world.daemon(haptics=("bookmark:1",)) as daemon:
        await world.paired(daemon, glass)
        await world.hear(glass, 30)
        assert daemon.device_state(glass.address).state is LinkState.CONNECTED
        with pytest.raises(BadInput):
            await daemon.set_device(glass.address, led=1, mic_gain=None, own_name=None)
        assert glass.board.writes == []


@pytest.mark.parametrize("profile", sorted(PROFILES))
async def test_no_pendant_is_sent_to_its_bootloader_or_has_its_storage_wiped(world: World, profile: str) -> None:
    pendant = world.pendant(profile)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        await daemon.device_storage(pendant.address)
        assert {uuid for uuid, _ in pendant.board.writes} <= {gatt.TIME_SET, gatt.STORAGE_CONTROL}
        commands = {value[:1] for uuid, value in pendant.board.writes if uuid == gatt.STORAGE_CONTROL}
        wiping = {b"\x13"} if pendant.profile.storage is StorageKind.RING else {b"\x02"}  # CLEAR, nuke
        assert not commands & wiping
        assert await kept_seconds(daemon) == pytest.approx(3, abs=0.2)


async def test_the_pendants_clock_is_measured_and_set(world: World) -> None:
    pendant = world.pendant()
    pendant.clock.crash(7200.0)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        row = await daemon.db.read(lambda conn: devices.get(conn, pendant.address))
        assert row.clock_offset_us == pytest.approx(-7_200_000_000, abs=2_000_000)
        assert pendant.clock.now() == pytest.approx(world.clock.utc_us() / 1e6, abs=1.1)


@pytest.mark.parametrize(("profile", "small"), [
    ("devkit2-2.0.10", {"data_length": 27}), ("cv1-3.0.15", {"mtu": 23}),
])  # fmt: skip
async def test_a_link_too_small_for_audio_is_explained(world: World, profile: str, small: dict[str, Any]) -> None:
    pendant = world.pendant(profile, **small)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 80)
        assert await kept_seconds(daemon) == 0
        assert (await notices_of(daemon))["no-audio"] == 1


# --- battery ----------------------------------------------------------------------------------------------------------


async def test_the_battery_has_a_history_and_is_told_once_when_low(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        for percent in range(80, 6, -2):
            pendant.battery = percent
            await world.clock.advance(600)
        found = await notices_of(daemon)
        assert (found.get("battery-low"), found.get("battery-critical")) == (None, 1)
        state = daemon.device_state(pendant.address)
        assert state.hours_left == pytest.approx(8 / 12, abs=0.3)
        history = await daemon.db.read(lambda conn: devices.battery(conn, pendant.address, since_us=0))
        assert 10 < len(history) < 45
        pendant.board.charge(90, charging=True)
        await world.clock.advance(30)
        assert daemon.device_state(pendant.address).charging is True
        assert not {"battery-low", "battery-critical"} & (await notices_of(daemon)).keys()


# --- adversaries ------------------------------------------------------------------------------------------------------


async def test_a_codec_that_changes_between_connections_changes_the_decoder_alone(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 3)
        pendant.end()
        other = Pendant(world.clock, PROFILES["devkit2-2.0.10"], address=pendant.address)
        world.radio.pendants[pendant.address] = other
        await world.clock.advance(5)
        await world.hear(other, 3)
        assert daemon.device_state(pendant.address).codec == Codec.OPUS_10MS
        assert await kept_seconds(daemon) == pytest.approx(6, abs=0.3)
        assert len(await daemon.db.read(sources.list_all)) == 1


async def test_a_flood_costs_a_notice(world: World) -> None:
    pendant = world.pendant()
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.clock.advance(15)
        for number in range(20_000):
            pendant.board._notify(gatt.AUDIO_DATA, (number & 0xFFFF).to_bytes(2, "little") + b"\0\xb8flood")
        for _ in range(5000):
            pendant.board._notify(gatt.BUTTON, b"\x02\0\0\0\0\0\0\0")
            pendant.board._notify(gatt.BATTERY_LEVEL, b"\xff" * 500)
        pendant.cut()
        await world.clock.advance(5)
        assert (await notices_of(daemon))["pendant-flood"] == 1
        assert len((await daemon.db.read(lambda conn: bookmarks.listed(conn))).items) <= 1
        assert daemon.device_state(pendant.address).state is LinkState.CONNECTED


def test_the_default_profile_is_the_current_pendant() -> None:
    assert PROFILES["cv1-3.0.21"] is CV1_3_0_21
