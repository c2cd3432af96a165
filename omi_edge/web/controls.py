"""The narrow controls that the API is handed: what it may ask of the running daemon beside reading the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from omi_edge.clock import Clock
from omi_edge.config import Config
from omi_edge.domain import Codec, DeviceState, FetchProgress, Sighting, Withholding
from omi_edge.events import Bus
from omi_edge.store.bookmarks import BookmarkRow
from omi_edge.store.database import Database
from omi_edge.store.devices import DeviceRow
from omi_edge.store.offline import RunRow
from omi_edge.store.vectors import VectorIndex
from omi_edge.store.withheld import WithheldRow
from omi_edge.web import wire

if TYPE_CHECKING:
    from omi_edge.web.doors import Doors


class Sound(Protocol):
    """Takes the audio of one client's connection; one task at a time."""

    frames: int
    """Frames that were taken."""
    bad: int
    """Messages that were no audio."""
    heard_us: int
    """Length of the audio that was taken."""
    since_us: int
    """Boot time at which the client came."""

    @property
    def codec(self) -> str:
        """What the client sends, once that is known."""

    async def take(self, data: bytes) -> None:
        """Take one message; BadInput when it is clear that this is no audio of the codec that was named."""

    async def pause(self) -> None:
        """Bring what was taken into the file: the client says that it stops."""

    @property
    def speaking_since_us(self) -> int | None:
        """UTC at which the speech that goes on began, None while nobody speaks."""

    async def close(self, alive_us: int) -> None:
        """The connection has ended; its last sign of life came at ``alive_us``, boot time."""


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

    def check_recognizer(self, name: str) -> None:
        """Raise BadInput for a recogniser that does not exist."""

    def poke_jobs(self) -> None:
        """Say that jobs were queued."""

    async def known_import(self, content: bytes) -> tuple[bytes, wire.ImportState | None]:
        """Return the keyed digest of a content's SHA-256, and where it stands when it is there or on its way."""

    async def begin_import(
        self,
        name: str,
        start_us: int,
        time_known: bool,
        client_id: str | None,
        *,
        codec: Codec = Codec.OPUS_20MS,
        digest: bytes | None = None,
        device: str | None = None,
        again: bool = False,
    ) -> str:
        """Register a recording to come, in its pendant's source with ``device``, a name or an address; return its id.

        ``digest`` is the keyed one of its content. Raises NotFound for a pendant that is not remembered, and BadInput
        for content that is there already, unless ``again``.
        """

    async def take_import(self, recording_id: str, body: AsyncIterator[bytes], *, framed: bool = False) -> None:
        """Run a recording through the pipeline as fast as it can be stored; ends it.

        ``body`` is s16le mono 16 kHz PCM; with ``framed`` Opus frames, each with its length (u32 LE) before it.
        """

    async def import_state(self, recording_id: str) -> wire.ImportState:
        """Say where a recording stands; NotFound."""

    async def embed_query(self, text: str) -> npt.NDArray[np.float32] | None:
        """Return the unit vector of a query, None where the embedder cannot be used."""

    @property
    def doors(self) -> Doors:
        """Tickets, and the clients that send audio over sockets now."""

    def check_sound(self, encoding: str, rate: int) -> None:
        """Raise BadInput for audio that a socket cannot bring: see ``open_socket``."""

    def open_socket(self, source_id: str, encoding: str, rate: int, since_us: int) -> Sound:
        """Return the way in for a client's audio: ``auto``, ``opus``, ``pcm16`` or ``pcm8``, with samples a second.

        ``since_us``: when the client came, boot time.
        """

    def device_state(self, address: str) -> DeviceState:
        """Say how a remembered pendant stands now; OFF for one that nobody listens to."""

    async def scan_devices(self, seconds: float) -> list[Sighting]:
        """Look for pendants for so long; strongest signal first. Raises LinkUnavailable."""

    async def pair_device(self, address: str | None, name: str | None) -> DeviceRow:
        """Bond with a pendant and remember it under the owner's ``name``; None for the only one in sight.

        Raises PendantAbsent when there is none, BadInput that names how many there are when there are several, and
        others of LinkError's family.
        """

    async def forget_device(self, address: str) -> None:
        """End its link, remove the bond and forget it; NotFound. Its source and audio stay."""

    async def rename_device(self, address: str, name: str) -> DeviceRow:
        """Call a device otherwise; NotFound, or BadInput for a name that cannot be used."""

    async def set_device(
        self, address: str, *, led: int | None, mic_gain: int | None, own_name: str | None
    ) -> DeviceState:
        """Write settings into a connected pendant: percent, level 0 to 8, what it advertises; None leaves one alone.

        Raises NotFound, LinkLost when it is not connected, and BadInput for what this pendant does not offer.
        """

    async def device_storage(self, address: str) -> wire.DeviceStorage:
        """Ask a connected pendant what audio it stores; NotFound, LinkLost."""

    def offline_progress(self, address: str) -> FetchProgress:
        """Say how the fetching of what a pendant stored stands; AWAY for one that nobody listens to."""

    async def fetch_offline(self, address: str) -> None:
        """Look again for what a pendant stored; NotFound, NotReady, LinkLost when it is not connected, BadInput for one
        that stores nothing."""

    async def decide_offline(self, run_id: str, wanted: bool) -> RunRow:
        """Have a held recording heard, or let go of it undecoded; NotFound, BadInput for one that is not held."""

    async def withhold(self, kind: Withholding, seconds: float | None, by: str) -> WithheldRow:
        """Record nothing from now on, for so long or until ``resume``."""

    async def resume(self, by: str) -> WithheldRow | None:
        """Record again; return the stretch that ended, None when nothing was withheld."""

    async def add_bookmark(self, source_id: str | None, by: str) -> BookmarkRow:
        """Mark this moment of a source, for None of the one that is heard; NotFound, or BadInput when none is."""
