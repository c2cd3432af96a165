"""`models`: list, recommend, pull, import, bundle, verify, rm and path. Works on files; needs no daemon and no vault.

`pull`, `outdated` and `update` are the only verbs of omi-edge that open a connection to somewhere else, in their own
process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console

from omi_edge.cli import updates
from omi_edge.cli.fetching import accept, bars, begin, hub, shelf_of
from omi_edge.cli.present import print_json, print_table, size, wants_progress
from omi_edge.cli.session import run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb_group
from omi_edge.errors import BadInput, ModelError, UsageError
from omi_edge.models import archive, lock, machine
from omi_edge.models.manifest import Model
from omi_edge.models.pull import Pulled, pull
from omi_edge.models.shelf import Shelf, State

HEADERS = ("name", "kind", "state", "size", "licence", "token", "revision", "good for")
STATES = {
    State.ABSENT: "–",
    State.VERIFIED: "installed, verified",
    State.UNCHECKED: "installed, not checked yet",
    State.DAMAGED: "damaged",
}
UNKNOWN = "unknown until first pull"


class ModelItem(msgspec.Struct, frozen=True):
    """One model as `models list --json` shows it; ``size`` and ``memory`` in bytes, None when not known."""

    name: str
    kind: str
    installed: bool
    verified: bool
    state: str
    size: int | None
    memory: int | None
    licence: str | None
    token: bool
    repository: str
    revision: str | None
    locked: bool
    good_for: str


class AdviceItem(msgspec.Struct, frozen=True):
    """One model of the machine's profile."""

    name: str
    fits: bool
    why: str
    good_for: str


class RecommendAnswer(msgspec.Struct, frozen=True):
    """What `models recommend --json` prints."""

    profile: str
    cores: int
    memory: int
    models: list[AdviceItem]


class VerifyItem(msgspec.Struct, frozen=True):
    """What `models verify --json` says of one model."""

    name: str
    whole: bool
    cause: str | None


@verb_group(
    "models",
    examples=(
        "omi-edge models recommend",
        "omi-edge models pull --profile pi5",
        "omi-edge models bundle whisper-small -o models.tar",
        "omi-edge models import models.tar",
    ),
)
def models() -> None:
    """List, fetch, check and carry model files.

    Only `pull`, `outdated` and `update` open a connection to somewhere else; everything else works without a network.
    """


models.add_command(updates.outdated)
models.add_command(updates.update)
models.add_command(updates.rollback)


@models.command("list", cls=Verb, examples=("omi-edge models list --json",))
@pass_settings
def list_(settings: Settings) -> None:
    """List the models that there are, and how they stand here."""
    shelf = shelf_of(settings)
    locked = lock.read(shelf.folder)
    items = [_item(shelf, model, locked.get(model.name)) for model in shelf.manifest.model]
    if settings.json:
        return print_json(items)
    rows = [_row(item) for item in items]
    return print_table(HEADERS, rows, nothing="No model is known.")


@models.command("recommend", cls=Verb, examples=("omi-edge models recommend",))
@pass_settings
def recommend(settings: Settings) -> None:
    """Say which models suit this machine, and why; a rule of thumb until measured."""
    shelf, here = shelf_of(settings), machine.this_machine()
    profile, advice = machine.profile(shelf.manifest, here), machine.advise(shelf.manifest, here)
    items = [AdviceItem(one.model.name, one.fits, one.why, one.model.good_for) for one in advice]
    if settings.json:
        return print_json(RecommendAnswer(profile.name, here.cores, here.memory, items))
    settings.say(f"{profile.about} (profile {profile.name}), {here.cores} cores, {size(here.memory)} of memory.")
    rows = [[item.name, "yes" if item.fits else "no", item.why, item.good_for] for item in items]
    print_table(("name", "fits", "why", "good for"), rows, nothing="Nothing is recommended.")
    fitting = [item.name for item in items if item.fits]
    return settings.say(f"Fetch them with: omi-edge models pull {' '.join(fitting)}" if fitting else "")


