"""What really happened in a simulated week, and how the vault and its ledger are held against it: for soak_week."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from omi_edge.capture.blocks import unpack
from omi_edge.capture.stored import GATHER_RECORDS
from omi_edge.clock import DrivenClock
from omi_edge.daemon import Daemon
from omi_edge.domain import AudioChunk, LedgerState, Withholding
from omi_edge.store import audio, ledger, offline, sources
from omi_edge.store.connection import Connection
from omi_edge.store.ledger import Moment, Span
from omi_edge.store.offline import LossRow, RunRow, RunState
from omi_edge.virtual.faults import Fate, Truth
from omi_edge.virtual.holdings import Block, StoredFate
from omi_edge.virtual.pendant import Pendant

EVER_US = 1 << 62
SECOND_US = 1_000_000
HEARD = (LedgerState.SPEECH, LedgerState.SILENCE)
HOME = (StoredFate.FREED, StoredFate.SELF_FREED)
"""Fates of what must have come home."""
GONE = (StoredFate.SELF_FREED_UNSEEN, StoredFate.OVERWRITTEN)
"""Fates of what the daemon can know to be lost."""
MARGIN_US = 4 * SECOND_US
"""Around what was withheld stored audio may be left out: stamps and clocks tell whole seconds, and a run is placed to
half a second."""
CRASH_US = 3 * SECOND_US
"""What was heard so short before a crash may not have been in the file yet: a chunk lasts two seconds, and the gate
decides up to a second later."""
PLACE_US = 3 * SECOND_US
"""How far stored audio may be off: whole seconds of stamp and clock, up to 1.28 s in the pendant's queue. More only
where the owner is told so, and then by no more than a second over what is told."""


class Walk(msgspec.Struct):
    """One absence; boot times."""

    number: int
    start_us: int
    acts: list[str]
    back_us: int = 0
    end_us: int = 0
    wrong: list[str] = []


class Diary:
    """What the wearer said and what happened, in boot time."""

    def __init__(self, pendant: Pendant, walls: list[tuple[int, int]]) -> None:
        self.pendant = pendant
        self.walls = walls
        """From when on the wall clock was so far ahead of the boot clock."""
        self.began_us = walls[0][0]
        self.said: dict[bytes, int] = {}
        """When each frame began. Frames that were said twice are not told apart and left out."""
        self.twice: set[bytes] = set()
        self.withheld: list[tuple[int, int, Withholding]] = []
        self.downs: list[tuple[int, int]] = []
        self.asleep: list[tuple[int, int]] = []
        """When the microphone slept, connected,"""
        self.off: list[tuple[int, int]] = []
        """or the pendant was switched off."""
        self.crashes: list[int] = []
        self.walks: list[Walk] = []

    def say(self, start_us: int, packets: Sequence[bytes]) -> None:
        """Note frames that begin at ``start_us``, one after another."""
        frame_us = self.pendant.profile.codec.frame_us
        for index, packet in enumerate(packets):
            if packet in self.said:
                self.twice.add(packet)
            self.said[packet] = start_us + index * frame_us

    def walk_at(self, boot_us: int) -> Walk | None:
        """Return the walk on which that was."""
        index = bisect_right(self.walks, boot_us, key=lambda walk: walk.start_us) - 1
        if index < 0 or boot_us >= (self.walks[index].end_us or EVER_US):
            return None
        return self.walks[index]

    def at(self, boot_us: int) -> str:
        """Say on which walk that was."""
        walk = self.walk_at(boot_us)
        if walk is None:
            return "at home"
        return f"walk {walk.number} ({', '.join(walk.acts) or 'nothing else'})"

    def utc(self, boot_us: int, later_us: int) -> list[int]:
        """Return what the wall clock would show for a moment, as it was set then or until ``later_us``."""
        at = bisect_right([since for since, _ in self.walls], boot_us) - 1
        return [boot_us + wall for since, wall in self.walls[max(0, at) :] if since <= max(boot_us, later_us)]


class Found(msgspec.Struct):
    """What the vault holds."""

    chunks: list[AudioChunk]
    runs: list[RunRow]
    losses: list[LossRow]
    waiting: list[bytes]
    spans: list[Span]
    """Of the ledger, in boot time."""
    read_boot_us: dict[int, int]
    """When each reading was."""


async def compare(daemon: Daemon, clock: DrivenClock, diary: Diary) -> list[str]:
    """Return what does not agree."""
    now = Moment(clock.boot_id(), clock.boot_us(), clock.utc_us())

    def work(conn: Connection) -> Found:
        source = sources.for_device(conn, diary.pendant.address)
        assert source is not None
        offset_us = ledger.now_us(conn, now) - now.boot_us
        spans = [
            msgspec.structs.replace(span, start_us=span.start_us - offset_us, end_us=span.end_us - offset_us)
            for span in ledger.account(conn, source.id, 0, EVER_US, now)
        ]
        raw = [bytes(row[0]) for row in conn.execute("SELECT raw FROM offline_records")]
        return Found(
            audio.between(conn, source.id, 0, EVER_US), offline.latest(conn, source.id, 1 << 30)[::-1],
            offline.losses(conn, source.id, 1 << 30), raw, spans,
            {n: at_us - offset_us for n, at_us in conn.execute("SELECT n, read_us + ledger_us FROM offline_readings")},
        )  # fmt: skip

    found = await daemon.db.read(work)
    wrong = [f"{diary.at(walk.start_us)}: {line}" for walk in diary.walks for line in walk.wrong]
    died = _died(diary, found)
    wrong += _frames(diary, found, died)
    wrong += _losses(diary, found, died)
    wrong += _ledger(diary, found, now.boot_us, died)
    print(
        f"  {len(diary.said)} frames were said, {len(found.chunks)} chunks, {len(found.runs)} runs "
        f"({dict(Counter(run.state.value for run in found.runs))}), {len(found.losses)} losses, "
        f"{len(found.spans)} spans"
    )
    return wrong


def _died(diary: Diary, found: Found) -> list[Block]:
    """Return the blocks that a pendant freed by itself while the daemon that received them died: nobody has them.

    They were not durable yet. At most what a client gathers before it writes, for each crash; others are not returned.
    """
    here = {packet for chunk in found.chunks for packet in chunk.packets} | {
        frame for raw in found.waiting for frame in unpack(raw[-440:])[0]
    }
    died: dict[int, list[Block]] = {}
    for block in diary.pendant.storage.blocks:
        walk = diary.walk_at(block.spans[0][0]) if block.spans else None
        crashed = walk is not None and "daemon crash in the drain" in walk.acts
        if (
            walk is not None
            and crashed
            and block.fate is StoredFate.SELF_FREED
            and here.isdisjoint(unpack(block.raw)[0])
        ):
            died.setdefault(walk.number, []).append(block)
    return [block for blocks in died.values() if len(blocks) <= GATHER_RECORDS for block in blocks]


def _frames(diary: Diary, found: Found, died: Sequence[Block]) -> list[str]:
    """Everything that was said and can be here is here once, in its place; nothing else is."""
    judge = _Judge(diary, found, died)
    problems: dict[str, list[int]] = {}
    for packet, boot_us in diary.said.items():
        for what in () if packet in diary.twice else judge.wrong_with(packet, boot_us):
            problems.setdefault(f"{diary.at(boot_us)}: {what}", []).append(boot_us)
    lines = [
        f"{what}: {len(at)} frames from {(at[0] - diary.began_us) / 1e6:.1f} s on" for what, at in problems.items()
    ]
    invented = sum(len(at) for packet, at in judge.places.items() if packet not in diary.said)
    if invented:
        lines.append(f"{invented} frames that nobody said")
    return lines


class _Judge:
    """Says what is wrong with a frame, by what the pendant did with it and what the vault has of it."""

    def __init__(self, diary: Diary, found: Found, died: Sequence[Block]) -> None:
        self._diary = diary
        self._frame_us = diary.pendant.profile.codec.frame_us
        self.places: dict[bytes, list[int]] = {}
        """Where each frame lies in the vault, in UTC."""
        for chunk in found.chunks:
            for index, packet in enumerate(chunk.packets):
                if packet:
                    self.places.setdefault(packet, []).append(chunk.start_us + index * self._frame_us)
        self._lost_with_it = {frame for block in died for frame in unpack(block.raw)[0]}
        self._stored = {
            frame: block.fate
            for block in diary.pendant.storage.blocks
            for frame, _ in zip(unpack(block.raw)[0], block.spans, strict=True)
        }
        self._straddling = _straddling(diary.pendant)
        self._waited = _waited(diary.pendant)
        records = [unpack(raw[-440:])[0] for raw in found.waiting]
        self._waiting = {frame for frames in records for frame in frames}
        # a record that two runs share waits as long as one of them does
        self._may_be_here = {
            frame for frames in records if not all(one in self.places for one in frames) for frame in frames
        }
        self._live = _Fates(diary.pendant.record)
        self._guessed = [
            (run.start_us, run.start_us + run.frames * self._frame_us)
            for run in found.runs
            if run.guessed and run.start_us is not None
        ]
        self._told = sorted(
            (run.start_us, run.start_us + run.frames * self._frame_us, run.uncertainty_us)
            for run in found.runs
            if not run.guessed and run.start_us is not None
        )
        # a run may lie that much to one side, and what lies that near to what was withheld is left out
        self._unsure_us = {
            walk.number: 2 * max((run.uncertainty_us for run in _runs_of(walk, found) if not run.guessed), default=0)
            for walk in diary.walks
        }

    def wrong_with(self, packet: bytes, boot_us: int) -> Iterator[str]:
        """Yield what is wrong with a frame that was said at ``boot_us``."""
        at = self.places.get(packet, [])
        fate = self._stored[packet] if packet in self._stored else self._live.at(boot_us)
        withheld = self._diary.withheld
        if len(at) > 1:
            yield f"there {len(at)} times ({fate})"
        if at and any(start <= boot_us and boot_us + self._frame_us <= end for start, end, _ in withheld):
            yield f"withheld, and there ({fate})"
        if at and packet in self._waiting and packet not in self._may_be_here:
            yield f"there, and waits ({fate})"
        must = (fate in HOME and packet not in self._lost_with_it) or fate is Fate.DELIVERED
        if must and not at and packet not in self._waiting and not self._excused(packet, boot_us, fate):
            yield f"missing ({fate})"
        if at and not must and fate not in GONE:
            yield f"there, though it cannot be ({fate})"
        guessed = any(start <= moment < end for moment in at for start, end in self._guessed)
        if at and not guessed and packet not in self._straddling:
            walk = self._diary.walk_at(boot_us)
            back_us = boot_us if walk is None else walk.end_us
            off_us = min(abs(at[0] - utc_us) for utc_us in self._diary.utc(boot_us, back_us))
            if off_us > max(PLACE_US, self._told_us(at[0]) + SECOND_US):
                yield f"off by {off_us / 1e6:.0f} s or so ({fate})"

    def _told_us(self, moment: int) -> int:
        """Return how unsure the owner is told that the place of stored audio is: files without a time tell only order.

        Their audio lies at the end of the absence that it nearly fills.
        """
        index = bisect_right(self._told, (moment, EVER_US, 0)) - 1
        if index < 0 or moment >= self._told[index][1]:
            return 0
        return self._told[index][2]

    def _excused(self, packet: bytes, boot_us: int, fate: StoredFate | Fate | None) -> bool:
        """Say whether a frame may be missing: too near to what was withheld, or heard right before a crash."""
        walk = self._diary.walk_at(boot_us)
        margin_us = MARGIN_US + (0 if walk is None else self._unsure_us[walk.number])
        near = any(
            start - margin_us <= moment <= end + margin_us
            for moment in (boot_us, self._straddling.get(packet, boot_us), self._waited.get(packet, boot_us))
            for start, end, _ in self._diary.withheld
        )
        return near or (fate is Fate.DELIVERED and any(0 <= one - boot_us <= CRASH_US for one in self._diary.crashes))


def _losses(diary: Diary, found: Found, died: Sequence[Block]) -> list[str]:
    """What the device freed by itself or overwrote is named, records exactly."""
    gone = sum(block.fate in GONE for block in diary.pendant.storage.blocks) + len(died)
    named = sum(loss.records for loss in found.losses)
    return [] if gone == named else [f"{named} records are named as lost, {gone} are"]


def _ledger(diary: Diary, found: Found, now_us: int, died: Sequence[Block]) -> list[str]:
    """It sums to the elapsed time, and each state to what happened."""
    spans = found.spans
    wrong = []
    total_us = sum(span.length_us for span in spans)
    if total_us != spans[-1].end_us - spans[0].start_us or spans[-1].end_us != now_us:
        wrong.append(f"the ledger sums to {total_us} of {now_us - spans[0].start_us} us")
    if any(a.end_us != b.start_us for a, b in pairwise(spans)):
        wrong.append("the ledger has a hole or overlaps")
    truth = diary.pendant.record
    withheld = _union((start, end) for start, end, _ in diary.withheld)
    dead = {id(block) for block in died}
    home = [
        span
        for block in diary.pendant.storage.blocks
        if block.fate in HOME and id(block) not in dead
        for span in block.spans
    ]  # fmt: skip
    stored = _union(home)
    delivered = _union((t.start_us, t.end_us) for t in truth if t.fate is Fate.DELIVERED)
    for kind, state in ((Withholding.MUTED, LedgerState.MUTED), (Withholding.OFF_RECORD, LedgerState.OFF_RECORD)):
        true = _union((start, end) for start, end, one in diary.withheld if one is kind)
        wrong += _agree(diary, state.value, _of(spans, state), true, 0.1)
    spoken = _of(spans, *HEARD)
    wrong += _agree(diary, "heard", spoken, _without(delivered, withheld), 0.5)
    wrong += _recovered(diary, found, _without(stored, withheld))
    for state, true in (
        (LedgerState.DEVICE_SILENT, _union(diary.asleep)),
        (LedgerState.PENDANT_OFF, _union(diary.off)),
        (LedgerState.DAEMON_DOWN, _without(_without(_union(diary.downs), stored), withheld)),
    ):
        there = _of(spans, state)
        missing = _length(_without(true, there))
        if missing > SECOND_US * max(1, len(true)):
            wrong.append(f"{state.value}: {missing / 1e6:.1f} s of {_length(true) / 1e6:.1f} s are something else")
    lost = _length(_of(spans, LedgerState.LOST))
    true_lost = _length(_union((t.start_us, t.end_us) for t in truth if t.fate in (Fate.LOST, Fate.DROPPED)))
    true_lost += sum(end - start for b in diary.pendant.storage.blocks if b.fate in GONE for start, end in b.spans)
    true_lost += sum(end - start for block in died for start, end in block.spans)
    if abs(lost - true_lost) > 1.5 * SECOND_US * (1 + len(found.losses)):
        wrong.append(f"lost: {lost / 1e6:.1f} s are noted, {true_lost / 1e6:.1f} s were")
    return wrong


def _runs_of(walk: Walk, found: Found) -> list[RunRow]:
    return [run for run in found.runs if walk.start_us <= found.read_boot_us[run.reading_n] < walk.end_us]


def _recovered(diary: Diary, found: Found, true: list[tuple[int, int]]) -> list[str]:
    """What came home covers what was stored, walk by walk, as exactly as the times of its runs were known.

    Of a run that was only guessed the length must agree; of one that is held nothing is entered.
    """
    wrong = []
    here = _of(found.spans, LedgerState.RECOVERED)
    for walk in diary.walks:
        runs = _runs_of(walk, found)
        if any(run.state is RunState.HELD for run in runs):
            continue
        noted, stored = _inside(here, walk.start_us, walk.end_us), _inside(true, walk.start_us, walk.end_us)
        extra, missing = _length(_without(noted, stored)), _length(_without(stored, noted))
        left_out = sum(run.left_out_us for run in runs)
        limit = 4e6 + left_out + 2 * sum(run.uncertainty_us for run in runs)
        unequal = abs(_length(noted) - _length(stored)) > 3e6 + left_out
        if max(extra, missing) > limit or (unequal and not any(run.guessed for run in runs)):
            wrong.append(
                f"{diary.at(walk.start_us)}: recovered {extra / 1e6:.2f} s too much, {missing / 1e6:.2f} s too little"
            )
    return wrong


def _agree(
    diary: Diary, what: str, found: list[tuple[int, int]], true: list[tuple[int, int]], seconds: float
) -> list[str]:
    """Compare two sets of stretches, each walk by itself and in all; ends may be off by ``seconds``."""
    wrong = []
    limit_us = seconds * 1e6
    marks = [walk.start_us for walk in diary.walks] + [EVER_US]
    for low, high in zip([0, *marks], marks, strict=False):
        here, there = _inside(found, low, high), _inside(true, low, high)
        extra, missing = _length(_without(here, there)), _length(_without(there, here))
        if extra > limit_us or missing > limit_us:
            wrong.append(f"{diary.at(low)}: {what} {extra / 1e6:.2f} s too much, {missing / 1e6:.2f} s too little")
    return wrong


def _of(spans: Iterable[Span], *states: LedgerState) -> list[tuple[int, int]]:
    return _union((span.start_us, span.end_us) for span in spans if span.state in states)


def _union(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > start:
            found.append((start, end))
    return found


def _inside(spans: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    return [(max(a, low), min(b, high)) for a, b in spans if a < high and b > low]


def _without(spans: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found = []
    for start, end in spans:
        for low, high in _inside(others, start, end):
            if low > start:
                found.append((start, low))
            start = high
        if end > start:
            found.append((start, end))
    return found


def _length(spans: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in spans)


def _straddling(pendant: Pendant) -> dict[bytes, int]:
    """Return the frames of which nothing tells when they were recorded, and when they seem to have been.

    A block that is not full waits in the pendant's RAM while the microphone sleeps, or until the next walk, and bears
    the time at which it was full at last: when the next frame had no room in it.
    """
    found: dict[bytes, int] = {}
    for block in pendant.storage.blocks:
        frames = unpack(block.raw)[0]
        if block.spans and block.at_us - block.spans[-1][1] > SECOND_US:
            found.update(dict.fromkeys(frames, block.at_us))
        for index in range(len(block.spans) - 1, 0, -1):
            if block.spans[index][0] - block.spans[index - 1][1] > SECOND_US:
                found.update(dict.fromkeys(frames[:index], block.spans[index][0]))
                break
    return found


def _waited(pendant: Pendant) -> dict[bytes, int]:
    """Return the frames of each first block after a pause, and when the last frame before it was.

    Where that was withheld the whole block is left out: nothing tells whether some of its frames are older.
    """
    found: dict[bytes, int] = {}
    end_us = None
    for block in pendant.storage.blocks:
        frames = unpack(block.raw)[0]
        if end_us is not None and block.spans and block.spans[0][0] - end_us > SECOND_US:
            found.update(dict.fromkeys(frames, end_us))
        end_us = block.spans[-1][1] if block.spans else end_us
        for index in range(len(block.spans) - 1, 0, -1):
            if block.spans[index][0] - block.spans[index - 1][1] > SECOND_US:
                found.update(dict.fromkeys(frames[index:], block.spans[index - 1][1]))
                break
    return found


class _Fates:
    """What became of what was played, looked up by time."""

    def __init__(self, record: Sequence[Truth]) -> None:
        self._record = record
        self._starts = [truth.start_us for truth in record]

    def at(self, boot_us: int) -> Fate | None:
        """Return what became of a moment; None when nothing was played then."""
        index = bisect_right(self._starts, boot_us) - 1
        return self._record[index].fate if index >= 0 and boot_us < self._record[index].end_us else None
