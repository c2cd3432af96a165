"""Query parameters that lists share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from omi_edge.store.filters import Filters
from omi_edge.web import times

MAX_PAGE = 200
"""Things on one page; as many ids as one audit row holds."""

Id = Annotated[str, Meta(max_length=200)]
Moment = Annotated[str, Meta(max_length=40, extra_json_schema={"format": "date-time"})]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str, Meta(max_length=500)]


class Where(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a list is narrowed to."""

    source: Id | None = None
    device: Id | None = None
    client: Id | None = None
    since: Moment | None = None
    until: Moment | None = None
    speaker: Id | None = None
    conversation: Id | None = None

    def filters(self) -> Filters:
        """Return the store's filters. Raises BadInput for a time that is none."""
        return Filters(
            source=self.source,
            device=self.device,
            client=self.client,
            since_us=times.moment_or_none(self.since, "since"),
            until_us=times.moment_or_none(self.until, "until"),
            speaker=self.speaker,
            conversation=self.conversation,
        )


class Paged(Where, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of a list, or how much each source holds of it."""

    group_by: Literal["source"] | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class Timeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of what lies in a stretch of time, of one source or of all."""

    source: Id | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 50
    cursor: Cursor | None = None

    def chosen(self) -> dict[str, Any]:
        """Return the keywords of the store's lists. Raises BadInput for a time that is none."""
        return {
            "source_id": self.source,
            "since_us": times.moment_or_none(self.since, "since"),
            "until_us": times.moment_or_none(self.until, "until"),
            "limit": self.limit,
            "cursor": self.cursor,
        }
