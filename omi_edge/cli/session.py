"""A client of the API for the length of one verb: of the daemon that runs, else of one started for this verb alone.

The second kind listens on the same socket under the same lock, so a verb behaves the same both ways. Verbs that come
meanwhile share it; it stops when the last of them is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omi_edge.cli.settings import Settings
from omi_edge.clock import Clock, SystemClock
from omi_edge.errors import AlreadyRunning, NotReady
from omi_edge.paths import socket_path
from omi_edge.web import wire
from omi_edge.web.client import ApiClient

if TYPE_CHECKING:
    from omi_edge.daemon import Daemon

WAIT_SECONDS = 30.0
"""How long a verb waits for a daemon that starts or stops."""
LOOK_AGAIN_SECONDS = 0.1

T = TypeVar("T")


def run_verb(work: Coroutine[Any, Any, T]) -> T:
    """Run one verb's work on an event loop of its own."""
    return asyncio.run(work)


@contextlib.asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[ApiClient]:
    """Have a client of the API of the data folder.

    Raises VaultMissing, PassphraseError, AlreadyRunning when something else holds the folder, and NotReady when a
    daemon does not become ready.
    """
    clock = SystemClock()
    path = socket_path(settings.folder)
    async with contextlib.AsyncExitStack() as stack:
        users = stack.enter_context(_Users(_users_file(path)))
        await _reach(settings, path, users, stack, clock)
        yield await stack.enter_async_context(ApiClient(socket=path))


async def answers(path: Path) -> bool:
    """Say whether somebody listens on the socket ``path``."""
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def used(path: Path) -> bool:
    """Say whether a verb works through the daemon of the socket ``path``."""
    with _Users(_users_file(path)) as users:
        return not users.shut_out()


def _users_file(path: Path) -> Path:
    return path.with_suffix(".users")


class _Users:
    """Who uses a verb's daemon: each holds a shared lock on a file beside the socket; who stops it, the whole lock."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def __enter__(self) -> _Users:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def share(self) -> bool:
        """Become a user; False while the daemon is being stopped."""
        return self._lock(fcntl.LOCK_SH)

    def leave(self) -> None:
        """Be a user no more."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def shut_out(self) -> bool:
        """Keep users out until this is closed; False while there are some."""
        return self._lock(fcntl.LOCK_EX)

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


async def _reach(settings: Settings, path: Path, users: _Users, stack: contextlib.AsyncExitStack, clock: Clock) -> None:
    """Come to a daemon that answers: become a user of one, or start one, which ``stack`` stops."""
    secret: str | None = None
    give_up_us = clock.boot_us() + round(WAIT_SECONDS * 1e6)
    while True:
        if users.share():
            if await answers(path) and await _is_ready(path, clock):
                return
            users.leave()
            own = importlib.import_module("omi_edge.cli.own")  # at the first need: it takes as long as all the rest
            if secret is None:
                secret = own.secret(settings)
            daemon = own.make(settings, secret, clock)
            try:
                await daemon.start()
            except AlreadyRunning:
                if clock.boot_us() > give_up_us:
                    raise
            else:
                stack.push_async_callback(_stop_after_the_last, daemon, users, settings, clock)
                return
        elif clock.boot_us() > give_up_us:
            raise AlreadyRunning(f"another omi-edge on {settings.folder} does not come to an end; stop it.")
        await clock.sleep(LOOK_AGAIN_SECONDS)


async def _stop_after_the_last(daemon: Daemon, users: _Users, settings: Settings, clock: Clock) -> None:
    try:
        waits = 0
        while not users.shut_out():
            waits += 1
            if waits == round(1 / LOOK_AGAIN_SECONDS):
                settings.say("Done; waiting for another omi-edge that works through this one. Ctrl-C does not wait.")
            await clock.sleep(LOOK_AGAIN_SECONDS)
    finally:
        await daemon.stop()


async def _is_ready(path: Path, clock: Clock) -> bool:
    """Wait until the daemon can be asked; False when it ends before, as one does that was given a wrong passphrase."""
    give_up_us = clock.boot_us() + round(WAIT_SECONDS * 1e6)
    async with ApiClient(socket=path) as client:
        while True:
            try:
                readiness = await client.request("GET", "/readiness", returns=wire.Readiness, accept=(503,))
            except NotReady:
                return False
            if readiness.ready:
                return True
            if clock.boot_us() > give_up_us:
                raise NotReady(f"the daemon is still {readiness.state}; its /health says how far it is.")
            await clock.sleep(LOOK_AGAIN_SECONDS)
