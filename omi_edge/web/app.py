"""The HTTP application, and the sockets it is served on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from omi_edge.config import loopback
from omi_edge.errors import AlreadyRunning, ConfigError, PortInUse
from omi_edge.web import decode, openapi
from omi_edge.web.controls import Controls
from omi_edge.web.middleware import CONTROLS, DESCRIPTION, ROUTES, STOPPING, guard
from omi_edge.web.route import Route
from omi_edge.web.table import ROUTES as TABLE

LINGER_SECONDS = 1.0
"""How long what a refused client goes on sending is thrown away, for it to read the answer; then it is cut off."""
SHUTDOWN_SECONDS = 1.0
"""How long an answer under way may go on when the server stops; the whole daemon has five seconds."""
MAX_SOCKET_PATH = 103
"""Bytes of a Unix socket's path: sun_path has room for 104 on macOS, 108 on Linux, zero included (unix(4), unix(7))."""
BACKLOG = 128


class Server:
    """Something that listens; ``close`` ends it."""

    def __init__(self, runner: web.AppRunner, address: str, path: Path | None = None) -> None:
        self._runner = runner
        self._path = path
        self.address = address
        """Base URL, or the path of the socket."""

    async def close(self) -> None:
        """Stop listening and end what is under way. Harmless twice."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        await self._runner.cleanup()


def make_app(controls: Controls) -> web.Application:
    """Return the application that serves every route; it answers /health before the vault is open."""
    app = web.Application(middlewares=[guard], client_max_size=decode.BODY_LIMIT)
    app[CONTROLS] = controls
    app[STOPPING] = asyncio.Event()
    routes: dict[object, Route] = {}
    for route in TABLE:
        handler = _handler()
        routes[handler] = route
        expect = decode.expect_later if route.optional else None
        app.router.add_route(route.method, route.path, handler, expect_handler=expect)
        if route.head:
            app.router.add_route("HEAD", route.path, handler)
    app[ROUTES] = routes
    description: Callable[[], dict[str, Any]] = openapi.description
    app[DESCRIPTION] = description
    app.on_shutdown.append(_stop_streams)
    return app


async def serve_unix(app: web.Application, path: Path) -> Server:
    """Listen on a Unix socket that its owner alone may open.

    Raises AlreadyRunning when somebody answers there, ConfigError for a path that cannot be used.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the socket's path has more than {MAX_SOCKET_PATH} bytes; use a data folder nearer the root."
        )
    _clear(path)
    listener = _bound(path)
    runner = await _runner(app)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    return Server(runner, str(path), path)


async def serve_tcp(app: web.Application, host: str, port: int) -> Server:
    """Listen on a TCP port of this machine; port 0 takes a free one.

    Raises PortInUse, or ConfigError for an address that is not this machine's own loopback.
    """
    address = loopback(host)
    runner = await _runner(app)
    try:
        await web.TCPSite(runner, str(address), port, backlog=BACKLOG, reuse_address=True).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is taken by another program. Stop that one, or choose another with web.port "
                "in config.toml or OMI_EDGE_WEB_PORT."
            ) from error
        raise ConfigError(f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}.") from error
    taken = runner.addresses[0][1]
    shown = f"[{address}]" if address.version == 6 else str(address)
    return Server(runner, f"http://{shown}:{taken}")


def _handler() -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler of its own for each route, for aiohttp to match; the middleware answers in its place."""

    async def handler(request: web.Request) -> web.StreamResponse:
        raise web.HTTPInternalServerError

    return handler


async def _runner(app: web.Application) -> web.AppRunner:
    # the access log would hold queries, and those are content
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS, lingering_time=LINGER_SECONDS
    )
    await runner.setup()
    return runner


async def _stop_streams(app: web.Application) -> None:
    app[STOPPING].set()


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen(), so there is no moment with wider rights
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror}.") from error
    return listener


def _clear(path: Path) -> None:
    """Remove the socket that a killed daemon left behind."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is no socket. Move it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) in (0, errno.EAGAIN, errno.EINPROGRESS):
            raise AlreadyRunning(f"another omi-edge listens on {path}. Stop that one first.")
    path.unlink(missing_ok=True)
