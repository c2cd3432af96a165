"""The client of stored audio against the simulated pendants: absences, faults and crashes by a seed that is printed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable

import msgspec
import pytest

from omi_edge import gatt
from omi_edge.capture.device import Storage, clock_value, storage_of
from omi_edge.capture.offline import drain
from omi_edge.capture.stored import Drained
from omi_edge.clock import DrivenClock
from omi_edge.errors import LinkError, LinkLost
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.loopback import LoopbackRadio
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import (
    CV1_3_0_15,
    CV1_3_0_16,
    CV1_3_0_18,
    CV1_3_0_21,
    CV1_CUSTODY,
    DEVKIT2_2_0_10,
    Profile,
)
from tests.helpers import START_US, drive
from tests.storage_keeper import Crashed, CrashingKeeper, check_all, check_freed, check_lossy_files

LOSSY: dict[str, tuple[Profile, Faults]] = {
    "single file, lossy": (DEVKIT2_2_0_10, Faults(lose_stored=0.004)),
    "ring that does not free itself, lossy": (CV1_3_0_21, Faults(no_auto_advance=True, lose_stored=0.002)),
    "ring with custody, lossy": (CV1_CUSTODY, Faults(lose_stored=0.002, done_crc=True)),
    "several files, lossy": (CV1_3_0_18, Faults(lose_stored=0.002)),
}
"""Notifications get lost between the pendant and the client."""
VISITS = 8
"""Disturbed ones of one pendant, each after an absence."""
LONGEST_VISIT = 3600.0
PENDANTS: dict[str, tuple[Profile, Faults]] = {
    "single file": (DEVKIT2_2_0_10, Faults()),
    "single file of a CV1": (CV1_3_0_15, Faults(ring_records=150)),
    "single file that marks times": (CV1_3_0_16, Faults(unset_clock=True)),
    "several files": (CV1_3_0_18, Faults()),
    "several files, unset clock, no room": (CV1_3_0_18, Faults(unset_clock=True, ring_records=200)),
    "ring that frees itself": (CV1_3_0_21, Faults()),
    "ring that frees itself, small, with a checksum": (CV1_3_0_21, Faults(ring_records=180, done_crc=True)),
    "ring that does not free itself": (CV1_3_0_21, Faults(no_auto_advance=True, storage_not_ready=3.0)),
    "ring that is not ready": (CV1_3_0_21, Faults(storage_not_ready=6.0, ring_records=360, drift_ppm=200)),
    "ring with custody": (CV1_CUSTODY, Faults(ring_records=288)),
    "ring with custody, checksum, zero stamps": (CV1_CUSTODY, Faults(done_crc=True, zero_stamps=True)),
    "ring with custody, unset clock": (CV1_CUSTODY, Faults(unset_clock=True, storage_not_ready=5.0)),
}


class World:
    """A pendant, a radio, and a client whose keeper survives it."""

    def __init__(self, name: str, seed: int) -> None:
        profile, faults = (PENDANTS | LOSSY)[name]
        self.chance = random.Random(f"{seed} {name}")
        speed = self.chance.choice((0.0, 1.0, 4.0))
        self.clock = DrivenClock(START_US + self.chance.randrange(1_000_000))
        mtu = 498 if profile.storage == "single-file" else self.chance.choice((498, 185, 100))
        self.pendant = Pendant(
            self.clock,
            profile,
            mtu=mtu,
            faults=msgspec.structs.replace(faults, seed=seed, storage_speed=speed),
            first_id=self.chance.randrange(65_536),
        )
        self.radio = LoopbackRadio(self.clock, [self.pendant])
        self.link = self.radio.link(self.pendant.address)
        self.keeper = CrashingKeeper()
        self.keeper.on_crash = self.pendant.cut
        self.storage = storage_of(profile.device)
        assert self.storage is not Storage.NONE

    async def be_away(self, longest: int = 600) -> None:
        """Let the pendant hear something while nobody is connected: from nothing to a minute and more."""
        await self.clock.advance(self.chance.choice((0.5, 30.0, 1900.0)))  # more than half an hour begins a file
        if not self.pendant.advertising:
            await self.clock.advance(120.0)
        frames = self.chance.choice((0, 1, 30, 200, longest))
        await self.clock.advance(frames * self.pendant.profile.codec.frame_us / 1e6)
        # of any size, so that tails are stale and lengths dangle; now and then silence (dossier §7)
        sizes = [self.chance.choice((3, *range(31, 158))) for _ in range(frames)]
        self.pendant.store_packets([b"\xb8" + self.chance.randbytes(size - 1) for size in sizes])
        if self.chance.random() < 0.1:
            self.pendant.reboot(clock_back_seconds=self.chance.choice((None, 10.0, 90_000.0)))
            await self.clock.advance(10.0)

    async def visit(self) -> Drained:
        """Connect, subscribe to audio, set the clock, fetch; as it is done with a real one."""
        await self.link.connect()
        try:
            await self.link.subscribe(gatt.AUDIO_DATA, lambda _: None)
            if self.link.offers(gatt.TIME_SET):
                await self.link.write(gatt.TIME_SET, clock_value(self.clock.utc_us()))
            return await drain(self.link, self.storage, self.clock, self.keeper, self.keeper.cursor)
        finally:
            await self.link.close()

    async def disturbed_visit(self) -> None:
        """Fetch, and let something happen at some notification, or at some transaction."""
        self.keeper.restart()
        task = asyncio.create_task(self.visit())
        if self.chance.random() < 0.3:
            self.keeper.crash_at(self.chance.choice((1, 2, 3, 5)), after=self.chance.random() < 0.5)
        else:
            at = self.chance.choice((1, 2, 3, 4, 6, 10, 30, 60, 90, 150, 300))
            self.when_sent(at, self.chance.choice(self.mischiefs(task)))
        until_us = self.clock.boot_us() + round(LONGEST_VISIT * 1e6)
        while not task.done():
            assert self.clock.boot_us() < until_us, "a drain hangs"
            await self.clock.advance(5.0)
        with contextlib.suppress(LinkError, LinkLost, Crashed, asyncio.CancelledError):
            task.result()
        self.pendant.on_sent = lambda: None
        self.keeper.restart()
        check_freed(self.pendant, self.keeper)

    def mischiefs(self, task: asyncio.Task[Drained]) -> list[Callable[[], object]]:
        """What may happen."""
        pendant, back = self.pendant, self.chance.choice((None, 5.0, 7200.0))
        return [
            pendant.cut,
            pendant.cut,
            pendant.end,
            task.cancel,
            lambda: pendant.reboot(clock_back_seconds=back),
            lambda: pendant.stall(2.0),
            lambda: pendant.stall(7.0),
            lambda: pendant.go_away(30.0),
            lambda: pendant.power_off(20.0),
            lambda: pendant.power_off(20.0, graceful=False),
            lambda: None,
        ]

    def when_sent(self, count: int, happen: Callable[[], object]) -> None:
        """Let something happen with that notification of the pendant, counted from now."""
        left = iter(range(count - 1, -1, -1))

        def sent() -> None:
            if next(left, None) == 0:
                happen()

        self.pendant.on_sent = sent

    async def come_home(self) -> None:
        """Fetch all that is left, undisturbed; where much gets lost it may take more than one visit."""
        for _ in range(5):
            await self.clock.advance(120.0)
            with contextlib.suppress(LinkError):
                await drive(self.clock, self.visit(), step=5.0)
                return
        raise AssertionError("it does not come home")


async def whole(name: str, seed: int) -> World:
    print(f"{name}, seed {seed}")
    world = World(name, seed)
    for _ in range(VISITS):
        await world.be_away()
        await world.disturbed_visit()
    await world.come_home()
    if name in LOSSY and world.storage is Storage.MULTI_FILE:
        check_lossy_files(world.pendant, world.keeper)
    else:
        check_all(world.pendant, world.keeper)
        assert name in PENDANTS or not world.keeper.losses
    return world


@pytest.mark.parametrize("name", [*PENDANTS, *LOSSY])
@pytest.mark.parametrize("seed", range(2))
async def test_all_comes_home_once_and_what_is_lost_is_named(name: str, seed: int) -> None:
    world = await whole(name, seed)
    assert world.keeper.records


async def test_a_file_of_the_same_size_is_not_the_renamed_one() -> None:
    await whole("several files, unset clock, no room", 1387393250)


@pytest.mark.full
@pytest.mark.parametrize("name", [*PENDANTS, *LOSSY])
async def test_more_of_the_same(name: str) -> None:
    first = secrets.randbits(32)
    for seed in range(first, first + 20):
        await whole(name, seed)
