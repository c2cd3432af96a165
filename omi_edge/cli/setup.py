"""`init`, `config`, `token`: what is done once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from omi_edge.cli.passphrase import passphrase
from omi_edge.cli.present import moment, print_json, print_table
from omi_edge.cli.session import api, run_verb
from omi_edge.cli.settings import Settings, Verb, pass_settings, verb, verb_group
from omi_edge.clock import SystemClock
from omi_edge.config import PREFIX, known_keys, load
from omi_edge.errors import UsageError, VaultError, VaultExists
from omi_edge.paths import models_folder
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.store import database, keys, lock
from omi_edge.web import wire


@verb("init", examples=("omi-edge init", "omi-edge --data D --passphrase-file F init --yes"))
@click.option("--yes", is_flag=True, help="Ask nothing.")
@pass_settings
def init(settings: Settings, yes: bool) -> None:
    """Make the encrypted file in the data folder, and the key slots that its passphrase opens."""
    folder = settings.folder
    _require_room(folder)  # before anything is asked
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("init asks before it makes anything; without a terminal give --yes.")
        click.confirm(f"Make a new vault in {folder}?", abort=True, default=True, err=True)
    secret = passphrase(settings, new=True)
    try:
        database.Database.create(folder, secret, SystemClock())
    except OSError as error:
        raise VaultError(f"no vault can be made in {folder}: {error.strerror}. Name another with --data.") from error
    if settings.json:
        print_json({"folder": str(folder)})
        return
    settings.say(
        f"Made {folder / database.NAME}.\n"
        "Without the passphrase, or without keyslots.json beside it, nothing in it can ever be read again:\n"
        "keep the passphrase in a safe place, and back up the whole folder.\n"
        "Next: `omi-edge import FILE` takes in a recording, `omi-edge run` starts the daemon, `omi-edge doctor` checks."
    )


def _require_room(folder: Path) -> None:
    """Raise before anything would be overwritten, or closed to others, that is not ours."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder with --data.")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if database.NAME in found:
        raise VaultExists(f"there is a vault in {folder} already, and nothing was changed; use it, or another --data.")
    unfinished = f"{database.NAME}.new" in found
    if not unfinished and found & {keys.NAME, keys.SECOND_NAME}:
        raise VaultExists(
            f"there are key slots without {database.NAME} in {folder}, and nothing was changed: put the vault back "
            "that they open, or move them away."
        )
    ours = {keys.NAME, keys.SECOND_NAME, lock.NAME, "lost+found"}
    if any(name not in ours and not name.startswith((database.NAME, keys.NAME, keys.SECOND_NAME)) for name in found):
        raise UsageError(f"there are other files in {folder}; name a new or an empty folder with --data.")


@verb_group("config", examples=("omi-edge config check", "omi-edge config show --json"))
def config() -> None:
    """Check and show the settings."""


@config.command("check", cls=Verb, examples=("omi-edge --config config.toml config check",))
@pass_settings
def check(settings: Settings) -> None:
    """Read the settings and say what is wrong with them, if anything."""
    source, zone = settings.config_file, settings.zone
    ChosenEngines(settings.config, SystemClock(), models_folder(settings.folder, settings.config.models.folder))
    if settings.json:
        print_json({"ok": True, "file": str(source) if source else None, "time_zone": zone.key})
    else:
        print(f"{source or 'built-in defaults'}: the settings are good. Times are shown in {zone.key}.")


@config.command("show", cls=Verb, examples=("omi-edge config show",))
@pass_settings
def show(settings: Settings) -> None:
    """Show every setting in force, and where it comes from."""
    in_file = load(settings.config_file, {})
    rows = []
    for key, default in known_keys().items():
        section, name = key.split(".")
        value = getattr(getattr(settings.config, section), name)
        if PREFIX + key.upper().replace(".", "_") in os.environ:
            origin = "environment"
        else:
            origin = "default" if getattr(getattr(in_file, section), name) == default else "file"
        rows.append((key, value, origin))
    if settings.json:
        print_json({key: {"value": value, "from": origin} for key, value, origin in rows})
        return
    print_table(["setting", "value", "from"], [[key, _text(value), origin] for key, value, origin in rows], nothing="")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value) if value != "" else '""'


@verb_group(
    "token", examples=("omi-edge token create laptop", "omi-edge token list", "omi-edge token revoke cli_01k9z…")
)
def token() -> None:
    """Make, list and revoke tokens for the API."""


@token.command("create", cls=Verb, examples=("omi-edge token create laptop",))
@click.argument("name")
@click.option("--role", metavar="ROLE", default="owner", show_default=True, help="What its holder may do.")
@pass_settings
def create(settings: Settings, name: str, role: str) -> None:
    """Make a token and show it, this once."""
    run_verb(_create(settings, name, role))


async def _create(settings: Settings, name: str, role: str) -> None:
    async with api(settings) as client:
        made = await client.request("POST", "/v1/tokens", body=wire.TokenNew(name, role), returns=wire.TokenMade)
    if settings.json:
        return print_json(made)
    print(made.token)
    return settings.say(f"This is shown once. It belongs to {made.name} ({made.id}, {made.role}).")


@token.command("list", cls=Verb, examples=("omi-edge token list --json",))
@pass_settings
def list_(settings: Settings) -> None:
    """List who holds a token; the tokens themselves are not kept."""
    run_verb(_list(settings))


async def _list(settings: Settings) -> None:
    async with api(settings) as client:
        found = await client.request("GET", "/v1/tokens", returns=wire.Page[wire.TokenItem])
    if settings.json:
        return print_json(found)
    rows = [
        [item.id, item.name, item.role, moment(item.created, settings.zone), moment(item.revoked, settings.zone)]
        for item in found.items
    ]
    return print_table(["id", "name", "role", "made", "revoked"], rows, nothing="No token yet.")


@token.command("revoke", cls=Verb, examples=("omi-edge token revoke cli_01k9z…",))
@click.argument("client_id", metavar="ID")
@pass_settings
def revoke(settings: Settings, client_id: str) -> None:
    """Make a token worthless, from now on."""
    run_verb(_revoke(settings, client_id))


async def _revoke(settings: Settings, client_id: str) -> None:
    async with api(settings) as client:
        await client.request("DELETE", f"/v1/tokens/{client_id}", returns=type(None))
    if settings.json:
        print_json({"id": client_id, "revoked": True})
    else:
        settings.say(f"{client_id} is revoked.")
