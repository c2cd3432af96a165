"""Fetching models: what is asked, what is refused, and what is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.errors import (
    ConfigError,
    HubError,
    HubTokenNeeded,
    LicenceNotAccepted,
    ModelAltered,
    ModelError,
    ModelRefused,
    ModelSpace,
    NotFound,
)
from omi_edge.models import lock, pull
from omi_edge.models.hub import Advance, Hub
from omi_edge.models.manifest import Model
from omi_edge.models.pull import KEEP_FREE, Pulled
from omi_edge.models.shelf import Shelf, State
from tests.helpers import START_US
from tests.models.hub import COMMIT, FILES, NEWER, TOKEN, Certificates, FakeHub, certificates, digest, serving

MODEL = FILES["Test/pinned"]["weights/model.bin"]


def yes(_: Model) -> bool:
    return True


def quiet(_model: str, _file: str, _count: int) -> Advance:
    return lambda _: None


def plenty(_: Path) -> int:
    return 10 * KEEP_FREE


async def fetch(
    shelf: Shelf,
    hub: FakeHub,
    signed: Certificates,
    *names: str,
    token: str = "",
    accept: Callable[[Model], bool] = yes,
    progress: pull.Progress = quiet,
    free: pull.Free = plenty,
    waits: tuple[float, ...] = (0.0, 0.0),
) -> list[Pulled]:
    clock = DrivenClock(START_US)
    async with Hub(hub.url, clock, ca_file=str(signed.authority), token=token, waits=waits) as client:
        return await pull.pull(names, shelf, client, accept=accept, progress=progress, free=free)


def incoming(shelf: Shelf) -> list[Path]:
    return [path for path in (shelf.folder / ".incoming").rglob("*") if path.is_file()]


async def test_a_model_arrives_whole_and_is_found(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    assert await fetch(shelf, hub, signed, "pinned") == [Pulled("pinned", True)]
    place = shelf.locate("pinned")
    assert {name: (place / name).read_bytes() for name in FILES["Test/pinned"]} == FILES["Test/pinned"]
    assert not incoming(shelf)
    locked = lock.read(shelf.folder)["pinned"]
    assert (locked.revision, locked.licence, locked.source) == (COMMIT, "MIT", hub.url)
    assert shelf.state(shelf.manifest.find("pinned")) is State.VERIFIED


async def test_what_is_whole_is_not_fetched_again(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    await fetch(shelf, hub, signed, "pinned")
    hub.asked.clear()
    assert await fetch(shelf, hub, signed, "pinned", "pinned") == [Pulled("pinned", False)]
    assert not hub.asked


async def test_a_cut_is_resumed_where_it_was(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.cuts = [len(MODEL), 300_000, 200_000]  # the first is the small file's
    seen: list[int] = []

    def progress(_model: str, file: str, _count: int) -> Advance:
        return seen.append if file == "weights/model.bin" else lambda _: None

    await fetch(shelf, hub, signed, "pinned", progress=progress)
    ranges = [asked[2] for asked in hub.asked if asked[1].startswith("/cdn") and asked[1].endswith("model.bin")]
    assert ranges[0] == ""
    assert len(ranges) == 3
    assert all(wanted.startswith("bytes=") for wanted in ranges[1:])
    assert seen == sorted(seen)
    assert seen[-1] == len(MODEL)
    assert shelf.locate("pinned")


async def test_the_next_command_goes_on_too(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.cuts = [len(MODEL), 300_000]
    with pytest.raises(HubError, match="the same command goes on from there"):
        await fetch(shelf, hub, signed, "pinned", waits=())
    assert shelf.state(shelf.manifest.find("pinned")) is State.ABSENT
    hub.asked.clear()
    await fetch(shelf, hub, signed, "pinned")
    assert any(asked[2] for asked in hub.asked)
    assert not [asked for asked in hub.asked if asked[1].endswith("config.json")], "that one was whole"


async def test_without_a_strong_entity_tag_it_begins_anew(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.weak = True
    hub.cuts = [len(MODEL), 300_000]
    await fetch(shelf, hub, signed, "pinned")
    assert not any(asked[2] for asked in hub.asked)
    assert shelf.locate("pinned")


async def test_a_file_that_changed_between_two_pieces_is_not_mixed(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    hub.cuts = [300_000]
    hub.files["Test/open"]["model.gguf"] = b"old" * 200_000
    with pytest.raises(HubError):
        await fetch(shelf, hub, signed, "open", waits=())
    hub.files["Test/open"]["model.gguf"] = b"new" * 200_000
    await fetch(shelf, hub, signed, "open")
    assert (shelf.locate("open") / "model.gguf").read_bytes() == b"new" * 200_000


async def test_a_wrong_hash_is_thrown_away(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.files["Test/pinned"]["weights/model.bin"] = MODEL[:-1] + b"x"
    with pytest.raises(ModelRefused, match="another SHA-256"):
        await fetch(shelf, hub, signed, "pinned")
    assert not shelf.installed("pinned")
    assert not [path for path in incoming(shelf) if "model.bin" in path.name]


@pytest.mark.parametrize("content", [MODEL[:-1], MODEL + b"more"])
async def test_a_wrong_size_is_thrown_away(shelf: Shelf, hub: FakeHub, signed: Certificates, content: bytes) -> None:
    hub.files["Test/pinned"]["weights/model.bin"] = content
    with pytest.raises(ModelRefused, match="than its 1024000 bytes"):
        await fetch(shelf, hub, signed, "pinned")
    assert not shelf.installed("pinned")


async def test_a_file_that_is_shorter_than_announced_is_refused(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    hub.short = True
    with pytest.raises(ModelRefused, match=r"sent less of model\.gguf"):
        await fetch(shelf, hub, signed, "open")
    assert not shelf.installed("open")


async def test_what_is_unknown_is_locked_at_the_first_pull(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    assert shelf.manifest.find("open").size is None
    await fetch(shelf, hub, signed, "open")
    locked = lock.read(shelf.folder)["open"]
    content = FILES["Test/open"]["model.gguf"]
    assert locked.revision == COMMIT
    assert [(file.size, file.sha256) for file in locked.files] == [(len(content), digest(content))]


async def test_later_pulls_bring_what_was_locked_or_nothing(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    await fetch(shelf, hub, signed, "open")
    shelf.remove("open", unlock=False)
    hub.files["Test/open"]["model.gguf"] = b"W" + FILES["Test/open"]["model.gguf"][1:]
    with pytest.raises(ModelRefused, match="another SHA-256"):
        await fetch(shelf, hub, signed, "open")
    hub.commit = NEWER
    with pytest.raises(NotFound, match="withdrawn"):
        await fetch(shelf, hub, signed, "open")
    shelf.remove("open", unlock=True)
    await fetch(shelf, hub, signed, "open")
    assert lock.read(shelf.folder)["open"].revision == NEWER


async def test_a_manifest_that_names_another_revision_is_told(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    await fetch(shelf, hub, signed, "pinned")
    own = shelf.folder / "models.toml"
    own.write_text(own.read_text(encoding="utf-8").replace(COMMIT, NEWER), encoding="utf-8")
    newer = Shelf(shelf.folder)
    assert newer.locate("pinned"), "what is installed goes on working"
    (newer.place("pinned") / "config.json").unlink()
    with pytest.raises(ModelRefused, match="models rm pinned --unlock --yes"):
        await fetch(newer, hub, signed, "pinned")


async def test_a_hub_that_answers_with_another_revision_is_refused(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    hub.answers_as = NEWER
    with pytest.raises(ModelRefused, match="another revision"):
        await fetch(shelf, hub, signed, "pinned")


async def test_of_a_damaged_model_only_what_is_damaged_is_fetched(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    await fetch(shelf, hub, signed, "pinned")
    (shelf.place("pinned") / "config.json").write_bytes(b'{"a": 2}')
    hub.asked.clear()
    assert await fetch(shelf, hub, signed, "pinned") == [Pulled("pinned", True)]
    assert {asked[1].rsplit("/", 1)[1] for asked in hub.asked} == {"config.json"}
    assert shelf.locate("pinned")


async def test_no_licence_no_pull(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    with pytest.raises(LicenceNotAccepted, match=r"MIT.*--accept-licence MIT"):
        await fetch(shelf, hub, signed, "pinned", accept=lambda _: False)
    assert not hub.asked
    with pytest.raises(LicenceNotAccepted, match=r"not stated.*--accept-licence open"):
        await fetch(shelf, hub, signed, "open", accept=lambda _: False)


async def test_a_licence_is_asked_for_once(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    await fetch(shelf, hub, signed, "pinned")
    (shelf.place("pinned") / "config.json").unlink()
    await fetch(shelf, hub, signed, "pinned", accept=lambda _: False)
    assert shelf.locate("pinned")


async def test_the_disk_keeps_room_for_the_recording(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    with pytest.raises(ModelSpace, match="must stay free"):
        await fetch(shelf, hub, signed, "pinned", free=lambda _: KEEP_FREE)
    assert not hub.asked
    await fetch(shelf, hub, signed, "pinned", free=lambda _: KEEP_FREE + len(MODEL) + 8)


async def test_the_token_goes_where_it_is_needed_and_nowhere_else(
    shelf: Shelf, hub: FakeHub, signed: Certificates
) -> None:
    with pytest.raises(HubTokenNeeded, match=r"models\.token_file"):
        await fetch(shelf, hub, signed, "gated")
    with pytest.raises(HubTokenNeeded, match="known accounts only"):
        await fetch(shelf, hub, signed, "gated", token="wrong")
    hub.tokens.clear()
    await fetch(shelf, hub, signed, "pinned", token=TOKEN)
    assert set(hub.tokens) == {""}
    await fetch(shelf, hub, signed, "gated", token=TOKEN)
    assert shelf.locate("gated")


async def test_the_token_does_not_follow_a_redirect_elsewhere(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    with serving(FakeHub(), signed.context) as other:
        hub.redirect = f"{other.url}/cdn"
        await fetch(shelf, hub, signed, "gated", token=TOKEN)
        assert set(other.tokens) == {""}
    assert f"Bearer {TOKEN}" in hub.tokens


async def test_no_redirect_leads_out_of_encryption(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.redirect = "http://127.0.0.1:9/cdn"
    with pytest.raises(ModelRefused, match="without encryption"):
        await fetch(shelf, hub, signed, "pinned")


async def test_an_unknown_certificate_is_named(shelf: Shelf, hub: FakeHub, tmp_path: Path) -> None:
    async with Hub(hub.url, DrivenClock(START_US), waits=()) as client:
        with pytest.raises(HubError) as told:
            await pull.pull(["pinned"], shelf, client, accept=yes, progress=quiet, free=plenty)
    text = str(told.value)
    assert "subject CN=Test Hub, issuer CN=Test Authority, valid from 2000-01-01 to 21" in text
    assert "models.ca_file" in text
    assert not hub.asked


async def test_an_expired_certificate_is_named(shelf: Shelf, tmp_path: Path) -> None:
    old = certificates(tmp_path, days=-2000)
    with serving(FakeHub(), old.context) as hub:
        with pytest.raises(HubError, match=r"to 2020-07-1\d.*look at this machine's clock"):
            await fetch(shelf, hub, old, "pinned")
        assert not hub.asked


async def test_a_certificate_for_another_name_is_refused(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.url = hub.url.replace("127.0.0.1", "localhost")
    with pytest.raises(HubError, match=r"models\.endpoint must be the name"):
        await fetch(shelf, hub, signed, "pinned")
    assert not hub.asked


async def test_no_network(shelf: Shelf, signed: Certificates) -> None:
    hub = FakeHub()
    with serving(hub, signed.context):
        pass
    with pytest.raises(HubError, match=r"cannot be reached.*models import"):
        await fetch(shelf, hub, signed, "pinned")


async def test_a_proxy_that_is_not_there(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    async with Hub(hub.url, DrivenClock(START_US), proxy="http://127.0.0.1:9", waits=()) as client:
        with pytest.raises(HubError, match=r"models\.proxy"):
            await pull.pull(["pinned"], shelf, client, accept=yes, progress=quiet, free=plenty)
    assert not hub.asked


@contextlib.asynccontextmanager
async def proxying(seen: list[str]) -> AsyncIterator[str]:
    """An HTTP proxy that tunnels (CONNECT, RFC 9110 §9.3.6); ``seen`` are the places that it was asked for."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        seen.append(place)
        host, _, port = place.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_through_a_proxy(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    seen: list[str] = []
    async with proxying(seen) as proxy:
        clock = DrivenClock(START_US)
        async with Hub(hub.url, clock, proxy=proxy, waits=()) as client:
            with pytest.raises(HubError, match="issuer CN=Test Authority"):
                await pull.pull(["pinned"], shelf, client, accept=yes, progress=quiet, free=plenty)
        async with Hub(hub.url, clock, proxy=proxy, ca_file=str(signed.authority), waits=()) as client:
            await pull.pull(["pinned"], shelf, client, accept=yes, progress=quiet, free=plenty)
    assert set(seen) == {hub.url.removeprefix("https://")}
    assert shelf.locate("pinned")


async def test_what_is_no_hub(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    hub.commit = "main"
    with pytest.raises(HubError, match=r"models\.endpoint"):
        await fetch(shelf, hub, signed, "open")


async def test_an_unknown_name_with_the_nearest(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    with pytest.raises(NotFound, match="did you mean pinned"):
        await fetch(shelf, hub, signed, "pined")


async def test_two_commands_do_not_mix(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    with lock.alone(shelf.folder), pytest.raises(ModelError, match="another command"):
        await fetch(shelf, hub, signed, "pinned")


async def test_a_full_disk_in_the_middle(
    shelf: Shelf, hub: FakeHub, signed: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: object, _chunk: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("omi_edge.models.hub.Part.add", full)
    with pytest.raises(ModelSpace, match="make room"):
        await fetch(shelf, hub, signed, "pinned")
    assert not shelf.installed("pinned")


def test_certificates_of_ones_own_must_be_readable(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n", encoding="utf-8")
    for name in ("none.pem", "empty.pem"):
        with pytest.raises(ConfigError, match=r"models\.ca_file"):
            Hub("https://127.0.0.1", DrivenClock(START_US), ca_file=str(tmp_path / name))


async def test_altered_after_the_pull(shelf: Shelf, hub: FakeHub, signed: Certificates) -> None:
    await fetch(shelf, hub, signed, "pinned")
    path = shelf.locate("pinned") / "weights" / "model.bin"
    path.write_bytes(b"x" + MODEL[1:])
    with pytest.raises(ModelAltered, match=r"weights/model\.bin .*omi-edge models pull pinned"):
        shelf.locate("pinned")
