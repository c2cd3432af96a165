"""Every route of the API, in the order of the documentation."""

from __future__ import annotations

from omi_edge.web import (
    audio,
    bookmarks,
    conversations,
    cropped,
    devices,
    events,
    export,
    gaps,
    imports,
    ledger,
    memories,
    notices,
    offline,
    recording,
    search,
    sockets,
    sources,
    status,
    tasks,
    tickets,
    tokens,
    vault,
)
from omi_edge.web.route import Route

ROUTES: tuple[Route, ...] = (
    *status.ROUTES,
    *conversations.ROUTES,
    *audio.ROUTES,
    *memories.ROUTES,
    *tasks.ROUTES,
    *search.ROUTES,
    *events.ROUTES,
    *imports.ROUTES,
    *sources.ROUTES,
    *sockets.ROUTES,
    *cropped.ROUTES,
    *tickets.ROUTES,
    *devices.ROUTES,
    *offline.ROUTES,
    *recording.ROUTES,
    *gaps.ROUTES,
    *ledger.ROUTES,
    *bookmarks.ROUTES,
    *notices.ROUTES,
    *tokens.ROUTES,
    *export.ROUTES,
    *vault.ROUTES,
)
