"""`evaluate`: how well recognisers do on the owner's own recordings. Works on files; needs no daemon and no vault."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from omi_edge import __version__
from omi_edge.cli.present import print_json, print_table, size, wants_progress
from omi_edge.cli.session import run_verb
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.clock import Clock, SystemClock
from omi_edge.errors import BadInput, UsageError
from omi_edge.evaluation import kept, references, scoring, trial
from omi_edge.evaluation.kept import Kept, KeptFile
from omi_edge.evaluation.scoring import Piece, Rate
from omi_edge.evaluation.trial import Advance, Configuration, Sample, Trial
from omi_edge.paths import models_folder
from omi_edge.pipeline.recognizer import WHISPER

WORSE = 1
"""Exit code of --again when something became worse."""
VERDICTS = {
    "better": "makes fewer errors than",
    "worse": "makes more errors than",
    "equal": "makes the same errors as",
    "unknown": "cannot be told from",
}


class TrialAnswer(msgspec.Struct, frozen=True):
    """One configuration; sizes in bytes, times in seconds."""

    configuration: str
    engine: str
    words: int
    errors: int
    wer: Rate
    real_time_factor: float
    memory: int
    load_seconds: float
    rejected_words: int


class Comparison(msgspec.Struct, frozen=True):
    """How a configuration does beside another; ``difference`` is its error rate less the other's."""

    configuration: str
    beside: str
    difference: Rate
    verdict: str


class Evaluated(msgspec.Struct, frozen=True):
    """What `evaluate --json` prints."""

    seconds: float
    files: list[str]
    trials: list[TrialAnswer]
    comparisons: list[Comparison]
    saved: str | None = None
    beside: str | None = None
    """Date, version and machine of what was kept."""


@verb("evaluate", examples=(
    "omi-edge evaluate dictation.wav --reference dictation.txt",
    "omi-edge evaluate visit.flac --reference visit.stm --engine pocketsphinx --engine whisper-small,beam=1",
    "omi-edge evaluate a.wav b.wav --reference a.vtt --reference b.vtt --save spring",
    "omi-edge evaluate --again spring",
))  # fmt: skip
@click.argument("audio", nargs=-1, type=click.Path(path_type=Path), metavar="[AUDIO…]")
@click.option(
    "--reference", "references_", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="What was really said, as .txt, .stm or .vtt: one for each recording in order, or one STM for all.",
)  # fmt: skip
@click.option(
    "--engine", "engines", multiple=True, metavar="NAME[,KEY=VALUE…]",
    help="A recogniser or a model, with settings of its own: beam, compute_type, language, threads. Several are "
    "compared with the first. The configured one when none is named.",
)  # fmt: skip
@click.option("--save", metavar="NAME", help="Keep the figures, to hold another release or model against them.")
@click.option("--replace", is_flag=True, help="With --save: in the place of what is kept under that name.")
@click.option("--again", metavar="NAME", help="Measure what was kept again; exit code 1 when something became worse.")
@pass_settings
def evaluate(
    settings: Settings, audio: tuple[Path, ...], references_: tuple[Path, ...], engines: tuple[str, ...],
    save: str | None, replace: bool, again: str | None,
) -> int:  # fmt: skip
    """Count the errors of recognisers on recordings with a known text, and say how fast they are.

    Words are compared without case and punctuation; numbers and spellings must be the same. The interval holds 95 of
    100 such sets of recordings; two configurations are called different when theirs does not hold zero. Nothing that
    is heard is kept.
    """
    if save is not None:
        kept.checked_name(save)
        if save in kept.names(settings.folder) and not replace:
            raise BadInput(f"an evaluation is kept as {save} already; choose another name, or --replace it.", "save")
    before = kept.load(settings.folder, again) if again is not None else None
    if before is not None:
        if audio or references_ or engines:
            raise UsageError("--again measures what was kept; name neither recordings, references nor engines.")
        files = before.files
        engines = tuple(one.label for one in before.trials)
        unchanged(files)
    else:
        files = tuple(kept.fingerprint(*pair) for pair in _paired(audio, references_))
    named = engines or (_configured(settings),)
    if len(set(named)) < len(named):
        raise UsageError("the same engine is named twice.")
    clock = SystemClock()
    models = models_folder(settings.folder, settings.config.models.folder)
    wanted = [trial.configuration(name, settings.config_file, models, clock) for name in named]
    trials = run_verb(measure(settings, files, wanted, clock))
    day = datetime.fromtimestamp(clock.utc_us() / 1e6, UTC).astimezone(settings.zone).date().isoformat()
    made = Kept(save or again or "", day, __version__, kept.machine(), files, trials)
    saved = str(kept.save(settings.folder, made)) if save is not None else None
    return _tell(settings, made, before, saved)


def _configured(settings: Settings) -> str:
    listen = settings.config.listen
    return listen.model if listen.recognizer == WHISPER else listen.recognizer


def _paired(audio: Sequence[Path], references_: Sequence[Path]) -> list[tuple[Path, Path]]:
    if not audio:
        raise UsageError("name at least one recording, or a kept evaluation with --again.")
    if len(references_) == 1 and references_[0].suffix.lower() == ".stm":
        return [(path, references_[0]) for path in audio]
    if len(audio) != len(references_):
        raise UsageError(
            f"recordings and references must be as many, not {len(audio)} and {len(references_)}; name one --reference "
            "for each, or one STM for all."
        )
    return list(zip(audio, references_, strict=True))


