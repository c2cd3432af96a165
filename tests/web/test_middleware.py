"""Who may ask, what is refused, and how it is told."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable

import aiohttp
import msgspec
import pytest

from omi_edge.errors import DiskFull
from omi_edge.store import audit, clients, conversations, memories
from omi_edge.store import export as store_export
from omi_edge.web import wire
from omi_edge.web.route import Access, Route
from omi_edge.web.table import ROUTES
from tests.helpers import START_US
from tests.web.conftest import ADDRESS, CONVERSATION, Site

NEEDED = {"/v1/search": {"q": "apples"}, "/v1/corrections": {"conversation": CONVERSATION}}
"""What a route cannot be asked without."""
CONTENT = ("Apples", "apples", "dentist", "Omi", "OggS")


def _path(route: Route) -> str:
    path = route.path.replace("{run}", "run_0").replace("{version}", "ver_1")
    return path.replace("{id}", ADDRESS if route.path.startswith("/v1/devices/") else CONVERSATION)


async def _problem(response: aiohttp.ClientResponse) -> wire.Problem:
    assert response.content_type == "application/problem+json"
    problem = msgspec.json.decode(await response.read(), type=wire.Problem)
    assert problem.status == response.status
    return problem


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_nothing_without_a_valid_token(site: Site, route: Route) -> None:
    row, revoked = await site.controls.opened.write(lambda conn: clients.add(conn, "phone", "owner", START_US))
    await site.controls.opened.write(lambda conn: clients.revoke(conn, row.id, START_US))
    wrong: tuple[dict[str, str], ...] = (
        {},
        {"Authorization": "Bearer oe_wrong"},
        {"Authorization": f"Bearer {revoked}"},
        {"Authorization": "Basic x"},
    )
    for headers in wrong:
        async with site.tcp.request(route.method, _path(route), headers=headers) as response:
            if route.access is Access.OPEN:
                assert response.status == 200
                continue
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            text = await response.text()
            assert not any(word in text for word in CONTENT)
    rows = await site.rows()
    denied = [] if route.access is Access.OPEN else [("anonymous", route.act, "denied")] * len(wrong)
    assert rows == denied


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_valid_token_gets_further(site: Site, route: Route) -> None:
    async with site.tcp.request(route.method, _path(route), headers=site.bearer) as response:
        assert response.status not in (401, 403)
        assert response.status < 500
    rows = await site.rows()
    if route.access is Access.CONTENT:
        assert [(actor, act) for actor, act, _ in rows] == [("client:laptop", route.act)]


async def test_health_says_no_more_than_it_must_to_strangers(site: Site) -> None:
    async with site.tcp.get("/health") as response:
        stranger = msgspec.json.decode(await response.read(), type=wire.Health)
    async with site.tcp.get("/health", headers=site.bearer) as response:
        known = msgspec.json.decode(await response.read(), type=wire.Health)
    assert stranger.parts[0].advice == ""
    assert known.parts[0].advice != ""


async def test_health_and_readiness_speak_by_their_status(site: Site) -> None:
    site.controls.word = "critical"
    async with site.tcp.get("/health") as response:
        assert response.status == 503
        assert response.content_type == "application/json"
    site.controls.ready = False
    async with site.tcp.get("/readiness") as response:
        assert response.status == 503
        assert await response.json() == {"ready": False, "state": "starting"}


async def test_before_the_vault_is_open_the_rest_waits(site: Site) -> None:
    site.controls.ready = False
    for headers in ({}, site.bearer):
        async with site.tcp.get("/v1/conversations", headers=headers) as response:
            assert response.headers["Retry-After"]
            assert (await _problem(response)).type.endswith(":not-ready")
            assert response.status == 503


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "127.0.0.1@evil", "", "[::1].x", "0.0.0.0"]
)
async def test_a_foreign_host_header_is_refused(site: Site, host: str) -> None:
    async with site.tcp.get("/health", headers={"Host": host}) as response:
        assert (await _problem(response)).status in (400, 403)
    async with site.tcp.get("/v1/conversations", headers={"Host": host, **site.bearer}) as response:
        assert response.status in (400, 403)
        assert "Apples" not in await response.text()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:80"])
async def test_our_own_names_are_taken(site: Site, host: str) -> None:
    async with site.tcp.get("/readiness", headers={"Host": host}) as response:
        assert response.status == 200


async def test_an_unknown_query_parameter_is_named(site: Site) -> None:
    for route in ROUTES:
        if route.body is not None or route.takes or route.upgrade:
            continue
        async with site.tcp.request(
            route.method, _path(route), params={"sourse": "x"}, headers=site.bearer
        ) as response:
            problem = await _problem(response)
            assert (problem.status, problem.field) == (400, "sourse"), route.path
            assert "sourse" in problem.detail
    async with site.tcp.get("/v1/tasks?sourse=1", headers=site.bearer) as response:
        assert "did you mean source?" in (await _problem(response)).detail


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1000", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("since=yesterday", "since"),
        ("until=2026-03-02T09:00:00", "until"),
        ("since=1700000000", "since"),
        ("group_by=speaker", "group_by"),
    ],
)
async def test_a_bad_value_is_named_and_not_repeated(site: Site, query: str, field: str) -> None:
    async with site.tcp.get(f"/v1/conversations?{query}", headers=site.bearer) as response:
        problem = await _problem(response)
    assert (problem.status, problem.field) == (400, field)
    assert "yesterday" not in problem.detail


async def test_a_bad_cursor_is_told(site: Site) -> None:
    async with site.tcp.get("/v1/conversations?cursor=!!", headers=site.bearer) as response:
        assert (await _problem(response)).status == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "description"),
        (b'{"description": ""}', "description"),
        (b'{"description": "secret words", "priority": "urgent"}', "priority"),
        (b'{"description": "secret words", "colour": 1}', "colour"),
        (b'{"description": "secret words", "due": "soon"}', "due"),
        (b'{"description": "secret words", "due": "2026-02-31"}', "due"),
        (b"not json secret words", None),
        (b"\xff\xfe", None),
        (b'"secret words"', None),
    ],
)
async def test_a_bad_body_is_told_without_its_content(site: Site, body: bytes, field: str | None) -> None:
    headers = {"Content-Type": "application/json", **site.bearer}
    async with site.tcp.post("/v1/tasks", data=body, headers=headers) as response:
        problem = await _problem(response)
    assert (problem.status, problem.field) == (400, field)
    assert "secret" not in problem.detail


async def test_another_media_type_is_refused(site: Site) -> None:
    async with site.tcp.post("/v1/tasks", data=b"{}", headers=site.bearer) as response:
        assert (await _problem(response)).status == 415
    headers = {"Content-Type": "audio/mpeg", **site.bearer}
    async with site.tcp.post("/v1/imports?name=x", data=b"12", headers=headers) as response:
        assert (await _problem(response)).status == 415


async def test_a_huge_body_is_refused(site: Site) -> None:
    headers = {"Content-Type": "application/json", **site.bearer}
    async with site.tcp.post("/v1/tasks", data=io.BytesIO(b" " * (1 << 21)), headers=headers) as response:
        assert (await _problem(response)).status == 413


async def test_router_errors_are_problems(site: Site) -> None:
    async with site.tcp.get("/v1/nothing", headers=site.bearer) as response:
        assert (await _problem(response)).status == 404
    async with site.tcp.put("/v1/tasks", headers=site.bearer) as response:
        assert response.headers["Allow"] == "GET,POST"
        assert (await _problem(response)).status == 405
    async with site.tcp.get("/v1/nothing") as response:
        assert response.status == 401


async def test_an_unknown_id_is_not_found_and_audited(site: Site) -> None:
    for route in ROUTES:
        if "{id}" not in route.path or route.body is not None:
            continue
        path = _path(route).replace(CONVERSATION, "con_0").replace(ADDRESS, "con_0")
        async with site.tcp.request(route.method, path, headers=site.bearer) as response:
            assert (await _problem(response)).status == 404, route.path
        assert (await site.rows())[-1] == ("client:laptop", route.act, "not-found")


async def test_every_answer_has_an_id_and_stays_out_of_caches(site: Site) -> None:
    async with site.tcp.get("/v1/tasks", headers={"X-Request-ID": "mine-1", **site.bearer}) as response:
        assert response.headers["X-Request-ID"] == "mine-1"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    async with site.tcp.get("/v1/tasks", headers={"X-Request-ID": "a b{}"}) as response:
        assert re.fullmatch(r"req_[0-9a-z]{26}", response.headers["X-Request-ID"])


async def test_an_unexpected_error_says_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the apples are secret")

    monkeypatch.setattr(conversations, "listing", broken)
    with caplog.at_level(logging.DEBUG):
        async with site.tcp.get("/v1/conversations", headers=site.bearer) as response:
            problem = await _problem(response)
    assert problem.status == 500
    assert "secret" not in problem.detail
    assert "secret" not in caplog.text
    assert (await site.rows())[-1][1:] == ("conversation.list", "failed")


def _failing(error: Exception) -> Callable[..., int]:
    def append(*_: object, **__: object) -> int:
        raise error

    return append


@pytest.mark.parametrize("error", [DiskFull("full"), RuntimeError("broken")], ids=["ours", "foreign"])
async def test_without_an_audit_row_nothing_leaves(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(audit, "append", _failing(error))
    for route in ROUTES:
        if route.access is not Access.CONTENT or route.method != "GET" or route.upgrade:
            continue
        site.controls.begun[CONVERSATION] = ("Omi", 0, True, None)
        params = NEEDED.get(route.path, {})
        async with site.tcp.get(_path(route), params=params, headers=site.bearer) as response:
            text = await response.text()
            if response.status == 404:
                assert route.path in ("/v1/tasks/{id}", "/v1/memories/{id}", "/v1/reprocess/{id}")
                continue
            assert response.status == 503, route.path
            assert msgspec.json.decode(text, type=wire.Problem).type.endswith(":audit-unavailable")
            assert not any(word in text for word in CONTENT)


async def test_without_an_audit_row_nothing_changes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "append", _failing(RuntimeError("broken")))
    task = (await site.controls.opened.read(lambda conn: memories.list_tasks(conn, limit=1))).items[0]
    for method, path, body in (
        ("POST", "/v1/tasks", {"description": "x"}),
        ("PATCH", f"/v1/tasks/{task.id}", {"state": "completed"}),
        ("DELETE", f"/v1/tasks/{task.id}", None),
        ("POST", "/v1/tokens", {"name": "thief"}),
        ("POST", f"/v1/conversations/{CONVERSATION}/close", None),
    ):
        async with site.tcp.request(method, path, json=body, headers=site.bearer) as response:
            assert response.status == 503
            assert (await _problem(response)).type.endswith(":audit-unavailable")
    async with site.tcp.post("/v1/imports?name=x", data=b"1234", headers=site.bearer) as response:
        assert response.status == 503
    rows = await site.controls.opened.read(lambda conn: memories.list_tasks(conn, limit=10))
    assert rows.items == [task]
    assert [row.name for row in await site.controls.opened.read(clients.list_all)] == ["laptop"]
    assert (site.controls.closed, site.controls.begun) == ([], {})


async def test_an_export_is_audited_before_its_first_byte(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    document = store_export.document

    def watched(*args: object, **kwargs: object) -> object:
        made.append("document")
        return document(*args, **kwargs)  # type: ignore[arg-type]

    def append(*_: object, **__: object) -> int:
        made.append("row")
        raise RuntimeError

    monkeypatch.setattr(store_export, "document", watched)
    monkeypatch.setattr(audit, "append", append)
    async with site.tcp.get("/v1/export", headers=site.bearer) as response:
        assert response.status == 503
    assert "document" not in made


async def test_a_revoked_token_hears_nothing_more(site: Site) -> None:
    async with site.tcp.get("/v1/events", headers=site.bearer) as response:
        assert await response.content.readline() == b": listening\n"
        site.controls.bus.publish("segment", START_US, text="Apples")
        while (line := await response.content.readline()) and not line.startswith(b"data:"):
            pass
        assert b"Apples" in line
        tokens = (await site.unix.request("GET", "/v1/tokens", returns=wire.Page[wire.TokenItem])).items
        await site.unix.request("DELETE", f"/v1/tokens/{tokens[0].id}", returns=type(None))
        site.controls.bus.publish("segment", START_US, text="dentist")
        rest = await response.content.read()
    assert b"dentist" not in rest


@pytest.mark.parametrize(("head", "kind"), [(b"RIFF0000WAVE", "WAV"), (b"ID3\x04", "MP3"), (b"\0\0\0 ftypM4A ", "MP4")])
async def test_a_file_is_not_taken_for_bare_samples(site: Site, head: bytes, kind: str) -> None:
    async with site.tcp.post("/v1/imports?name=x", data=head + bytes(400), headers=site.bearer) as response:
        problem = await _problem(response)
    assert (problem.status, kind in problem.detail, "omi-edge import" in problem.detail) == (422, True, True)
    assert site.controls.begun == {}