@models.command("pull", cls=Verb, examples=(
    "omi-edge models pull whisper-small", "omi-edge models pull --profile pi5 --accept-licence MIT",
))  # fmt: skip
@click.argument("names", metavar="[NAME…]", nargs=-1)
@click.option("--profile", metavar="PROFILE", help="All models of a profile: pi5, m1 or x86.")
@click.option(
    "--accept-licence", "accepted", metavar="NAME", multiple=True, help="Accept a licence, or that of the model NAME."
)
@pass_settings
def pull_(settings: Settings, names: tuple[str, ...], profile: str | None, accepted: tuple[str, ...]) -> None:
    """Fetch models from the hub, going on where an earlier try stopped.

    The licence of each is shown before its first pull.
    """
    shelf = shelf_of(settings)
    chosen = [*names, *(_of_profile(settings, shelf, profile) if profile else ())]
    if not chosen:
        raise UsageError("name the models to fetch, or a profile; `omi-edge models recommend` says which suit.")
    for name in chosen:
        shelf.manifest.find(name)
    done = run_verb(_pull(settings, shelf, chosen, frozenset(accepted)))
    if settings.json:
        return print_json([one._asdict() for one in done])
    for one in done:
        print(f"{one.name}: {'fetched and verified' if one.fetched else 'is there already'}")
    return None


@models.command("import", cls=Verb, examples=(
    "omi-edge models import models.tar", "omi-edge models import ./faster-whisper-small --as whisper-small",
))  # fmt: skip
@click.argument("source", metavar="DIR|ARCHIVE", type=click.Path(path_type=Path))
@click.option("--as", "name", metavar="NAME", help="DIR holds the files of the model NAME, fetched by another program.")
@pass_settings
def import_(settings: Settings, source: Path, name: str | None) -> None:
    """Install models that were carried in: a bundle, or a folder with the files of one model."""
    shelf = shelf_of(settings)
    if name is not None:
        shelf.manifest.find(name)
        with _telling(settings) as tell:
            tell(name)
            archive.take_folder(shelf, name, source)
        taken = [name]
    elif source.is_dir() and not archive.is_bundle(source):
        raise BadInput(f"{source} is no bundle; say which model its files are with: --as NAME")
    else:
        with _telling(settings) as tell:
            taken = archive.take(shelf, source, tell)
    if settings.json:
        return print_json(taken)
    for one in taken:
        print(f"{one}: installed, licence {shelf.manifest.find(one).licence or 'not stated'}")
    return None


@models.command("bundle", cls=Verb, examples=("omi-edge models bundle whisper-tiny whisper-small -o models.tar",))
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), required=True, help=".tar or .zip")
@pass_settings
def bundle(settings: Settings, names: tuple[str, ...], output: Path) -> None:
    """Put installed models into one file, to carry to a box without a network."""
    with _telling(settings) as tell:
        count = archive.bundle(shelf_of(settings), names, output, tell)
    if settings.json:
        return print_json({"file": str(output), "size": count, "models": sorted(set(names))})
    return print(f"{output}: {size(count)}")


@models.command("verify", cls=Verb, examples=("omi-edge models verify", "omi-edge models verify whisper-small"))
@click.argument("names", metavar="[NAME…]", nargs=-1)
@pass_settings
def verify(settings: Settings, names: tuple[str, ...]) -> int:
    """Read every byte of the installed models and compare; exits with 7 when one is not whole."""
    shelf = shelf_of(settings)
    chosen = names or [model.name for model in shelf.manifest.model if shelf.installed(model.name)]
    with _telling(settings) as tell:
        items = [_verified(shelf, name, tell) for name in chosen]
    if settings.json:
        print_json(items)
    else:
        rows = [[item.name, "whole" if item.whole else "no", item.cause or ""] for item in items]
        print_table(("name", "whole", "message"), rows, nothing="No model is installed.")
    return 0 if all(item.whole for item in items) else ModelError.exit_code


