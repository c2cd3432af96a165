"""The API from the other side, for the command line: the same errors as if the act had been done here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from omi_edge.errors import AttRefused, BadInput, NotReady, OmiEdgeError, UsageError
from omi_edge.web import wire

T = TypeVar("T")

CONNECT_SECONDS = 10.0
READ_BYTES = 64 * 1024
EVENT_BYTES = 1 << 20
"""Longest line of the event stream; an event holds one utterance at most."""

Query = Mapping[str, str | int | float | bool | None]


class ApiClient:
    """One connection pool to one daemon: over its Unix ``socket``, or at a base ``url`` with a ``token``."""

    def __init__(self, *, socket: Path | None = None, url: str | None = None, token: str | None = None) -> None:
        if (socket is None) == (url is None):
            raise ValueError("give either a socket or a URL")
        self._socket = socket
        self._base = "http://localhost" if url is None else url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiClient:
        connector = aiohttp.TCPConnector() if self._socket is None else aiohttp.UnixConnector(str(self._socket))
        # no limit in all: an import or an export takes as long as it takes
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=timeout, read_bufsize=EVENT_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        returns: type[T],
        accept: tuple[int, ...] = (),
    ) -> T:
        """Do one act and return its answer as ``returns`` (``type(None)`` for none).

        ``accept`` names statuses of failure whose answer has that shape too, as /health's 503. Raises the error that
        the daemon tells, or NotReady when none answers.
        """
        data, media = (None, None) if body is None else (msgspec.json.encode(body), "application/json")
        async with self._answered(method, path, query, data, media, accept) as response:
            answer = await response.read()
        return _decoded(answer, returns)

    async def upload(
        self, path: str, chunks: AsyncIterable[bytes], *, query: Query | None = None, returns: type[T]
    ) -> T:
        """Send a body as it comes and return the answer as ``returns``."""
        failed: list[Exception] = []
        try:
            async with self._answered(
                "POST", path, query, _watched(chunks, failed), "application/octet-stream"
            ) as response:
                answer = await response.read()
        except NotReady:
            if failed:  # aiohttp tells a failing body as a broken connection
                raise failed[0] from None
            raise
        return _decoded(answer, returns)

    async def stream(self, path: str, *, query: Query | None = None) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes. Raises OmiEdgeError when it breaks off."""
        async with self._answered("GET", path, query) as response:
            async for piece in response.content.iter_chunked(READ_BYTES):
                yield piece

    async def events(
        self, *, after: int | None = None, kinds: tuple[str, ...] = (), on_open: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[wire.EventItem, None]:
        """Yield what happens until the daemon stops; with ``after``, first what is kept since that event.

        ``on_open`` is called once nothing that happens from then on is missed.
        """
        query: Query = {"after": after, "kinds": ",".join(kinds) or None}
        async with self._answered("GET", "/v1/events", query) as response:
            on_open()
            async for line in response.content:
                if line.startswith(b"data:"):
                    yield _decoded(line[5:].strip(), wire.EventItem)

    @contextlib.asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        query: Query | None,
        data: bytes | AsyncIterable[bytes] | None = None,
        media: str | None = None,
        accept: tuple[int, ...] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("use the client with `async with`")
        url = URL(self._base + path, encoded=True)
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        headers = {} if media is None else {"Content-Type": media}
        try:
            async with self._session.request(
                method, url.update_query(given) if given else url, data=data, headers=headers, allow_redirects=False
            ) as response:
                if response.status >= 300 and response.status not in accept:
                    raise error_of(response.status, await response.read())
                yield response
        except (aiohttp.ClientConnectorError, FileNotFoundError) as error:
            raise NotReady("no omi-edge answers there. Start one with `omi-edge run`.") from error
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise NotReady("the daemon broke the connection off; it may be stopping. Ask again.") from error


def error_of(status: int, body: bytes) -> OmiEdgeError:
    """Return the error that a problem document tells, of the same class as where it was raised."""
    try:
        problem = msgspec.json.decode(body, type=wire.Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return OmiEdgeError(f"the answer, of status {status}, is no problem document. Is that an omi-edge?")
    slug = problem.type.rpartition(":")[2]
    kind = next((kind for kind in _kinds(OmiEdgeError) if kind.slug == slug), None)
    if kind is None:
        kind = UsageError if 400 <= status < 500 else OmiEdgeError
    if kind is BadInput:
        return BadInput(problem.detail, problem.field)
    return AttRefused(problem.detail, 0) if kind is AttRefused else kind(problem.detail)  # the code is in the sentence


async def _watched(chunks: AsyncIterable[bytes], failed: list[Exception]) -> AsyncIterator[bytes]:
    """Pass ``chunks`` on and remember what ends them."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        failed.append(error)
        raise


def _decoded(data: bytes, into: type[T]) -> T:
    try:
        return msgspec.json.decode(data or b"null", type=into)
    except msgspec.DecodeError as error:
        raise OmiEdgeError("the daemon's answer has an unknown shape: is it of another version?") from error


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kinds(kind: type[OmiEdgeError]) -> Iterator[type[OmiEdgeError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)
