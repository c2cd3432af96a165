"""Which models suit this machine: by its kind, cores and memory. Rules of thumb, not measurements."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from omi_edge.models.manifest import Manifest, Model, Profile

SHARE = 0.25
"""Part of the memory that the files of one model may be as big as: the rest is for its work, the daemon and the system.
A choice, until `memory` in the manifest is measured."""
_PI_MODEL = Path("/proc/device-tree/model")


class Machine(NamedTuple):
    """What there is to compute with: kind (a profile's name), cores, memory in bytes."""

    kind: str
    cores: int
    memory: int


class Advice(NamedTuple):
    """One model of the machine's profile, whether it fits, and why."""

    model: Model
    fits: bool
    why: str


def this_machine() -> Machine:
    """Return what this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(kind(platform.system(), platform.machine(), _board()), os.cpu_count() or 1, memory)


def kind(system: str, processor: str, board: str) -> str:
    """Return the profile's name for system and processor as ``platform`` says them; other ARM boards count as a Pi."""
    if system == "Darwin" and processor == "arm64":
        return "m1"
    return "pi5" if "Raspberry Pi" in board or processor in ("aarch64", "armv7l") else "x86"


def advise(manifest: Manifest, machine: Machine) -> list[Advice]:
    """Return what the machine's profile names, each with whether it fits its memory."""
    return [_advice(manifest.find(name), machine) for name in profile(manifest, machine).models]


def profile(manifest: Manifest, machine: Machine) -> Profile:
    """Return the profile of ``machine``."""
    return manifest.find_profile(machine.kind)


def _advice(model: Model, machine: Machine) -> Advice:
    needs, have = model.memory or model.size, machine.memory
    share = 1.0 if model.memory else SHARE
    if needs is None:
        return Advice(model, True, "its size is not known before the first pull")
    what = "memory when loaded" if model.memory else "bytes of its files"
    limit = f"{share * have / 1e9:.1f} GB" + (
        "" if model.memory else f", a quarter of the memory ({have / 1e9:.1f} GB)"
    )
    if needs > share * have:
        return Advice(model, False, f"{what}: {needs / 1e9:.1f} GB, more than {limit}")
    return Advice(model, True, f"{what}: {needs / 1e9:.1f} GB, within {limit}")


def _board() -> str:
    try:
        return _PI_MODEL.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
