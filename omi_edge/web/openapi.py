"""OpenAPI 3.1 from the route table; ``python -m omi_edge.web.openapi`` prints it as docs/openapi.json keeps it."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from omi_edge import __version__
from omi_edge.web import problems, wire
from omi_edge.web.route import Access, Route
from omi_edge.web.table import ROUTES

_REF = "#/components/schemas/{name}"


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the description of ``routes``, ready for JSON."""
    types = [kind for route in routes for kind in (*_kinds(route.returns), *_kinds(route.body))]
    schemas, components = msgspec.json.schema_components([*types, wire.Problem], ref_template=_REF)
    of = dict(zip(map(repr, types), schemas, strict=False))
    paths: dict[str, Any] = {}
    for route in routes:
        operations = paths.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(route, of)
        if route.head:
            operations["head"] = _operation(route, of, body=False)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "omi-edge",
            "version": __version__,
            "description": "A fully local memory for the wearer of an Omi pendant. Times are RFC 3339 in UTC; "
            "durations and offsets are seconds.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


@functools.cache
def description() -> dict[str, Any]:
    """Return the document of all routes, made when it is first asked for: most daemons never are. Blocks."""
    return document(ROUTES)


def text() -> str:
    """Return the document of all routes as it is committed."""
    return json.dumps(description(), indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def _operation(route: Route, of: dict[str, Any], *, body: bool = True) -> dict[str, Any]:
    method = route.method if body else "HEAD"
    name = f"{method} {route.path}"
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", name).strip("_").lower(),
        "summary": route.summary,
        "tags": [route.act.split(".")[0]],
        "parameters": _path_parameters(route) + _query_parameters(route),
        "responses": _answers(route, of, body),
    }
    if route.access is Access.OPEN:
        operation["security"] = [{}, {"token": []}]
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.body, of)}},
        }
    elif route.takes:
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": not route.optional, "content": dict.fromkeys(route.takes, binary)}
    return operation


def _answers(route: Route, of: dict[str, Any], body: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if body and route.returns is not None:
        content["application/json"] = {"schema": _schema(route.returns, of)}
    if body:
        content |= {media: {} for media in route.gives}
    answers: dict[str, Any] = {}
    for status in (route.status, *route.also):
        answers[str(status)] = {"description": HTTPStatus(status).phrase, **({"content": content} if content else {})}
    problem = {problems.MEDIA: {"schema": {"$ref": _REF.format(name="Problem")}}} if body else {}
    for status in _failures(route):
        answers.setdefault(
            str(status), {"description": HTTPStatus(status).phrase, **({"content": problem} if problem else {})}
        )
    return answers


def _kinds(declared: Any) -> tuple[Any, ...]:
    """Return the types that a route declares: none, one, or any of several."""
    if declared is None:
        return ()
    return declared if isinstance(declared, tuple) else (declared,)


def _schema(declared: Any, of: dict[str, Any]) -> dict[str, Any]:
    shapes = [of[repr(kind)] for kind in _kinds(declared)]
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _failures(route: Route) -> tuple[int, ...]:
    """Statuses of problems that a route may answer with."""
    statuses = [400, 403, 503]
    if route.access is not Access.OPEN:
        statuses.append(401)
    if route.upgrade:
        statuses.append(426)
    if "{id}" in route.path:
        statuses.append(404)
    if route.body is not None or route.takes:
        statuses += [413, 415, 507]
    if route.optional:
        statuses.append(409)
    if route.takes or route.head:
        statuses.append(422)
    if route.head:
        statuses.append(416)
    return tuple(sorted(statuses))


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = _query_schema(route.query)
    return [
        {"name": name, "in": "query", "required": name in schema["required"], "schema": shape}
        for name, shape in schema["properties"].items()
    ]


@functools.cache
def _query_schema(query: type[msgspec.Struct]) -> dict[str, Any]:
    (_,), components = msgspec.json.schema_components([query], ref_template=_REF)
    return dict(components[query.__name__])


if __name__ == "__main__":
    sys.stdout.write(text())
