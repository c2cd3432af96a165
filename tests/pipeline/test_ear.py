"""What is stored of a run, and the place in its records up to which it is, belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.blocks import RECORD_BYTES
from omi_edge.domain import AudioChunk, Codec, Frame
from omi_edge.pipeline.ear import Ear, same
from omi_edge.pipeline.fitting import fitted
from omi_edge.pipeline.hearing import ChunkReady, Heard
from omi_edge.store.offline import ReadingRow, RecordRow, RunRow, RunState
from tests.helpers import START_US

FRAME_US = 20_000
READING = ReadingRow(1, None, START_US, START_US, 0, 0, Codec.OPUS_20MS, 1, None, None, True)


class ScriptedHearing:
    """Gives out a chunk for each frame; a segment is open as long as frames begin with an odd byte."""

    def __init__(self) -> None:
        self.frames = 0
        self.open = False

    def feed(self, frames: Sequence[tuple[Frame, int]]) -> list[Heard]:
        out: list[Heard] = []
        for frame, end_us in frames:
            self.frames += 1
            self.open = frame.data[0] % 2 == 1
            out.append(ChunkReady(AudioChunk("src", end_us - FRAME_US, Codec.OPUS_20MS, (frame.data,))))
        return out

    def checkpoint(self) -> tuple[list[Heard], int] | None:
        return None if self.open else ([], self.frames)

    def finish(self) -> list[Heard]:
        self.frames = 0
        self.open = False
        return []


def ring_record(seq: int, frames: Sequence[bytes]) -> RecordRow:
    raw = b"".join(bytes([len(frame)]) + frame for frame in frames)
    return RecordRow(1, seq, 1, None, (b"\0" * 4 + raw).ljust(RECORD_BYTES, b"\0"))


def run_of(frames: int, heard: int = 0, at: tuple[int, int] = (0, 0)) -> RunRow:
    return RunRow(
        1, "run_x", "src", 1, RunState.PLACED, 1, 0, 999, *at, frames, heard, START_US, 0, False, None, None, 0, False
    )


def ear_of(run: RunRow, leave_out: Sequence[tuple[int, int]] = ()) -> Ear:
    hearing: Any = ScriptedHearing()
    return Ear(hearing, run, READING, START_US, leave_out)


def packets(items: Sequence[ChunkReady]) -> list[bytes]:
    return [packet for item in items if item.chunk is not None for packet in item.chunk.packets]


@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=9), min_size=1, max_size=30),
    st.integers(1, 7),
    st.lists(st.integers(0, 200), max_size=3),
    st.integers(0, 30),
)
def test_whenever_it_is_broken_off_the_rest_begins_right_behind_what_was_stored(
    blocks: list[list[tuple[bool, int]]], piece: int, left_out: list[int], breaks_after: int
) -> None:
    """Records with any number of frames, heard in pieces; broken off once, and begun anew from the stored place."""
    count = 0
    rows = []
    for seq, block in enumerate(blocks):
        frames = []
        for speech, size in block:
            frames.append(bytes([2 * (count % 100) + speech + 2]) + count.to_bytes(2, "big") + b"x" * size)
            count += 1
        rows.append(ring_record(seq, frames))
    leave = [(START_US + at * FRAME_US, START_US + (at + 2) * FRAME_US) for at in left_out]
    stored: list[bytes] = []
    spans: list[tuple[int, int]] = []
    heard, at = 0, (0, 0)
    for attempt in range(2):
        ear = ear_of(run_of(count, heard, at), leave)
        waiting = [row for row in rows if row.seq >= at[0]]
        for index, row in enumerate(waiting):
            frames_of = ear.frames_of([row], count)
            for first in range(0, len(frames_of), piece):
                ear.feed(frames_of[first : first + piece], frozenset())
            if ear.settled > ear.committed:
                items, some, _ = ear.take()
                stored += packets(items)
                spans += some
                heard, at = ear.settled, ear.place_of(ear.settled)
                ear.committed = ear.settled
            if attempt == 0 and index == breaks_after:
                break
        else:
            ear.finish(count)
            items, some, _ = ear.take()
            stored += packets(items)
            spans += some
            break
    wanted = [
        number
        for number in range(count)
        if not any(
            low < START_US + (number + 1) * FRAME_US and START_US + number * FRAME_US < high for low, high in leave
        )
    ]
    assert [int.from_bytes(packet[1:3], "big") for packet in stored] == wanted
    assert sum(high - low for low, high in spans) == len(wanted) * FRAME_US


def test_what_is_there_already_is_found_only_in_stretches() -> None:
    frames = [bytes([n]) for n in range(20)]
    assert same(frames, frozenset(frames[3:8])) == [(3, 8)]
    assert same(frames, frozenset(frames[3:7])) == []
    assert same([b"a"] * 20, frozenset([b"a"])) == []  # alike by chance, as digital silence is
    assert same(frames, frozenset()) == []


def test_a_run_is_moved_out_of_the_way_of_what_is_there() -> None:
    assert fitted(100, 50, [], 10) == 100
    assert fitted(100, 50, [(90, 105)], 10) == 105
    assert fitted(100, 50, [(90, 115)], 10) == 100  # further than it may be off
    assert fitted(100, 50, [(145, 200)], 10) == 95
    assert fitted(100, 50, [(80, 98), (145, 200)], 10) == 98
