"""A D-Bus of our own, so that a simulated Bluetooth stack can stand in for the machine's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from omi_edge.clock import Clock
from omi_edge.errors import LinkUnavailable

ADDRESS_VARIABLE = "DBUS_SYSTEM_BUS_ADDRESS"
"""Where bleak looks for the system's bus."""
START_SECONDS = 10.0

_CONFIGURATION = """<busconfig><listen>unix:path={socket}</listen>
<policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
</policy>
</busconfig>
"""


def available() -> bool:
    """Say whether a private bus can be had: on Linux, with dbus-daemon."""
    return sys.platform.startswith("linux") and shutil.which("dbus-daemon") is not None


class PrivateBus:
    """A dbus-daemon for this process alone, while the context lasts. Raises LinkUnavailable when it does not start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> PrivateBus:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="omi-edge-bus-")))
        path = folder / "bus"
        configuration = folder / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(socket=path), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            "dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._stack.push_async_callback(_end, process)
        assert process.stdout is not None
        try:
            async with self._clock.time_limit(START_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            await self._stack.aclose()
            raise LinkUnavailable("dbus-daemon does not start.")
        before = os.environ.get(ADDRESS_VARIABLE)
        os.environ[ADDRESS_VARIABLE] = f"unix:path={path}"
        self._stack.callback(_restore, before)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(ADDRESS_VARIABLE, None)
    else:
        os.environ[ADDRESS_VARIABLE] = before
