"""Which bytes of a whole are wanted (RFC 9110 §14), and whether the client's part is still of this whole (§13.1.5)."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web

_RANGE = re.compile(r"bytes=\s*([0-9]{0,4000})-([0-9]{0,4000})\s*", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True):
    """Bytes ``first`` to ``last``, both included, of ``total``."""

    first: int
    last: int
    total: int
    whole: bool

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    @property
    def headers(self) -> dict[str, str]:
        """Headers that tell which part it is."""
        return {} if self.whole else {"Content-Range": f"bytes {self.first}-{self.last}/{self.total}"}


def wanted(request: web.Request, total: int, etag: str) -> Part:
    """Return the wanted part of ``total`` bytes, which is the whole without a range that we can serve.

    More than one range, another unit or a part of an older whole give the whole (RFC 9110 §14.2 allows it). Raises
    aiohttp's HTTPRequestRangeNotSatisfiable for a range behind the end.
    """
    whole = Part(0, total - 1, total, True)
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or match.groups() == ("", "") or request.headers.get("If-Range", etag) != etag:
        return whole
    start, end = match.groups()
    if start and end and int(end) < int(start):
        return whole  # not a valid range at all (RFC 9110 §14.1.1)
    first = int(start) if start else max(0, total - int(end))
    last = min(int(end), total - 1) if start and end else total - 1
    if first > last:
        raise web.HTTPRequestRangeNotSatisfiable(
            headers={"Content-Range": f"bytes */{total}"}, text="the range lies behind the end of the audio."
        )
    return Part(first, last, total, False)
