"""Which settings of a recogniser are the fastest here, and which one the machine carries, live and afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from omi_edge.config import Config
from omi_edge.evaluation import trial
from omi_edge.evaluation.references import Cue, Reference
from omi_edge.evaluation.trial import Sample, Trial
from omi_edge.models.shelf import Shelf
from omi_edge.pipeline.recognizer import BUILT_IN
from omi_edge.virtual.script import load_script, recording_path

GAIN = 0.9
"""Another setting is taken when the work takes this part of the time or less: threads that bring little are better left
to everything else, and one measurement varies by some percent. A choice."""
LIVE_MOST = 0.4
"""Of real time, for what hears while somebody speaks: partial text costs about as much again, and one who speaks
without a pause must not be left behind. A choice."""
FINAL_MOST = 1.0
"""Of real time, for what transcribes again afterwards: a day of speech must be done before the next. A choice."""
MEMORY_SHARE = 0.5
"""Part of the machine's memory that both together may take. A choice."""

Try = Callable[[str], Awaitable[Trial]]
"""Tries a configuration."""


class Settings(msgspec.Struct, frozen=True):
    """How a recogniser runs best here."""

    name: str
    threads: int
    compute_type: str
    """"" where there is none to choose."""
    beam: int
    found: Trial

    @property
    def fits_live(self) -> bool:
        """Whether it keeps up with speech."""
        return self.found.real_time_factor <= LIVE_MOST


class Advice(msgspec.Struct, frozen=True):
    """What this machine carries: the best live recogniser, and a better one afterwards where there is one."""

    live: Settings | None
    final: Settings | None


def sample(config: Config, seconds: float) -> Sample:
    """Return the first ``seconds`` of the speech that is shipped, with its words."""
    script = load_script()
    cues = tuple(Cue(line.text, line.start, line.end) for line in script.lines)
    whole = trial.cut(recording_path(), Reference(cues), config)
    chosen = tuple(segment for segment in whole.segments if segment[0] < seconds)
    end = chosen[-1][0] + len(chosen[-1][1]) / 32_000
    spoken = tuple(cue for cue in cues if cue.end is not None and cue.end <= end)
    return Sample(whole.path, Reference(spoken), end, chosen)


def installed(shelf: Shelf) -> list[str]:
    """Return the recognisers that are here: the built-in one, then the models of speech from small to large."""
    models = [model for model in shelf.manifest.model if model.kind == "asr" and shelf.installed(model.name)]
    return [BUILT_IN, *(model.name for model in sorted(models, key=lambda model: weight(shelf.place(model.name))))]


def weight(place: Path) -> int:
    """Return the bytes of a model's files: of two models of one family the larger hears better."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


async def tune(name: str, cores: int, attempt: Try) -> tuple[Settings, list[Trial]]:
    """Try threads, then compute types, then beams; return the best settings, and all that was tried.

    Of beams the wide one, unless only the narrow one keeps up with speech.
    """
    if name == BUILT_IN:  # one thread, and nothing to choose
        found = await attempt(name)
        return Settings(name, 1, "", 0, found), [found]
    tried: list[Trial] = []
    threads, compute_type = 1, "int8"

    async def measured(beam: int, **other: object) -> Trial:
        values = {"threads": threads, "compute_type": compute_type, "beam": beam, **other}
        tried.append(await attempt(",".join([name, *(f"{key}={value}" for key, value in values.items())])))
        return tried[-1]

    best = await measured(1)
    for count in _doubled(cores):
        found = await measured(1, threads=count)
        if found.work_seconds > GAIN * best.work_seconds:
            break
        best, threads = found, count
    found = await measured(1, compute_type="float32")
    if found.work_seconds <= GAIN * best.work_seconds:
        best, compute_type = found, "float32"
    wide = Settings(name, threads, compute_type, 5, await measured(5))
    narrow = Settings(name, threads, compute_type, 1, best)
    return narrow if narrow.fits_live and not wide.fits_live else wide, tried


def advise(found: Sequence[Settings], memory_bytes: int) -> Advice:
    """Choose from recognisers in order, the better ones last: the last that keeps up, and the last that is on time."""
    room = MEMORY_SHARE * memory_bytes
    live = next((one for one in reversed(found) if one.fits_live and one.found.memory_bytes <= room), None)
    room -= live.found.memory_bytes if live is not None else 0
    better = list(found[found.index(live) + 1 :]) if live is not None else list(found)
    final = next(
        (
            one for one in reversed(better)
            if one.found.real_time_factor <= FINAL_MOST and one.found.memory_bytes <= room
        ),
        None,
    )  # fmt: skip
    return Advice(live, final)


def _doubled(cores: int) -> Iterator[int]:
    count = 2
    while count < cores:
        yield count
        count *= 2
    if cores > 1:
        yield cores
