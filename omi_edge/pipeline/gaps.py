"""What is missing of a source's timeline, written down: what the owner withheld, and the rest with its causes."""

from __future__ import annotations

from collections.abc import Sequence

from omi_edge.capture.absence import Hole, Witness
from omi_edge.clock import Clock
from omi_edge.domain import Cause, Codec, Gap
from omi_edge.events import Bus
from omi_edge.pipeline.hearing import Missing
from omi_edge.pipeline.ledger import Ledger
from omi_edge.store import gaps
from omi_edge.store.connection import Connection
from omi_edge.store.database import Database

SEAM_US = 1_000_000
"""What is missing for less beside a muted stretch belongs to it: bursts come every 100 ms, and packets under way when
the owner spoke are thrown away with the rest."""


class Gaps:
    """Settles the holes of all sources."""

    def __init__(self, db: Database, clock: Clock, bus: Bus, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger
        self._clock = clock
        self._bus = bus

    async def settle(self, source_id: str, missing: Missing, codec: Codec, witness: Witness | None) -> list[Gap]:
        """Store a stretch without frames in gaps and ledger, and tell it. VaultError when it cannot be stored."""
        to_boot_us = missing.end_boot_us - missing.end_us
        spans = await self._db.read(
            lambda conn: [
                (low_us - to_boot_us, high_us - to_boot_us, kind.value)
                for low_us, high_us, kind in self._ledger.withheld_between(
                    conn, source_id, missing.start_us + to_boot_us, missing.end_boot_us
                )
            ]
        )
        hole = Hole(
            missing.end_boot_us - (missing.end_us - missing.start_us), missing.end_boot_us, missing.lost, missing.jump,
            missing.reconnected, missing.quiet_us, codec.frame_us, bool(spans),
        )  # fmt: skip
        causes = witness.causes(hole) if witness is not None else (Cause.UNKNOWN,)
        frames = missing.lost + hole.lost_in_flight
        found = [
            Gap(source_id, start_us, end_us, (Cause(kind),) if kind else causes, 0 if kind else frames)
            for start_us, end_us, kind in apart(missing.start_us, missing.end_us, spans)
        ]

        def commit(conn: Connection) -> None:
            for gap in found:
                gaps.put(conn, gap)
                self._account(conn, missing, gap)
            # what the pendant had stored may have been here before the first live frame
            for start_us, end_us in self._ledger.recovered(conn, source_id, hole.start_us, hole.end_us):
                gaps.fill(conn, source_id, start_us - to_boot_us, end_us - to_boot_us)

        await self._db.write(commit)
        for gap in found:
            self._bus.publish(
                "gap", self._clock.utc_us(), source_id=source_id, start_us=gap.start_us, end_us=gap.end_us,
                causes=list(gap.causes), frames=gap.frames,
            )  # fmt: skip
        return found

    def _account(self, conn: Connection, missing: Missing, gap: Gap) -> None:
        """Enter a gap into the ledger, by boot time: the wall clock may have been stepped inside it."""
        to_boot_us = missing.end_boot_us - missing.end_us
        start_us = missing.start_boot_us if gap.start_us == missing.start_us else gap.start_us + to_boot_us
        self._ledger.missing(conn, gap.source_id, start_us, gap.end_us + to_boot_us, gap.causes)


def apart(start_us: int, end_us: int, spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Cut [start, end) into what the owner withheld, each piece with its kind, and the rest, with "". In order.

    ``spans``: from, to and kind of what was withheld.
    """
    pieces: list[tuple[int, int, str]] = []
    at_us = start_us
    for begin_us, finish_us, withheld in sorted(spans):
        low_us = max(at_us, begin_us)
        high_us = min(end_us, finish_us)
        if high_us <= low_us:
            continue
        if low_us - at_us > SEAM_US:
            pieces.append((at_us, low_us, ""))
            at_us = low_us
        pieces.append((at_us, high_us, withheld))
        at_us = high_us
    if end_us - at_us > SEAM_US or not pieces:
        pieces.append((at_us, end_us, ""))
    elif at_us < end_us:
        first_us, _, kind = pieces[-1]
        pieces[-1] = (first_us, end_us, kind)
    return pieces
