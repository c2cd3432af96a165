"""Every error as application/problem+json (RFC 9457)."""

from __future__ import annotations

import http

from aiohttp import web

from omi_edge.errors import BadInput, NotReady, OmiEdgeError, Unauthorized
from omi_edge.web import wire

MEDIA = "application/problem+json"
TYPE_PREFIX = "urn:omi-edge:problem:"
RETRY_SECONDS = "2"
"""Retry-After while the daemon starts; soon enough for a person who waits."""

_ADVICE = {
    404: "there is no such route; /openapi.json lists all.",
    405: "this route does not take that method; the Allow header lists those it takes.",
    413: "the body is too large.",
}


def problem_of(error: Exception) -> tuple[wire.Problem, dict[str, str]]:
    """Return the problem that tells ``error``, and its headers. What is not ours says nothing of itself."""
    if isinstance(error, OmiEdgeError):
        headers = {}
        if isinstance(error, Unauthorized):
            headers["WWW-Authenticate"] = 'Bearer realm="omi-edge"'
        if isinstance(error, NotReady):
            headers["Retry-After"] = RETRY_SECONDS
        field = error.field if isinstance(error, BadInput) else None
        return _problem(error.slug, error.status, str(error), field), headers
    if isinstance(error, web.HTTPException) and error.status >= 400:
        kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Content-Range")}
        detail = _ADVICE.get(error.status) or error.text or http.HTTPStatus(error.status).description
        slug = http.HTTPStatus(error.status).phrase.lower().replace(" ", "-")
        return _problem(slug, error.status, detail), kept
    detail = "something went wrong inside omi-edge; its log has the request id and the kind of error."
    return _problem(OmiEdgeError.slug, OmiEdgeError.status, detail), {}


def _problem(slug: str, status: int, detail: str, field: str | None = None) -> wire.Problem:
    return wire.Problem(TYPE_PREFIX + slug, slug.replace("-", " ").capitalize(), status, detail, field)
