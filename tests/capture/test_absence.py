"""Which causes fit what was seen: never a certain one that could be wrong."""

from __future__ import annotations

import pytest

from omi_edge.capture.absence import Hole, Witness
from omi_edge.domain import Cause, Ending

S = 1_000_000
AWAY = {Cause.OUT_OF_RANGE, Cause.DISCONNECTED}


def hole(seconds: float, *, lost: int = 0, quiet: float = 0.0) -> Hole:
    """A hole inside a connection that began at 100 s."""
    return Hole(100 * S, 100 * S + round(seconds * S), lost, None, False, round(quiet * S))


def apart(seconds: float, jump: int | None) -> Hole:
    """A hole over an end of the connection, at 100 s."""
    return Hole(100 * S, 100 * S + round(seconds * S), 0, jump, True)


def test_missing_ids_are_lost_packets() -> None:
    assert Witness().causes(hole(2.0, lost=100)) == (Cause.LOST,)
    assert Witness().causes(hole(2.0, lost=100, quiet=60)) == (Cause.LOST,)


def test_a_microphone_that_heard_something_cannot_have_slept() -> None:
    assert Witness().causes(hole(30, quiet=3)) == (Cause.LOST,)


def test_nor_can_one_that_never_sleeps() -> None:
    witness = Witness()
    witness.mic_sleeps = False
    assert witness.causes(hole(30, quiet=60)) == (Cause.LOST,)


def test_a_battery_level_in_the_middle_proves_that_the_link_was_well() -> None:
    witness = Witness()
    witness.alive(115 * S)
    assert witness.causes(hole(30, quiet=20)) == (Cause.DEVICE_SILENT,)


@pytest.mark.parametrize("at_us", [90 * S, 100 * S + 100_000, 130 * S - 100_000, 140 * S])
def test_one_beside_it_proves_nothing(at_us: int) -> None:
    witness = Witness()
    witness.alive(at_us)
    assert set(witness.causes(hole(30, quiet=20))) == {Cause.DEVICE_SILENT, Cause.LOST}


def test_sleep_and_loss_may_both_be() -> None:
    witness = Witness()
    witness.alive(115 * S)
    assert set(witness.causes(hole(30, lost=5, quiet=20))) == {Cause.DEVICE_SILENT, Cause.LOST}


@pytest.mark.parametrize("jump", [0x8000, 0xFFFF, 30_000])
@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.RADIO])
def test_ids_that_began_anew_tell_of_a_restart_however_the_link_ended(jump: int, ending: Ending) -> None:
    witness = Witness()
    witness.ended(100 * S, ending)
    assert witness.causes(apart(30, jump)) == (Cause.PENDANT_OFF,)


def test_a_restart_while_bluetooth_was_down_here_has_both_causes() -> None:
    witness = Witness()
    witness.ended(100 * S, Ending.RADIO)
    assert witness.causes(apart(30, 0xFFFF)) == (Cause.PENDANT_OFF, Cause.DISCONNECTED)


def test_ids_that_ran_ahead_tell_of_another_listener() -> None:
    witness = Witness()
    witness.ended(100 * S, Ending.TIMEOUT)
    assert witness.causes(apart(30, 1400)) == (Cause.DISCONNECTED,)


@pytest.mark.parametrize("jump", [0, 3, 64])
@pytest.mark.parametrize("ending", [Ending.TIMEOUT, Ending.UNKNOWN, Ending.STALE])
def test_ids_that_went_on_leave_two_causes(jump: int, ending: Ending) -> None:
    witness = Witness()
    witness.ended(100 * S, ending)
    assert set(witness.causes(apart(30, jump))) == AWAY


@pytest.mark.parametrize("ending", [Ending.RADIO, Ending.LOCAL, Ending.AUTHENTICATION, Ending.REMOTE])
def test_an_end_that_tells_its_reason_is_certain(ending: Ending) -> None:
    witness = Witness()
    witness.ended(100 * S, ending)
    assert witness.causes(apart(30, 2)) == (Cause.DISCONNECTED,)


def test_a_pendant_that_walked_off_while_bluetooth_was_down_is_not_certain() -> None:
    witness = Witness()
    witness.ended(100 * S, Ending.RADIO)
    witness.radio_down(101 * S)
    witness.ended(110 * S, Ending.TIMEOUT)
    assert set(witness.causes(apart(60, 0))) == AWAY


def test_without_ids_to_compare_it_may_have_been_off_too() -> None:
    witness = Witness()
    witness.ended(100 * S, Ending.TIMEOUT)
    assert set(witness.causes(apart(30, None))) == AWAY | {Cause.PENDANT_OFF}
    witness.ended(100 * S, Ending.REMOTE)
    assert Cause.PENDANT_OFF in Witness().causes(apart(30, 50_000))


def test_what_nothing_speaks_for_is_unknown() -> None:
    assert Witness().causes(apart(30, None)) == (Cause.UNKNOWN,)


def test_what_happened_at_another_time_does_not_count() -> None:
    witness = Witness()
    witness.ended(50 * S, Ending.RADIO)
    witness.ended(200 * S, Ending.RADIO)
    assert witness.causes(apart(30, None)) == (Cause.UNKNOWN,)