@models.command("rm", cls=Verb, examples=("omi-edge models rm whisper-medium --yes",))
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@click.option("--unlock", is_flag=True, help="Forget what was locked too, so that a pull may bring another revision.")
@click.option("--yes", is_flag=True, help="Remove them; without this they are only shown.")
@pass_settings
def rm(settings: Settings, names: tuple[str, ...], unlock: bool, yes: bool) -> None:
    """Remove models; what was locked stays known, unless told otherwise."""
    shelf = shelf_of(settings)
    for name in names:
        shelf.manifest.find(name)
    if yes:
        for name in names:
            shelf.remove(name, unlock=unlock)
    if settings.json:
        return print_json({"models": list(names), "removed": yes, "unlocked": yes and unlock})
    for name in names:
        print(f"{name}: {'removed' if yes else 'would be removed'}{', and its lock' if unlock else ''}")
    return None if yes else settings.say("Nothing was removed; do it with --yes.")


@models.command("path", cls=Verb, examples=("omi-edge models path", "omi-edge models path whisper-small"))
@click.argument("name", metavar="[NAME]", required=False)
@pass_settings
def path(settings: Settings, name: str | None) -> None:
    """Print the models folder, or where one model lies once it is checked."""
    shelf = shelf_of(settings)
    found = str(shelf.folder if name is None else shelf.locate(name))
    return print_json({"path": found}) if settings.json else print(found)


async def _pull(settings: Settings, shelf: Shelf, names: list[str], accepted: frozenset[str]) -> list[Pulled]:
    with bars(settings) as shown:
        async with hub(settings, [shelf.manifest.find(name) for name in names]) as there:
            agree = accept(settings, there, accepted, shown)
            return await pull(names, shelf, there, accept=agree, progress=begin(shown))


@contextlib.contextmanager
def _telling(settings: Settings) -> Iterator[archive.Tell]:
    if not wants_progress(settings):
        yield lambda _: None
        return
    with Console(stderr=True).status("") as status:
        yield lambda name: status.update(name)


def _of_profile(settings: Settings, shelf: Shelf, profile: str) -> list[str]:
    """Return the models of a profile; without a token those that demand one are left out, and named."""
    chosen = [shelf.manifest.find(name) for name in shelf.manifest.find_profile(profile).models]
    if settings.config.models.token_file:
        return [model.name for model in chosen]
    for model in chosen:
        if model.token:
            settings.warn(f"{model.name} is left out: it needs a token; omi-edge models pull {model.name} says how.")
    return [model.name for model in chosen if not model.token]


def _item(shelf: Shelf, model: Model, locked: lock.Locked | None) -> ModelItem:
    state = shelf.state(model)
    return ModelItem(
        name=model.name,
        kind=model.kind,
        installed=state is not State.ABSENT,
        verified=state is State.VERIFIED,
        state=state.value,
        size=locked.size if locked else model.size,
        memory=model.memory or None,
        licence=model.licence or None,
        token=model.token,
        repository=model.repository,
        revision=(locked.revision if locked else model.revision) or None,
        locked=locked is not None,
        good_for=model.good_for,
    )


def _row(item: ModelItem) -> list[str]:
    return [
        item.name,
        item.kind,
        STATES[State(item.state)],
        size(item.size) if item.size is not None else UNKNOWN,
        item.licence or "not stated",
        "needed" if item.token else "no",
        item.revision[:7] if item.revision else "from a folder" if item.locked else UNKNOWN,
        item.good_for,
    ]


def _verified(shelf: Shelf, name: str, tell: archive.Tell) -> VerifyItem:
    tell(name)
    try:
        shelf.verify(name)
    except ModelError as error:
        return VerifyItem(name, False, str(error))
    return VerifyItem(name, True, None)
