"""`omi-edge virtual-pendant`: a pendant without hardware, for anybody's Bluetooth client."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from omi_edge.capture.replay import Recording
from omi_edge.cli.present import print_json, print_table
from omi_edge.cli.settings import Settings, pass_settings, verb
from omi_edge.clock import SystemClock
from omi_edge.errors import BadInput, LinkUnavailable
from omi_edge.opus import Samples
from omi_edge.virtual import bus
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.pendant import DEFAULT_MTU, Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, PROFILES, Profile
from omi_edge.virtual.script import recording_path
from omi_edge.virtual.specs import HELP, parse_faults, parse_script

if sys.platform == "linux":  # dbus-fast comes with bleak there and only there
    from omi_edge.virtual.bluez import BluezAdapter

LEAST_MTU = 23
"""Of Bluetooth LE (Core specification, Vol 3, Part F, §3.2.8)."""


@verb(
    "virtual-pendant",
    examples=(
        "omi-edge virtual-pendant",
        "omi-edge virtual-pendant --profile devkit2-2.0.10 --audio talk.wav --repeat",
        "omi-edge virtual-pendant --fault lose=0.01 --fault away=60:20 --seed 7",
        "omi-edge virtual-pendant --stored 60 --fault storage-speed=4",
        "omi-edge virtual-pendant --list",
    ),
)
@click.option("--profile", default=CV1_3_0_21.name, metavar="NAME", help=f"Which pendant. Default: {CV1_3_0_21.name}.")
@click.option("--audio", type=click.Path(path_type=Path), metavar="FILE", help="What it hears. Default: our recording.")
@click.option("--repeat", is_flag=True, help="Hear it again and again.")
@click.option(
    "--stored", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="So much of it was heard while away."
)
@click.option("--fault", "specs", multiple=True, metavar="SPEC", help=f"What goes wrong; may be repeated: {HELP}.")
@click.option(
    "--script", type=click.Path(path_type=Path), metavar="FILE", help="Read such specs from FILE, one a line."
)
@click.option("--mtu", type=click.IntRange(LEAST_MTU, DEFAULT_MTU), default=DEFAULT_MTU, metavar="N", help="ATT MTU.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of what is left to chance.")
@click.option("--bus", "address", metavar="ADDRESS", help="Join the D-Bus at ADDRESS instead of starting one.")
@click.option("--list", "listed", is_flag=True, help="List the profiles.")
@pass_settings
def virtual_pendant(
    settings: Settings,
    profile: str,
    audio: Path | None,
    repeat: bool,
    stored: float,
    specs: tuple[str, ...],
    script: Path | None,
    mtu: int,
    seed: int,
    address: str | None,
    listed: bool,
) -> None:
    """Be a pendant that unmodified bleak sees, on a D-Bus of its own, until Ctrl-C.

    It prints the address of that bus; a client that has it in its environment finds the pendant. The audio starts when
    somebody listens.
    """
    if listed:
        _list(settings)
        return
    chosen = _profile(profile)
    faults = parse_faults([*(parse_script(_text(script)) if script else ()), *specs], seed)
    recording = Recording(audio if audio is not None else recording_path())
    if sys.platform != "linux" or not (address or bus.available()):
        raise LinkUnavailable("this needs Linux and dbus-daemon (apt install dbus-daemon).")
    asyncio.run(_run(settings, chosen, recording, repeat, stored, faults, mtu, address))


async def _run(
    settings: Settings,
    profile: Profile,
    recording: Recording,
    repeat: bool,
    stored: float,
    faults: Faults,
    mtu: int,
    address: str | None,
) -> None:
    clock = SystemClock()
    began_us = clock.boot_us()

    def tell(event: str) -> None:
        seconds = (clock.boot_us() - began_us) / 1e6
        if settings.json:
            print_json({"seconds": round(seconds, 3), "event": event})
        else:
            print(f"{seconds:8.1f} s  {event}", flush=True)
        sys.stdout.flush()

    async with contextlib.AsyncExitStack() as stack:
        if address is None:
            await stack.enter_async_context(bus.PrivateBus(clock))
        else:
            os.environ[bus.ADDRESS_VARIABLE] = address
        pendant = Pendant(clock, profile, mtu=mtu, faults=faults)
        stack.callback(pendant.close)
        if stored:
            pendant.store(_blocks(recording, repeat), seconds=stored)
        await stack.enter_async_context(BluezAdapter(pendant))
        export = f"{bus.ADDRESS_VARIABLE}={os.environ[bus.ADDRESS_VARIABLE]}"
        if settings.json:
            print_json({"bus": os.environ[bus.ADDRESS_VARIABLE], "profile": profile.name, "address": pendant.address})
            sys.stdout.flush()
        else:
            print(f"export {export}\n{profile.name} at {pendant.address}; Ctrl-C ends it.", flush=True)
        pendant.on_event = tell
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        playing = asyncio.create_task(_play(pendant, recording, repeat))
        ending = asyncio.create_task(told.wait())
        await asyncio.wait([playing, ending], return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            playing.result()
            tell("the recording is over; silence from now on")
        await ending
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        pendant.on_event = lambda _: None
        tell(f"ended; {pendant.sent} notifications were sent")


async def _play(pendant: Pendant, recording: Recording, repeat: bool) -> None:
    await pendant.wait_streaming()
    pendant.on_event("the recording begins")
    await pendant.play(_blocks(recording, repeat))


def _blocks(recording: Recording, repeat: bool) -> Iterator[Samples]:
    yield from recording.read()
    while repeat:
        yield from recording.read()


def _list(settings: Settings) -> None:
    if settings.json:
        print_json(
            [
                {"name": one.name, "model": one.device.model, "firmware": one.device.firmware, "codec": int(one.codec)}
                for one in PROFILES.values()
            ]
        )
        return
    rows = [
        (one.name, one.device.model or one.device.name, one.device.firmware, str(int(one.codec)))
        for one in PROFILES.values()
    ]
    print_table(("profile", "model", "firmware", "codec"), rows, nothing="")


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, 1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(PROFILES)}."
        raise BadInput(f"there is no profile {name!r}; {known}", "profile")
    return PROFILES[name]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the script cannot be read ({type(error).__name__}). Name a text file.", "script") from error
