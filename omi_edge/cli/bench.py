"""`bench`: measures this machine, and says which settings suit it. Works on files; needs no daemon and no vault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import msgspec

from omi_edge.cli.evaluate import measuring
from omi_edge.cli.present import print_json, print_table, size
from omi_edge.cli.session import run_verb
from omi_edge.cli.settings import Number, Settings, Verb, pass_settings, verb_group
from omi_edge.clock import SystemClock
from omi_edge.errors import BadInput
from omi_edge.evaluation import bench as benching
from omi_edge.evaluation import trial
from omi_edge.evaluation.trial import Trial
from omi_edge.models import machine
from omi_edge.models.shelf import Shelf
from omi_edge.paths import models_folder
from omi_edge.pipeline.recognizer import BUILT_IN

SECONDS = 30.0
"""Of speech, for each configuration. A choice."""


class Tried(msgspec.Struct, frozen=True):
    """One configuration; memory in bytes."""

    configuration: str
    real_time_factor: float
    memory: int
    load_seconds: float


class Suited(msgspec.Struct, frozen=True):
    """A recogniser with the settings that are the fastest here."""

    name: str
    threads: int
    compute_type: str
    beam: int
    real_time_factor: float
    memory: int


class Benched(msgspec.Struct, frozen=True):
    """What `bench engines --json` prints."""

    cores: int
    memory: int
    tried: list[Tried]
    live: Suited | None
    final: Suited | None


@verb_group("bench", examples=("omi-edge bench engines", "omi-edge bench engines --engine whisper-small --seconds 60"))
def bench() -> None:
    """Measure this machine, and say which settings suit it."""


@bench.command("engines", cls=Verb, examples=("omi-edge bench engines", "omi-edge bench engines --json"))
@click.option("--engine", "names", multiple=True, metavar="NAME", help="Only these; all that are installed by default.")
@click.option("--seconds", type=Number(5.0), default=SECONDS, show_default=True, help="How much speech each hears.")
@pass_settings
def engines(settings: Settings, names: tuple[str, ...], seconds: float) -> None:
    """Measure every recogniser that is installed with several settings, and recommend some.

    Stop the daemon first, or both will be slow. What is heard is the speech that is shipped.
    """
    shelf = Shelf(models_folder(settings.folder, settings.config.models.folder))
    here = machine.this_machine()
    known = benching.installed(shelf)
    for name in names:
        if name not in known:
            raise BadInput(f"{name[:80]!r} is not installed; there is: {', '.join(known)}.", "engine")
    wanted = [name for name in known if not names or name in names]
    found, tried = run_verb(_measure(settings, shelf, wanted, here.cores, seconds))
    advice = benching.advise(found, here.memory)
    answer = Benched(
        here.cores, here.memory,
        [Tried(one.label, one.real_time_factor, one.memory_bytes, one.load_seconds) for one in tried],
        _suited(advice.live), _suited(advice.final),
    )  # fmt: skip
    if settings.json:
        return print_json(answer)
    rows = [
        (one.configuration, f"{one.real_time_factor:.3f}", size(one.memory), f"{one.load_seconds:.1f} s")
        for one in answer.tried
    ]
    print_table(("configuration", "× real time", "memory", "load"), rows, nothing="")
    return print("\n" + _recommended(answer))


async def _measure(
    settings: Settings, shelf: Shelf, names: Sequence[str], cores: int, seconds: float
) -> tuple[list[benching.Settings], list[Trial]]:
    clock = SystemClock()
    heard = await asyncio.to_thread(benching.sample, settings.config, seconds)
    found, tried = [], []
    with measuring(settings) as begin:

        async def attempt(label: str) -> Trial:
            one = trial.configuration(label, settings.config_file, shelf.folder, clock)
            return await trial.run(one, [heard], clock, begin(label, heard.seconds))

        for name in names:
            best, all_of_it = await benching.tune(name, cores, attempt)
            found.append(best)
            tried += all_of_it
    return found, tried


def _suited(one: benching.Settings | None) -> Suited | None:
    if one is None:
        return None
    return Suited(one.name, one.threads, one.compute_type, one.beam, one.found.real_time_factor, one.found.memory_bytes)


def _recommended(answer: Benched) -> str:
    live, final = answer.live, answer.final
    if live is None:
        return (
            f"Nothing of this keeps up with speech ({benching.LIVE_MOST:g} × real time or less); take a smaller model: "
            "omi-edge models recommend"
        )
    lines = ["Recommended, from what was measured:", "", "[listen]"]
    if live.name == BUILT_IN:
        lines += [f'recognizer = "{BUILT_IN}"']
    else:
        lines += ['recognizer = "whisper"', f'model = "{live.name}"']
        lines += [f"beam = {live.beam}", f'compute_type = "{live.compute_type}"']
    if final is not None:
        lines += [f'final = "{final.name}"']
    lines += ["", "[engine]", f"threads = {max(one.threads for one in (live, final) if one is not None)}"]
    return "\n".join(lines)
