"""`models outdated`, `update`, `rollback`: newer revisions, tried on the owner's recordings before they are taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from omi_edge.cli import evaluate
from omi_edge.cli.fetching import accept, bars, begin, hub, shelf_of
from omi_edge.cli.present import print_json, print_table
from omi_edge.cli.session import run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings
from omi_edge.clock import SystemClock
from omi_edge.errors import UsageError
from omi_edge.evaluation import kept, trial
from omi_edge.evaluation.kept import Kept
from omi_edge.models import update as updating
from omi_edge.models.shelf import NEWER, Shelf
from omi_edge.models.update import Seen, Standing

WORSE = evaluate.WORSE


class SeenItem(msgspec.Struct, frozen=True):
    """One installed model beside the hub's newest, as `models outdated --json` shows it."""

    name: str
    installed: str | None
    newest: str
    standing: str


class UpdateAnswer(msgspec.Struct, frozen=True):
    """What `models update --json` prints."""

    name: str
    installed: str | None
    newest: str
    standing: str
    taken: bool
    trials: list[evaluate.TrialAnswer]
    comparisons: list[evaluate.Comparison]


@click.command("outdated", cls=Verb, examples=("omi-edge models outdated", "omi-edge models outdated whisper-small"))
@click.argument("names", metavar="[NAME…]", nargs=-1)
@pass_settings
def outdated(settings: Settings, names: tuple[str, ...]) -> None:
    """Ask the hub whether there are newer revisions of installed models; nothing is fetched."""
    shelf = shelf_of(settings)
    for name in names:
        shelf.manifest.find(name)
    chosen = names or tuple(model.name for model in shelf.manifest.model if shelf.installed(model.name))
    items = [_item(one) for one in run_verb(_look(settings, shelf, chosen))] if chosen else []
    if settings.json:
        return print_json(items)
    rows = [(one.name, _short(one.installed), _short(one.newest), one.standing) for one in items]
    print_table(("name", "installed", "newest", "standing"), rows, nothing="No model is installed.")
    for one in items:
        if one.standing == Standing.OUTDATED:
            settings.say(f"Try it beside the one in use: omi-edge models update {one.name}")
    return None


@click.command("update", cls=Verb, examples=(
    "omi-edge models update whisper-small", "omi-edge models update whisper-small --on spring --take",
))  # fmt: skip
@click.argument("name", metavar="NAME")
@click.option("--on", "on", multiple=True, metavar="KEPT", help="A kept evaluation to try both on; all by default.")
@click.option("--take", is_flag=True, help="Use the newer one from now on, unless it makes more errors.")
@click.option("--untested", is_flag=True, help="Do not try it on recordings.")
@click.option("--accept-licence", "accepted", metavar="NAME", multiple=True, help="Accept a licence that changed.")
@pass_settings
def update(
    settings: Settings, name: str, on: tuple[str, ...], take: bool, untested: bool, accepted: tuple[str, ...]
) -> int:
    """Fetch the newest revision of a model beside the one in use, and let both hear the owner's recordings.

    The recordings are those of `omi-edge evaluate --save`. Nothing changes without --take, and `omi-edge models
    rollback` gives back what was replaced. Exits with 1 when the newer one makes more errors; it is not taken then.
    """
    shelf = shelf_of(settings)
    model = shelf.manifest.find(name)
    evaluations = [] if untested else _evaluations(settings, on, name, model.kind)
    seen = run_verb(_fetch(settings, shelf, name, frozenset(accepted)))
    if seen.standing is not Standing.OUTDATED:
        answer = UpdateAnswer(name, seen.installed or None, seen.newest, seen.standing.value, False, [], [])
        if settings.json:
            print_json(answer)
        else:
            print(f"{name}: nothing to do, {_standing(seen)}.")
        return 0
    trials, comparisons = _try(settings, shelf, seen, evaluations)
    worse = any(one.verdict == "worse" for one in comparisons)
    taken = take and not worse
    if taken:
        updating.take(shelf, name)
    answer = UpdateAnswer(name, seen.installed or None, seen.newest, seen.standing.value, taken, trials, comparisons)
    if settings.json:
        print_json(answer)
    else:
        if trials:
            evaluate.show(trials, comparisons)
        print(_outcome(seen, taken=taken, worse=worse))
    return WORSE if worse else 0


