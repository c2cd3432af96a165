"""The model hub over HTTPS: the only code of omi-edge that opens a connection to somewhere else.

Used by `omi-edge models pull`, `outdated` and `update` in the process of that command, never by the daemon or an
engine. It speaks to ``models.endpoint`` and to where that redirects, over HTTPS alone, and says nothing but the name of
a repository, a revision and a file; a token is sent to the endpoint itself, for a model that demands one.

The addresses are those of the Hugging Face hub (`huggingface_hub` 2.4, constants.py): ``/api/models/REPO`` tells the
commit of the main branch as ``sha``; ``/REPO/resolve/REVISION/FILE`` is a file; ``X-Repo-Commit`` names the commit that
it is of, ``X-Linked-Size`` its size and ``X-Linked-ETag`` the SHA-256 where it is kept in Git LFS; else the entity tag
is Git's own id of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from yarl import URL

from omi_edge.clock import Clock
from omi_edge.errors import HubError, HubTokenNeeded, ModelRefused, NotFound
from omi_edge.models import certificates

CONNECT_SECONDS = 20.0
STALL_SECONDS = 60.0
"""A download from which nothing came for so long is broken off, and taken up again."""
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Before each further try of a download that broke off without bringing anything."""
REDIRECTS = 5
_ANSWER_LIMIT = 4 << 20
"""Longest answer of the API that is read."""
_CHUNK = 1 << 20
_BLOB = re.compile(r'^"?([0-9a-f]{40})"?$')
_SHA256 = re.compile(r'^"?([0-9a-f]{64})"?$')
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+|\*)$")

Advance = Callable[[int], None]
"""Told how many bytes of the file are there now."""


class About(NamedTuple):
    """What the hub tells of a file before it is fetched: bytes, SHA-256 where it knows one, else Git's id of it."""

    size: int
    sha256: str
    blob: str
    """SHA-1 as `git hash-object` makes it, for what is not in Git LFS; "" when not told."""


class _Unreachable(HubError):
    """No connection, now."""


class _ModelAnswer(msgspec.Struct):
    sha: str


