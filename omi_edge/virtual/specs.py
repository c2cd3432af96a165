"""Faults as a person writes them: ``lose=0.01``, ``away=60:20``, ``tap-power-off``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

import msgspec

from omi_edge.errors import BadInput
from omi_edge.virtual.faults import Act, Faults, Timed

SHARES = {"lose": "lose", "drop": "drop", "duplicate": "duplicate", "lose-stored": "lose_stored"}
STATES = {
    "unset-clock": "unset_clock",
    "insufficient-encryption": "insufficient_encryption",
    "smp-request": "security_request",
    "stale-bond": "stale_bond",
    "tap-power-off": "tap_power_off",
    "crc": "done_crc",
    "no-auto-advance": "no_auto_advance",
    "zero-stamps": "zero_stamps",
}
NUMBERS = {
    "lose-every": ("lose_every", int, 1, math.inf),
    "drift": ("drift_ppm", float, -1e5, 1e5),
    "ring": ("ring_records", int, 1, 9_000_000),
    "storage-speed": ("storage_speed", float, 0, math.inf),
    "storage-not-ready": ("storage_not_ready", float, 0, math.inf),
}
"""Field, type, least and most."""
NOT_READY = "storage-not-ready"
NOT_READY_SECONDS = 5.0
"""Without a number (dossier §10, item 8)."""
NAMES = (*SHARES, *NUMBERS, *(str(act) for act in Act), *STATES)
"""What a spec may begin with."""
HELP = (
    "lose=, drop=, duplicate= a share of the notifications (0 to 1); lose-every=N; drift=PPM; cut=AT, end=AT, "
    "reboot=AT[:CLOCK_BACK], away=AT[:SECONDS], held=AT[:SECONDS], stall=AT[:SECONDS], off=AT[:SECONDS], "
    "press=AT[:CODE]; unset-clock, insufficient-encryption, smp-request, stale-bond, tap-power-off. Of stored audio: "
    "ring=RECORDS, storage-speed=FACTOR (0: no waiting), storage-not-ready[=SECONDS], lose-stored=SHARE, crc, "
    "no-auto-advance, zero-stamps"
)


def parse_faults(specs: Iterable[str], seed: int = 0) -> Faults:
    """Return what ``specs`` ask for. Raises BadInput, with the nearest known spec."""
    faults = Faults(seed=seed)
    for spec in specs:
        faults = _with(faults, spec.strip())
    return faults


def parse_script(text: str) -> list[str]:
    """Return the specs of a script: one a line, the rest of a line after ``#`` is a comment."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _with(faults: Faults, spec: str) -> Faults:
    name, given, value = spec.partition("=")
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        raise BadInput(
            f"there is no fault {name!r}" + (f", did you mean {near[0]}?" if near else f". There are {HELP}.")
        )
    if name in STATES:
        if given:
            raise BadInput(f"the fault {name} takes no value.")
        return msgspec.structs.replace(faults, **{STATES[name]: True})
    first, _, second = value.partition(":")
    if name in SHARES:
        return msgspec.structs.replace(faults, **{SHARES[name]: _number(spec, value, 0, 1)})
    if name in NUMBERS:
        field, kind, least, most = NUMBERS[name]
        number = NOT_READY_SECONDS if name == NOT_READY and not given else _number(spec, value, least, most)
        return msgspec.structs.replace(faults, **{field: kind(number)})
    timed = Timed(Act(name), _number(spec, first, 0), _number(spec, second, 0) if second else None)
    return msgspec.structs.replace(faults, timed=(*faults.timed, timed))


def _number(spec: str, text: str, least: float, most: float = math.inf) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most):
        limit = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise BadInput(f"the fault {spec!r} wants a number {limit}. For example: lose=0.01, cut=30, away=60:20.")
    return number