def unchanged(files: Sequence[KeptFile]) -> None:
    """Raise BadInput when a recording or a reference is not what it was."""
    for file in files:
        if kept.fingerprint(Path(file.audio), Path(file.reference)) != file:
            raise BadInput(
                f"{file.audio} or its reference is not what was measured; only the same can be compared. Measure it "
                "anew with --save.", "again",
            )  # fmt: skip


async def measure(
    settings: Settings, files: Sequence[KeptFile], wanted: Sequence[Configuration], clock: Clock
) -> tuple[Trial, ...]:
    """Try configurations, one after the other, on recordings with their references."""
    known = [references.read(Path(file.reference), Path(file.audio).stem) for file in files]
    with measuring(settings) as begin:
        samples = []
        for file, reference in zip(files, known, strict=True):
            advance = begin(f"reading {Path(file.audio).name}", None)
            samples.append(await asyncio.to_thread(trial.cut, Path(file.audio), reference, settings.config))
            advance(0)
        return tuple([await _try(one, samples, clock, begin) for one in wanted])


async def _try(
    one: Configuration, samples: Sequence[Sample], clock: Clock, begin: Callable[[str, float | None], Advance]
) -> Trial:
    return await trial.run(one, samples, clock, begin(one.label, sum(sample.seconds for sample in samples)))


@contextlib.contextmanager
def measuring(settings: Settings) -> Iterator[Callable[[str, float | None], Advance]]:
    """Give a function that begins a bar, where somebody watches: what it is of, and its seconds of audio."""
    if not wants_progress(settings):
        yield lambda label, seconds: lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True) as bar:

        def begin(label: str, seconds: float | None) -> Advance:
            task = bar.add_task(label, total=seconds)
            return lambda done: bar.advance(task, done)

        yield begin


def _tell(settings: Settings, made: Kept, before: Kept | None, saved: str | None) -> int:
    first = made.trials[0]
    comparisons = [compared(one, one.label, first, first.label) for one in made.trials[1:]]
    if before is not None:
        then = f"{before.name} of {before.date}"
        comparisons = [compared(one, one.label, old, then) for one, old in zip(made.trials, before.trials, strict=True)]
    trials = [answer(one) for one in made.trials]
    beside = f"{before.date}, omi-edge {before.version}, {before.machine}" if before is not None else None
    told = Evaluated(first.audio_seconds, [file.audio for file in made.files], trials, comparisons, saved, beside)
    if settings.json:
        print_json(told)
    else:
        _show(settings, told, before)
    return WORSE if before is not None and any(one.verdict == "worse" for one in comparisons) else 0


def _show(settings: Settings, told: Evaluated, before: Kept | None) -> None:
    show(told.trials, told.comparisons)
    if before is not None:
        for one, old in zip(told.trials, before.trials, strict=True):
            if one.engine != old.engine:
                print(f"{one.configuration} was then {old.engine}.")
        print(f"Kept: {told.beside}.")
    if any(one.wer.low is None for one in told.trials):
        settings.say(
            f"An interval needs at least {scoring.FEWEST_PIECES} pieces: lines or cues, long ones count as several."
        )
    if told.saved is not None:
        settings.say(f"Kept in {told.saved}; measure again with: omi-edge evaluate --again {Path(told.saved).stem}")


def show(trials: Sequence[TrialAnswer], comparisons: Sequence[Comparison]) -> None:
    """Print trials as a table, and how they compare in sentences."""
    print_table(
        ("configuration", "words", "errors", "WER", "95 %", "× real time", "memory", "load", "engine"),
        [
            (
                one.configuration, str(one.words), str(one.errors), _percent(one.wer.value), _interval(one.wer),
                f"{one.real_time_factor:.3f}", size(one.memory), f"{one.load_seconds:.1f} s", one.engine,
            )
            for one in trials
        ],
        nothing="",
    )  # fmt: skip
    if comparisons:
        print()
    for found in comparisons:
        print(
            f"{found.configuration} {VERDICTS[found.verdict]} {found.beside}: {100 * found.difference.value:+.1f} "
            f"points ({_interval(found.difference, sign='+')})"
        )


def compared(one: Trial, label: str, other: Trial, beside: str) -> Comparison:
    """Compare two trials of the same recordings."""
    found = scoring.difference(_all(other), _all(one))
    return Comparison(label, beside, found, scoring.verdict(found))


def answer(one: Trial) -> TrialAnswer:
    """Sum one trial up."""
    pieces = _all(one)
    return TrialAnswer(
        one.label, one.engine, sum(piece.words for piece in pieces), sum(piece.errors for piece in pieces),
        scoring.rate(pieces), one.real_time_factor, one.memory_bytes, one.load_seconds, one.rejected_words,
    )  # fmt: skip


def _all(one: Trial) -> list[Piece]:
    return [piece for pieces in one.pieces for piece in pieces]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(found: Rate, sign: str = "") -> str:
    if found.low is None or found.high is None:
        return "–"
    return f"{100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f}"
