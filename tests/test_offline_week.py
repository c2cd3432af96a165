"""What a simulated week brought to light: clocks that are stepped or wrong while a pendant is away."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import AudioConfig
from omi_edge.domain import Withholding
from omi_edge.store.offline import RunState
from omi_edge.virtual.faults import Faults
from tests.scripted import register
from tests.test_devices import BASE, World
from tests.test_offline_day import frames_between, frames_there, runs_of

FAST = Faults(storage_speed=0)


@pytest.fixture(autouse=True)
def scripted() -> None:
    register()


@pytest.fixture
def world(folder: Path, clock: DrivenClock) -> World:
    return World(folder, clock, msgspec.structs.replace(BASE, audio=AudioConfig(keep_silence=864_000)))


@pytest.mark.parametrize(
    "profile",
    ["cv1-3.0.21", "cv1-3.0.15", *(pytest.param(n, marks=pytest.mark.full) for n in ("cv1-3.0.18", "cv1-3.0.16"))],
)
@pytest.mark.parametrize("step", [-7200, 7200])
async def test_a_mute_before_a_step_of_the_wall_clock_is_kept(world: World, profile: str, step: int) -> None:
    pendant = world.pendant(profile, faults=FAST, mic_sleep=False)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away()
        await world.hear(pendant, 10)
        muted_us = world.clock.boot_us()
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20)
        await daemon.resume("test")
        spoken_us = world.clock.boot_us()
        await world.hear(pendant, 10)
        world.clock.step_utc(step)
        await world.hear(pendant, 20)
        pendant.come_back()
        await world.hear(pendant, 30)
        withheld = set(frames_between(pendant, muted_us, spoken_us))
        assert len(withheld) > 900
        assert not withheld & await frames_there(daemon, pendant)


async def test_a_recording_that_says_to_be_older_than_the_last_visit_has_no_known_time(world: World) -> None:
    """A pendant whose clock cannot be set, and fell back."""
    pendant = world.pendant("cv1-3.0.16", faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.clock.crash(7200.0)
        pendant.go_away(70)
        await world.hear(pendant, 20)
        await world.clock.advance(60)
        await world.hear(pendant, 30)
        (run,) = [run for run in await runs_of(daemon, pendant) if run.frames > 500]
        offset_us = world.clock.utc_us() - world.clock.boot_us()
        assert run.start_us is not None
        assert run.start_us - offset_us > world.clock.boot_us() - 300_000_000
        assert run.guessed
        assert run.state is RunState.HEARD


async def test_what_was_withheld_and_waited_in_a_block_is_not_kept(world: World) -> None:
    """The last frames of a mute share a block, and its time, with the first ones long after it."""
    pendant = world.pendant(faults=FAST)
    async with world.daemon() as daemon:
        await world.paired(daemon, pendant)
        await world.hear(pendant, 5)
        pendant.go_away()
        await world.hear(pendant, 10)
        muted_us = world.clock.boot_us()
        await daemon.withhold(Withholding.MUTED, None, "test")
        await world.hear(pendant, 20.1)
        await daemon.resume("test")
        spoken_us = world.clock.boot_us()
        await world.clock.advance(300)
        await world.hear(pendant, 20)
        pendant.come_back()
        await world.hear(pendant, 30)
        withheld = set(frames_between(pendant, muted_us, spoken_us))
        assert len(withheld) > 900
        assert not withheld & await frames_there(daemon, pendant)
