"""The description of the API: true, complete, and the one that is committed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from omi_edge.web import openapi
from omi_edge.web.route import Access
from omi_edge.web.table import ROUTES
from tests.web.conftest import Site

DOCUMENT = json.loads(openapi.text())
COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_committed_description_is_up_to_date() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == openapi.text(), "python -m omi_edge.web.openapi > docs/openapi.json"


def test_it_has_every_route_and_no_other() -> None:
    described = {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations} - {
        ("HEAD", route.path) for route in ROUTES if route.head
    }
    assert described == {(route.method, route.path) for route in ROUTES}


def test_every_reference_leads_somewhere() -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', openapi.text()))
    assert names == set(DOCUMENT["components"]["schemas"]) | names
    assert names <= set(DOCUMENT["components"]["schemas"])


def test_only_open_routes_do_without_a_token() -> None:
    for route in ROUTES:
        operation: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
        assert ("security" in operation) == (route.access is Access.OPEN)
        assert ("401" in operation["responses"]) == (route.access is not Access.OPEN)


def test_a_list_by_source_has_its_own_shape() -> None:
    answer = DOCUMENT["paths"]["/v1/conversations"]["get"]["responses"]["200"]["content"]["application/json"]
    assert len(answer["schema"]["anyOf"]) == 2


async def test_it_is_served(site: Site) -> None:
    async with site.tcp.get("/openapi.json", headers=site.bearer) as response:
        assert response.status == 200
        assert await response.json() == DOCUMENT
