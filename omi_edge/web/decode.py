"""Queries and bodies into structs, with a sentence for whatever does not fit; values are never quoted."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from omi_edge.errors import BadInput
from omi_edge.validation import explained

BODY_LIMIT = 1 << 20
"""Bytes of a JSON body; the longest texts of wire.py need less than a tenth."""

S = TypeVar("S", bound=msgspec.Struct)


def query(values: MultiMapping[str], into: type[S], *, strict: bool = True) -> S:
    """Return the query of a request. Raises BadInput for an unknown, repeated or unfitting parameter.

    Unknown ones are left alone when not ``strict``.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(into)}
    for name in values:
        if name not in fields:
            if not strict:
                continue
            raise BadInput(f"unknown query parameter {_shown(name)}{_nearest(name, fields)}", _shown(name))
        if len(values.getall(name)) > 1:
            raise BadInput(f"{name} was given more than once.", name)
    missing = [name for name, field in fields.items() if field.required and name not in values]
    if missing:
        raise BadInput(f"the query parameter {missing[0]} is missing.", missing[0])
    try:
        return msgspec.convert({name: values[name] for name in values if name in fields}, into, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error


async def body(request: web.Request, into: Any) -> Any:
    """Return the JSON body of a request. Raises BadInput, or aiohttp's own for its media type and size."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the body must be application/json.")
    data = await request.read()
    try:
        return msgspec.json.decode(data, type=into)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput("the body is not valid JSON.") from error


async def expect_later(request: web.Request) -> None:
    """Leave the header Expect to ``go_on``. Raises aiohttp's HTTPExpectationFailed for one that is not known."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="the only Expect that is known is 100-continue.")


async def go_on(request: web.Request) -> None:
    """Tell a client that waits for it to send its body (RFC 9110 §15.2.1)."""
    if "Expect" in request.headers and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # as aiohttp's own answer: the response has not begun


def check_media(request: web.Request, accepted: tuple[str, ...]) -> None:
    """Raise aiohttp's HTTPUnsupportedMediaType unless the body is of one of ``accepted``."""
    if not any(request.content_type == media.split(";")[0].lower() for media in accepted):
        raise web.HTTPUnsupportedMediaType(text=f"the body must be {' or '.join(accepted)}.")


def _explained(error: msgspec.ValidationError) -> BadInput:
    """Say what was expected, without the value that came."""
    text = str(error)
    if unknown := re.search(r"unknown field `(.*?)`", text):
        name = _shown(unknown.group(1))
        return BadInput(f"the body has an unknown field {name}.", name)
    if missing := re.search(r"missing required field `(\w+)`", text):
        return BadInput(f"the body lacks the field {missing.group(1)}.", missing.group(1))
    field, wanted = explained(error)
    return BadInput(f"{field or 'the body'} must be {wanted}.", field)


def _shown(name: str) -> str:
    """A name that the client made up, short and harmless."""
    return json.dumps(re.sub(r"[^\w.-]", "?", name)[:40])[1:-1]


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}." if known else "; this route takes none."
