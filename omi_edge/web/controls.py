"""The narrow controls that the API is handed: what it may ask of the running daemon beside reading the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock
from omi_edge.config import Config
from omi_edge.events import Bus
from omi_edge.store.database import Database
from omi_edge.store.vectors import VectorIndex
from omi_edge.web import wire


class Controls(Protocol):
    """Implemented by the daemon; handed to the application."""

    @property
    def db(self) -> Database:
        """The open vault; NotReady before it is open."""

    @property
    def index(self) -> VectorIndex:
        """Vectors in memory; NotReady before they are loaded."""

    @property
    def bus(self) -> Bus:
        """Where events are told."""

    @property
    def clock(self) -> Clock:
        """The one clock."""

    @property
    def config(self) -> Config:
        """Settings in force."""

    @property
    def folder(self) -> Path:
        """Data folder."""

    @property
    def ready(self) -> bool:
        """Whether requests are served."""

    def readiness(self) -> wire.Readiness:
        """Say whether requests are served."""

    async def health(self) -> wire.Health:
        """Check each part."""

    async def status(self) -> wire.Status:
        """Gather what `omi-edge status` shows."""

    async def close_conversation(self, conversation_id: str) -> None:
        """End an open conversation by hand; NotFound, or BadInput when it is not open."""

    async def begin_import(self, name: str, start_us: int, time_known: bool, client_id: str | None) -> str:
        """Register a recording to come; return its source id."""

    async def take_import(self, source_id: str, pcm: AsyncIterator[bytes]) -> None:
        """Run s16le mono 16 kHz PCM through the pipeline as fast as it can be stored; ends the source."""

    async def import_state(self, source_id: str) -> wire.ImportState:
        """Say where a recording stands; NotFound."""

    async def embed_query(self, text: str) -> npt.NDArray[np.float32] | None:
        """Return the unit vector of a query, None where the embedder cannot be used."""