@click.command("rollback", cls=Verb, examples=("omi-edge models rollback whisper-small",))
@click.argument("name", metavar="NAME")
@pass_settings
def rollback(settings: Settings, name: str) -> None:
    """Give back the revision of a model that an update replaced."""
    known = updating.roll_back(shelf_of(settings), name)
    if settings.json:
        return print_json({"name": name, "revision": known.revision or None})
    return print(f"{name} is {_short(known.revision)} again; the daemon uses it when it loads the model next.")


async def _look(settings: Settings, shelf: Shelf, names: Sequence[str]) -> list[Seen]:
    async with hub(settings, [shelf.manifest.find(name) for name in names]) as there:
        return [await updating.look(shelf, name, there) for name in names]


async def _fetch(settings: Settings, shelf: Shelf, name: str, accepted: frozenset[str]) -> Seen:
    async with hub(settings, [shelf.manifest.find(name)]) as there:
        seen = await updating.look(shelf, name, there)
        if seen.standing is Standing.OUTDATED:
            with bars(settings) as shown:
                agree = accept(settings, there, accepted, shown)
                await updating.fetch(shelf, seen, there, accept=agree, progress=begin(shown))
        return seen


def _evaluations(settings: Settings, names: Sequence[str], model: str, kind: str) -> list[Kept]:
    """Return the kept evaluations to try a model on. Raises UsageError where there is none, or no way to try it."""
    if kind != "asr":
        raise UsageError(f"{model} is not for speech recognition, so it cannot be tried yet; update it --untested.")
    found = [kept.load(settings.folder, one) for one in names or kept.names(settings.folder)]
    if not found:
        raise UsageError(
            "no evaluation is kept, so nothing shows which one hears better; keep one with `omi-edge evaluate AUDIO "
            "--reference FILE --save NAME`, or update --untested."
        )
    for one in found:
        evaluate.unchanged(one.files)
    return found


def _try(
    settings: Settings, shelf: Shelf, seen: Seen, evaluations: Sequence[Kept]
) -> tuple[list[evaluate.TrialAnswer], list[evaluate.Comparison]]:
    clock, trials, comparisons = SystemClock(), [], []
    places: tuple[tuple[str, Path], ...] = ((seen.installed, shelf.folder), (seen.newest, shelf.folder / NEWER))
    for one in evaluations:
        wanted = [
            msgspec.structs.replace(
                trial.configuration(seen.name, settings.config_file, folder, clock),
                label=f"{seen.name} {_short(revision)} on {one.name}",
            )
            for revision, folder in places
        ]
        old, new = run_verb(evaluate.measure(settings, one.files, wanted, clock))
        trials += [evaluate.answer(old), evaluate.answer(new)]
        comparisons.append(evaluate.compared(new, new.label, old, old.label))
    return trials, comparisons


def _outcome(seen: Seen, *, taken: bool, worse: bool) -> str:
    name = seen.name
    if worse:
        return f"It makes more errors and was not taken; to take it all the same: omi-edge models update {name} " + (
            "--untested --take"
        )
    if taken:
        return (
            f"{name} is {_short(seen.newest)} now; the daemon uses it when it loads the model next. Give it back with: "
            f"omi-edge models rollback {name}"
        )
    return f"Nothing was changed; take it with: omi-edge models update {name} --take"


def _item(seen: Seen) -> SeenItem:
    return SeenItem(seen.name, seen.installed or None, seen.newest, seen.standing.value)


def _standing(seen: Seen) -> str:
    if seen.standing is Standing.NEWEST:
        return "it is the newest revision"
    return f"the newest revision {_short(seen.newest)} has the same files"


def _short(revision: str | None) -> str:
    return revision[:7] if revision else "from a folder"
