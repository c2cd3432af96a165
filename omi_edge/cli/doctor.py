"""`doctor`: what this machine must have, looked at without a vault; each finding with its cure."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from omi_edge.capture.ble import BleRadio
from omi_edge.cli.passphrase import file_problem
from omi_edge.cli.present import print_json, print_table, size
from omi_edge.cli.session import answers
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.clock import SystemClock
from omi_edge.config import serves_at
from omi_edge.errors import ConfigError, LinkError, OmiEdgeError
from omi_edge.listen.vad import model_path
from omi_edge.models.shelf import Shelf
from omi_edge.opus import libopus_path
from omi_edge.paths import models_folder, socket_path
from omi_edge.pipeline import sensors
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.pipeline.recognizer import WHISPER, WYOMING
from omi_edge.sandbox import network_refused
from omi_edge.store import connection, database

LITTLE_DISK_BYTES = 1_000_000_000
"""Below this, warn: an hour of speech writes up to 54 MB (design §7), so a day of it still fits."""
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock before this version was written is wrong."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    state: str
    """ok, warning or failed."""
    detail: str
    cure: str = ""
    """Empty where ``detail`` names it."""


class Report(msgspec.Struct, frozen=True):
    """What `doctor --json` prints."""

    ok: bool
    findings: list[Finding]


@verb("doctor", examples=("omi-edge doctor", "omi-edge --data D doctor --json"))
@pass_settings
def doctor(settings: Settings) -> int:
    """Check this machine; each finding with its cure. Works without a vault; exit code 0 when nothing failed."""
    findings = [_guarded(name, check, settings) for name, check in CHECKS.items()]
    report = Report(all(finding.state != "failed" for finding in findings), findings)
    if settings.json:
        print_json(report)
    else:
        print_table(["what", "state", "found"], [[f.name, f.state, f.detail] for f in findings], nothing="")
        for finding in findings:
            if finding.cure:
                print(f"\n{finding.name}: {finding.cure}")
    return 0 if report.ok else 1


def _guarded(name: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except ConfigError as error:
        if check is not _config:
            return Finding(name, "warning", "not looked at, for the settings cannot be used")
        return Finding(name, "failed", str(error))
    except OmiEdgeError as error:
        return Finding(name, "failed", str(error))


def _python(_: Settings) -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036 a source tree may be run with any Python
        return Finding("python", "failed", found, "Install Python 3.11 or newer and make .venv again.")
    return Finding("python", "ok", found)


def _config(settings: Settings) -> Finding:
    models = models_folder(settings.folder, settings.config.models.folder)
    ChosenEngines(settings.config, SystemClock(), models)  # the daemon would not start with a name that is none
    return Finding(
        "settings", "ok", f"{settings.config_file or 'built-in defaults'}, {len(_sections(settings))} sections"
    )


def _sections(settings: Settings) -> tuple[str, ...]:
    return settings.config.__struct_fields__


def _libopus(_: Settings) -> Finding:
    return Finding("libopus", "ok", libopus_path())


def _vad(_: Settings) -> Finding:
    return Finding("speech detection", "ok", f"Silero VAD, {size(model_path().stat().st_size)}")


def _recognizer(settings: Settings) -> Finding:
    spec = importlib.util.find_spec("pocketsphinx")
    model = Path(spec.origin).parent / "model" / "en-us" if spec is not None and spec.origin else Path()
    if spec is None or not model.is_dir():
        return Finding("speech recognition", "failed", "no PocketSphinx model", "Reinstall the package pocketsphinx.")
    listen = settings.config.listen
    if listen.recognizer == WHISPER:
        try:
            Shelf(models_folder(settings.folder, settings.config.models.folder)).locate(listen.model)
        except OmiEdgeError as error:
            return Finding("speech recognition", "warning", f"PocketSphinx instead of {listen.model}: {error}")
        return Finding("speech recognition", "ok", f"Whisper, {listen.model}")
    return Finding("speech recognition", "ok", "PocketSphinx, English (built in: rough)")


def _final(settings: Settings) -> Finding:
    name, engine = settings.config.listen.final, settings.config.engine
    if not name:
        return Finding("second pass", "ok", "none is configured")
    models = models_folder(settings.folder, settings.config.models.folder)
    if trouble := asyncio.run(ChosenEngines(settings.config, SystemClock(), models).check_final()):
        return Finding("second pass", "warning", f"what was heard live stays shown until it can run: {trouble}")
    celsius = sensors.temperature() if sys.platform == "linux" else None
    if engine.cool and celsius is None:
        cure = "Set engine.cool to 0; macOS tells how hot it is to nobody but root, and some machines to nobody at all."
        return Finding("second pass", "warning", "engine.cool is set, and nothing here tells how hot it is", cure)
    heat = f", now {celsius:.0f} °C" if celsius is not None else ""
    return Finding("second pass", "ok", f"{name}, {engine.when}{heat}")


def _cipher(_: Settings) -> Finding:
    return Finding("encryption", "ok", connection.library_versions())


def _disk(settings: Settings) -> Finding:
    folder = settings.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < LITTLE_DISK_BYTES:
        return Finding("disk", "warning", f"{size(free)} free", f"Free space on the disk of {folder}.")
    return Finding("disk", "ok", f"{size(free)} free")


def _folder(settings: Settings) -> Finding:
    folder = settings.folder
    if folder.exists() and not folder.is_dir():
        return Finding("data folder", "failed", f"{folder} is a file", "Name a folder with --data.")
    if not folder.exists():
        return Finding("data folder", "ok", f"{folder} is not there yet; `omi-edge init` makes it")
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return Finding("data folder", "failed", f"others may look into {folder}", f"Run: chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("data folder", "failed", f"{folder} may not be written", f"Run: sudo chown -R $USER {folder}")
    vault = "with a vault" if (folder / database.NAME).exists() else "without a vault; `omi-edge init` makes one"
    return Finding("data folder", "ok", f"{folder}, {vault}")


def _passphrase_file(settings: Settings) -> Finding:
    named = settings.passphrase_file or settings.config.vault.passphrase_file
    if not named:
        return Finding("passphrase file", "ok", "none is configured")
    problem = file_problem(Path(named).expanduser())
    if problem:
        return Finding("passphrase file", "failed", problem)
    return Finding("passphrase file", "ok", str(named))


def _port(settings: Settings) -> Finding:
    host, port = settings.config.web.host, settings.config.web.port
    if asyncio.run(answers(socket_path(settings.folder))):
        return Finding("port", "ok", "a daemon runs on this data folder and answers")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        cure = "Set web.port to a free one, or stop the program that uses it."
        return Finding("port", "failed", f"{host}:{port} cannot be used: {error.strerror}", cure)
    return Finding("port", "ok", f"{host}:{port} is free")


def _bluetooth(settings: Settings) -> Finding:
    device = settings.config.device
    if not device.bluetooth:
        return Finding("bluetooth", "ok", "not used: device.bluetooth is false")
    try:
        asyncio.run(_usable(device.adapter))
    except LinkError as error:  # recordings can be imported all the same
        return Finding("bluetooth", "warning", f"{error.slug}: {error}")
    return Finding("bluetooth", "ok", f"{device.adapter or 'an adapter'} is there, switched on and may be used")


async def _usable(adapter: str) -> None:
    """Raise the LinkError that names what keeps a pendant from being heard."""
    radio = BleRadio(SystemClock(), adapter)
    try:
        await radio.check()
    finally:
        await radio.close()


def _clock(_: Settings) -> Finding:
    now = datetime.fromtimestamp(SystemClock().utc_us() / 1e6, UTC)
    if now < EARLIEST:
        return Finding("clock", "failed", f"{now:%Y-%m-%d %H:%M} UTC", "Set the clock, or let NTP set it.")
    return Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC")


def _sandbox(_: Settings) -> Finding:
    held = network_refused()
    return Finding("network", "ok" if held.startswith("seccomp") else "warning", held)


def _wyoming(settings: Settings) -> Finding:
    wanted = settings.config.wyoming
    asked = f"asks {wanted.uri}" if settings.config.listen.recognizer == WYOMING else "asks no other server"
    if not wanted.serve:
        return Finding("wyoming", "ok", f"{asked}, serves nobody")
    address = serves_at(wanted)
    if address.is_loopback:
        return Finding("wyoming", "ok", f"{asked}, serves this machine alone")
    if wanted.announce and importlib.util.find_spec("zeroconf") is None:
        cure = 'Install omi-edge with the extra "wyoming", or set wyoming.announce = false.'
        return Finding("wyoming", "warning", "open to everybody on the LAN, and not announced: no zeroconf", cure)
    return Finding(
        "wyoming", "warning", f"{asked}, open to everybody on the LAN at {wanted.host}, port {wanted.port}",
        "Wyoming knows no passwords. If only this machine asks, set wyoming.host to 127.0.0.1.",
    )  # fmt: skip


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "python": _python,
    "settings": _config,
    "libopus": _libopus,
    "speech detection": _vad,
    "speech recognition": _recognizer,
    "second pass": _final,
    "encryption": _cipher,
    "disk": _disk,
    "data folder": _folder,
    "passphrase file": _passphrase_file,
    "port": _port,
    "bluetooth": _bluetooth,
    "clock": _clock,
    "network": _sandbox,
    "wyoming": _wyoming,
}
