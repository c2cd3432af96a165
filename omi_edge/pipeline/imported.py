"""What a recording that is taken in belongs to: a source of its own, or its pendant's, in its place on the timeline.

Of a recording in a pendant's source nothing is stored on top: where the source holds audio of that time already, and
where the owner withheld recording then, the recording's frames are left out, and how much that was is noted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from omi_edge.capture.wal import FrameCutter
from omi_edge.domain import Codec
from omi_edge.errors import AudioError, BadInput, NotFound
from omi_edge.ids import new_id
from omi_edge.pipeline.intake import Span
from omi_edge.store import devices, recordings, sources, withheld
from omi_edge.store.connection import Connection
from omi_edge.store.recordings import RecordingRow

LONGEST_US = 366 * 86_400 * 1_000_000
"""How far a recording is looked ahead for what is there already: none is a year long."""


class Imported(msgspec.Struct, frozen=True):
    """What is told about a recording before it comes."""

    name: str
    start_us: int
    time_known: bool
    client_id: str | None
    codec: Codec = Codec.OPUS_20MS
    digest: bytes | None = None
    """Keyed."""
    device: str | None = None
    """Name or address of a remembered pendant."""
    again: bool = False
    """Whether it is wanted although its content is there."""


class Begun(msgspec.Struct, frozen=True):
    """Where a recording is taken up."""

    codec: Codec
    from_us: int
    """What ends before is there."""
    leave_out: tuple[Span, ...] = ()
    """In order of time."""


def begin(conn: Connection, wanted: Imported, now_us: int) -> str:
    """Register a recording and return its id. Raises NotFound and BadInput, see Spine.begin_recording."""
    source_id = None if wanted.device is None else _source_of(conn, wanted.device, wanted.codec, now_us)
    if wanted.digest is not None and not wanted.again:
        same = recordings.known(conn, wanted.digest)
        if same is not None and same.complete:
            raise BadInput(
                f"this recording's audio is in source {same.source_id} already. Ask for it again to have it twice."
            )
        if same is not None and same.ended_us is None:
            raise BadInput("this recording is being taken in at this moment. Wait for its end.")
        if same is not None and (same.source_id == source_id or (same.own_source and source_id is None)):
            return recordings.reopen(conn, same.id).id
    recording_id = new_id("src" if source_id is None else "rec", now_us)
    if source_id is None:
        source_id = recording_id
        sources.add(
            conn, id=source_id, kind="file", name=wanted.name, device_id=None, client_id=wanted.client_id,
            codec=wanted.codec, created_us=now_us, time_known=wanted.time_known, first_us=wanted.start_us,
        )  # fmt: skip
    recordings.add(
        conn, id=recording_id, source_id=source_id, name=wanted.name, digest=wanted.digest, codec=wanted.codec,
        start_us=wanted.start_us, now_us=now_us,
    )  # fmt: skip
    return recording_id


def resume(conn: Connection, row: RecordingRow) -> Begun:
    """Say where a registered recording is taken up, and which stretches of it are left out."""
    if row.own_source:
        broke_off = row.end_us is not None
        return Begun(row.codec, recordings.rewind(conn, row) if broke_off else row.start_us)
    spans = recordings.taken_spans(conn, row.source_id, row.start_us, row.start_us + LONGEST_US)
    spans += [
        (held.start_us, held.end_us if held.end_us is not None else row.start_us + LONGEST_US)
        for held in withheld.listed(conn, row.start_us, row.start_us + LONGEST_US)
    ]
    return Begun(row.codec, row.end_us or row.start_us, _joined(spans))


def cut_off(conn: Connection, now_us: int) -> list[tuple[str, int]]:
    """Note the end of the recordings that a killed program was taking; return their ids, and how much is kept of each.

    Of one in a pendant's source that is not known: 0.
    """
    found = []
    for row in recordings.unfinished(conn):
        end_us = recordings.heard_until_us(conn, row) if row.own_source else None
        recordings.end(conn, row.id, end_us=end_us, left_out_us=0, complete=False, now_us=now_us)
        found.append((row.id, (end_us or row.start_us) - row.start_us))
    for source in sources.unfinished(conn):  # of a vault from before recordings were noted
        sources.set_ended(conn, source.id, now_us)
        found.append((source.id, source.heard_until_us - (source.first_us or 0) if source.heard_until_us else 0))
    return found


async def frames(body: AsyncIterator[bytes]) -> AsyncIterator[Sequence[bytes]]:
    """Cut a body into frames. Raises AudioError where it is none, after what came before."""
    cutter = FrameCutter()
    async for piece in body:
        yield cutter.feed(piece)
        if cutter.broken:
            raise AudioError("what was sent is not frames with their lengths before them; what came before is kept.")
    if cutter.rest:
        raise AudioError("what was sent ends within a frame; the whole ones are kept.")


def _source_of(conn: Connection, device: str, codec: Codec, now_us: int) -> str:
    wanted = device.strip().lower()
    found = [row for row in devices.list_all(conn) if wanted in (row.address.lower(), row.name.lower())]
    if not found:
        raise NotFound("no pendant of this name or address is remembered. `omi-edge devices` lists them.")
    pendant = found[0]
    known = sources.for_device(conn, pendant.address)
    if known is not None:
        return known.id
    return sources.add(
        conn, id=new_id("src", now_us), kind="pendant", name=pendant.name, device_id=pendant.address, client_id=None,
        codec=codec, created_us=now_us,
    ).id  # fmt: skip


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start_us, end_us in sorted(spans):
        if joined and start_us <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end_us))
        else:
            joined.append((start_us, end_us))
    return tuple(joined)