class Part:
    """A file that is being fetched: ``.FILE.part``, and beside it the entity tag that the rest must still have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(f".{path.name}.part")
        self._tag = path.with_name(f".{path.name}.etag")

    @property
    def size(self) -> int:
        """Bytes that are there already, and that can be built on."""
        try:
            return self._part.stat().st_size if self.tag else 0
        except FileNotFoundError:
            return 0

    @property
    def tag(self) -> str:
        """The strong entity tag of what is there; "" when it cannot be built on (RFC 9110, §13.1.5)."""
        try:
            return self._tag.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def begin(self, tag: str) -> None:
        """Start anew, of the entity ``tag``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part.write_bytes(b"")
        self._tag.write_text(tag if tag.isascii() and tag.startswith('"') else "", encoding="ascii")

    def add(self, chunk: bytes) -> None:
        """Append."""
        with self._part.open("ab") as stream:
            stream.write(chunk)

    def finish(self) -> None:
        """Give the file its name."""
        with self._part.open("ab") as stream:
            os.fsync(stream.fileno())
        self._part.replace(self.path)
        self._tag.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget what is there."""
        for path in (self.path, self._part, self._tag):
            path.unlink(missing_ok=True)


class Hub:
    """One endpoint. Use as ``async with Hub(…) as hub``."""

    def __init__(
        self,
        endpoint: str,
        clock: Clock,
        *,
        proxy: str = "",
        ca_file: str = "",
        token: str = "",
        waits: tuple[float, ...] = WAITS_SECONDS,
    ) -> None:
        self.endpoint = URL(endpoint.rstrip("/"))
        self.token = token
        self._clock = clock
        self._proxy = proxy
        self._waits = waits
        self._context = certificates.context(ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Hub:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context),
            headers={"User-Agent": "omi-edge", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def revision(self, repository: str, *, token: bool) -> str:
        """Return the commit of the main branch. Raises HubError, HubTokenNeeded or NotFound."""
        url = self.endpoint / "api/models" / repository
        async with self._open("GET", url, {}, token=token) as response:
            raw = await response.content.read(_ANSWER_LIMIT)
            while not response.content.at_eof() and len(raw) < _ANSWER_LIMIT:
                raw += await response.content.read(_ANSWER_LIMIT - len(raw))
        try:
            sha = msgspec.json.decode(raw, type=_ModelAnswer).sha
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise HubError(
                f"{self.endpoint.host} does not answer as a model hub does; check models.endpoint."
            ) from error
        if not _COMMIT.match(sha):
            raise HubError(f"{self.endpoint.host} names no commit for {repository}; check models.endpoint.")
        return sha

    async def about(self, repository: str, revision: str, file: str, *, token: bool) -> About:
        """Return size and hash of a file. Raises HubError, HubTokenNeeded, NotFound or ModelRefused."""
        url = self._file(repository, revision, file)
        seen: list[Mapping[str, str]] = []
        async with self._open("HEAD", url, {}, token=token, seen=seen) as response:
            size = _first(seen, "X-Linked-Size") or response.headers.get("Content-Length", "")
        _same_commit(seen, revision, repository)
        if not size.isdigit():
            raise HubError(f"{self.endpoint.host} does not tell the size of {file} of {repository}; try again later.")
        linked = _first(seen, "X-Linked-ETag")
        return About(int(size), _matched(_SHA256, linked), _matched(_BLOB, linked or _first(seen, "ETag")))

    async def fetch(
        self, repository: str, revision: str, file: str, to: Path, size: int, advance: Advance, *, token: bool
    ) -> None:
        """Fetch ``file`` of ``size`` bytes to ``to``, from where an earlier try stopped.

        A cut is tried again, with longer waits as long as nothing comes. Raises HubError, HubTokenNeeded, NotFound,
        ModelRefused when more or fewer bytes come than announced, and OSError when the disk refuses.
        """
        part = Part(to)
        tries, came = 0, False
        while (before := part.size) < size:
            try:
                await self._piece(repository, revision, file, part, size, advance, token=token)
                break
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, TimeoutError, _Unreachable) as error:
                if part.size > before:
                    tries, came = 0, True
                elif isinstance(error, _Unreachable) and not came:
                    raise
                if tries >= len(self._waits):
                    raise HubError(
                        f"the download of {file} of {repository} broke off at {part.size} of {size} bytes; "
                        "the same command goes on from there."
                    ) from error
                await self._clock.sleep(self._waits[tries])
                tries += 1
        part.finish()

    async def _piece(
        self, repository: str, revision: str, file: str, part: Part, size: int, advance: Advance, *, token: bool
    ) -> None:
        have = part.size
        headers = {"Range": f"bytes={have}-", "If-Range": part.tag} if 0 < have < size else {}
        seen: list[Mapping[str, str]] = []
        url = self._file(repository, revision, file)
        async with self._open("GET", url, headers, token=token, seen=seen) as response:
            _same_commit(seen, revision, repository)
            if response.status == 416:  # there is nothing behind what is here: the file is shorter
                raise _wrong_size(part, "less", self.endpoint, file, size)
            goes_on = _RANGE.match(response.headers.get("Content-Range", "")) if response.status == 206 else None
            if goes_on is None or int(goes_on[1]) != have:
                have = 0
                part.begin(response.headers.get("ETag", ""))
            async for chunk in response.content.iter_chunked(_CHUNK):
                have += len(chunk)
                if have > size:
                    raise _wrong_size(part, "more", self.endpoint, file, size)
                await asyncio.to_thread(part.add, chunk)
                advance(have)
        if have < size:
            raise _wrong_size(part, "less", self.endpoint, file, size)

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        *,
        token: bool,
        seen: list[Mapping[str, str]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Have the answer behind all redirects; the headers of each step go to ``seen``."""
        assert self._session is not None
        for _ in range(REDIRECTS + 1):
            own = token and bool(self.token) and url.origin() == self.endpoint.origin()
            with_token = {**headers, "Authorization": f"Bearer {self.token}"} if own else dict(headers)
            async with self._answer(method, url, with_token) as response:
                if seen is not None:
                    seen.append(response.headers)
                if response.status in (301, 302, 303, 307, 308):
                    url = self._next(url, response.headers.get("Location", ""))
                    continue
                self._refuse(response.status, url)
                yield response
                return
        raise HubError(f"{self.endpoint.host} redirects in circles; check models.endpoint.")

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        asked = self._session.request(method, url, headers=headers, allow_redirects=False, proxy=self._proxy or None)
        try:
            response = await asked
        except aiohttp.ClientConnectorCertificateError as error:
            raise HubError(await certificates.refusal(_verification(error), url, self._proxy)) from None
        except aiohttp.ClientHttpProxyError as error:
            raise HubError(f"the proxy of models.proxy refused ({error.status}); check models.proxy.") from None
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, TimeoutError, OSError) as error:
            place = "the proxy of models.proxy" if isinstance(error, aiohttp.ClientProxyConnectionError) else url.host
            raise _Unreachable(
                f"{place} cannot be reached. Check the network and models.endpoint; on a box without one, carry models "
                "in with: omi-edge models import FILE"
            ) from error
        except aiohttp.ClientError as error:
            raise HubError(f"{url.host} does not answer as a web server does; check models.endpoint.") from error
        try:
            yield response
        finally:
            response.close()

    def _next(self, url: URL, location: str) -> URL:
        try:
            found = url.join(URL(location, encoded=True))
        except ValueError:
            found = URL()
        if found.scheme != "https" or not found.host:
            raise ModelRefused(
                f"{url.host} redirects to an address without encryption; nothing was fetched. Check models.endpoint."
            )
        return found

    def _refuse(self, status: int, url: URL) -> None:
        if status in (401, 403):
            raise HubTokenNeeded(
                f"{url.host} gives this model to known accounts only ({status}); accept its conditions on its page "
                "there, make a token that may read, and name its file in models.token_file."
            )
        if status == 404:
            raise NotFound(
                f"{url.host} does not have {url.path}; it was withdrawn, or models.endpoint has no such model."
            )
        if status not in (200, 206, 416):
            raise HubError(f"{url.host} answered {status}; try again later.")

    def _file(self, repository: str, revision: str, file: str) -> URL:
        return self.endpoint / repository / "resolve" / revision / file


def _same_commit(seen: list[Mapping[str, str]], revision: str, repository: str) -> None:
    commit = _first(seen, "X-Repo-Commit")
    if commit and commit != revision:
        raise ModelRefused(
            f"the hub answered with another revision of {repository} than the one that was asked for "
            f"({revision[:12]}); nothing was installed. Check models.endpoint."
        )


def _first(seen: list[Mapping[str, str]], name: str) -> str:
    return next((headers[name] for headers in seen if name in headers), "")


def _matched(pattern: re.Pattern[str], tag: str) -> str:
    found = pattern.match(tag)
    return found[1] if found else ""


def _wrong_size(part: Part, what: str, endpoint: URL, file: str, size: int) -> ModelRefused:
    part.drop()
    return ModelRefused(
        f"{endpoint.host} sent {what} of {file} than its {size} bytes; nothing was installed. Check models.endpoint."
    )


def _verification(error: aiohttp.ClientConnectorCertificateError) -> ssl.SSLCertVerificationError:
    cause = error.certificate_error
    assert isinstance(cause, ssl.SSLCertVerificationError)  # what ssl.CertificateError is an old name of
    return cause
