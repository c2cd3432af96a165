"""A model hub of one's own: HTTPS on localhost, with certificates made here, that misbehaves on demand."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

COMMIT = "1" * 40
NEWER = "2" * 40
TOKEN = "hf_test"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILES = {
    "Test/pinned": {"config.json": b'{"a": 1}', "weights/model.bin": bytes(range(256)) * 4000},
    "Test/open": {"model.gguf": b"weights of the open one" * 5000},
    "Test/gated": {"model.bin": b"only for friends" * 10},
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest() -> str:
    """models.toml for the three: all pinned; nothing known but the names; given to known accounts only."""
    pinned = "".join(
        f'[[model.files]]\nname = "{name}"\nsize = {len(content)}\nsha256 = "{digest(content)}"\n'
        for name, content in FILES["Test/pinned"].items()
    )
    head = '[[model]]\nname = "{0}"\nkind = "asr"\nformat = "test"\nrepository = "Test/{0}"\ngood_for = "Tests."\n'
    return (
        head.format("pinned")
        + f'revision = "{COMMIT}"\nlicence = "MIT"\n{pinned}'
        + head.format("open")
        + '[[model.files]]\nname = "model.gguf"\n'
        + head.format("gated")
        + 'licence = "CC-BY-4.0"\ntoken = true\n[[model.files]]\nname = "model.bin"\n'
        + '[[profile]]\nname = "tests"\nabout = "Tests"\nmodels = ["pinned", "gated"]\n'
    )


class Certificates:
    """An authority and what it signed for localhost."""

    def __init__(self, folder: Path, *, first: datetime, last: datetime) -> None:
        key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Hub")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        known = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = x509.CertificateBuilder().issuer_name(issuer).not_valid_before(first).not_valid_after(last)
        authority = (
            builder.subject_name(issuer)
            .public_key(key.public_key())
            .serial_number(1)
            .add_extension(basic, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(known, critical=False)
            .sign(key, hashes.SHA256())
        )
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = (
            builder.subject_name(subject)
            .public_key(own.public_key())
            .serial_number(2)
            .add_extension(names, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(authority.public_bytes(pem))
        chain = folder / "hub.pem"
        plain = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        chain.write_bytes(leaf.public_bytes(pem) + plain)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)


def certificates(folder: Path, *, days: int = 36500) -> Certificates:
    return Certificates(folder, first=datetime(2000, 1, 1, tzinfo=UTC), last=NOW + timedelta(days=days))


class FakeHub:
    """What the hub serves and how it misbehaves; ``asked`` are method, path and Range of every request."""

    def __init__(self) -> None:
        self.files = {repository: dict(files) for repository, files in FILES.items()}
        self.commit = COMMIT
        self.answers_as: str | None = None
        self.cuts: list[int] = []
        """Bytes after which each of the next downloads breaks off."""
        self.short = False
        self.redirect = ""
        self.weak = False
        self.asked: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.url = ""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/api/models/{owner}/{name}", self.model)
        application.router.add_get("/{owner}/{name}/resolve/{revision}/{file:.+}", self.file)
        application.router.add_get("/cdn/{owner}/{name}/{file:.+}", self.content)
        return application

    async def model(self, request: web.Request) -> web.Response:
        self._note(request)
        return web.json_response({"sha": self.commit, "private": False})

    async def file(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        repository = "/".join((request.match_info["owner"], request.match_info["name"]))
        if repository == "Test/gated" and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        content = self.files[repository].get(request.match_info["file"])
        if content is None or request.match_info["revision"] != self.commit:
            return web.Response(status=404)
        headers = {"X-Repo-Commit": self.answers_as or self.commit, "X-Linked-Size": str(len(content))}
        headers["X-Linked-ETag"] = f'"{digest(content)}"'
        where = self.redirect or "/cdn"
        headers["Location"] = f"{where}/{repository}/{request.match_info['file']}?sign=a%2Fb"
        return web.Response(status=302, headers=headers)

    async def content(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        assert request.raw_path.endswith("?sign=a%2Fb"), "a signed address must stay as it is"
        repository = "/".join((request.match_info["owner"], request.match_info["name"]))
        content = self.files[repository][request.match_info["file"]]
        tag = ("W/" if self.weak else "") + f'"{digest(content)[:8]}"'
        start = 0
        wanted = request.headers.get("Range", "")
        if wanted and request.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        sent = content[start : len(content) // 2 if self.short else None]
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": tag})
        response.content_length = len(sent)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.cuts:
            await response.write(sent[: self.cuts.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(sent)
        return response

    def _note(self, request: web.Request) -> None:
        self.asked.append((request.method, request.path, request.headers.get("Range", "")))
        self.tokens.append(request.headers.get("Authorization", ""))


@contextmanager
def serving(hub: FakeHub, context: ssl.SSLContext) -> Iterator[FakeHub]:
    """Serve on a thread of its own, so that other processes can ask too."""
    ready, stopping = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        runner = web.AppRunner(hub.application(), access_log=None, shutdown_timeout=0.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        hub.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield hub
    finally:
        loops[0].call_soon_threadsafe(stopping.set)
        thread.join(10)
        assert not thread.is_alive()
