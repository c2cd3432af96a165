"""Faults as a person writes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.errors import BadInput
from omi_edge.virtual.faults import Act, Faults, Timed
from omi_edge.virtual.specs import NAMES, parse_faults, parse_script


def test_every_kind() -> None:
    specs = (
        "lose=0.01 drop=0.5 duplicate=1 lose-every=7 drift=-50 cut=30 away=60:20 held=90:15 reboot=120 stall=10:2 "
        "off=200 end=210 press=5:2 unset-clock insufficient-encryption smp-request stale-bond tap-power-off "
        "ring=360 storage-speed=0 storage-not-ready=12 lose-stored=0.1 crc no-auto-advance zero-stamps"
    )
    assert {spec.partition("=")[0] for spec in specs.split()} == set(NAMES)
    assert parse_faults(specs.split(), seed=3) == Faults(
        seed=3, lose=0.01, drop=0.5, duplicate=1, lose_every=7, drift_ppm=-50, unset_clock=True,
        insufficient_encryption=True, security_request=True, stale_bond=True, tap_power_off=True,
        ring_records=360, storage_speed=0, storage_not_ready=12, lose_stored=0.1, done_crc=True, no_auto_advance=True,
        zero_stamps=True,
        timed=(
            Timed(Act.CUT, 30), Timed(Act.AWAY, 60, 20), Timed(Act.HELD, 90, 15), Timed(Act.REBOOT, 120),
            Timed(Act.STALL, 10, 2), Timed(Act.OFF, 200), Timed(Act.END, 210), Timed(Act.PRESS, 5, 2),
        ),
    )  # fmt: skip


def test_storage_that_is_not_ready_needs_no_number() -> None:
    assert parse_faults(["storage-not-ready"]) == Faults(storage_not_ready=5)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("loose=0.1", "did you mean lose?"),
        ("tap-poweroff", "did you mean tap-power-off?"),
        ("xyz", "There are lose="),
        ("lose=1.01", "from 0 to 1"),
        ("lose", "from 0 to 1"),
        ("lose=nan", "from 0 to 1"),
        ("cut=soon", "of at least 0"),
        ("away=5:inf", "of at least 0"),
        ("stale-bond=yes", "takes no value"),
        ("ring=0", "from 1 to"),
        ("storage-not-ready=", "of at least 0"),
        ("storage-speed=-1", "of at least 0"),
    ],
)
def test_bad_ones_are_told_with_their_cure(spec: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_faults([spec])
    assert says in str(caught.value)


@given(st.text(max_size=30) | st.tuples(st.sampled_from(NAMES), st.text(max_size=10)).map("=".join))
def test_anything_is_understood_or_refused(spec: str) -> None:
    with contextlib.suppress(BadInput):
        assert parse_faults([spec]) != Faults() or "=" in spec


def test_a_script() -> None:
    text = "# a bad evening\nlose=0.01\n\n  away=60:20   # in the kitchen\n"
    assert parse_script(text) == ["lose=0.01", "away=60:20"]
