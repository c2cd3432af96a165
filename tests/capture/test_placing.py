"""When stored audio was heard: whole seconds of a clock that is not always right."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.blocks import Mark, Record
from omi_edge.capture.placing import Run, anchor, last_step_back, place
from tests.helpers import START_US

FRAME_US = 20_000
EPOCH = START_US // 1_000_000
FRAMES = (b"\xb8ab",) * 5


def heard(start_us: int, blocks: int, *, first: int = 0, off_us: int = 0, store: int = 1) -> list[Record]:
    """Blocks of 0.1 s from ``start_us`` on, by a clock that is ahead by ``off_us``."""
    ends = [start_us + off_us + (number + 1) * 100_000 for number in range(blocks)]
    return [
        Record(store, first + number, FRAMES, bytes(444), stamp=end // 1_000_000) for number, end in enumerate(ends)
    ]


@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(-(10**9), 10**9))
def test_a_run_is_placed_to_a_tenth_of_a_second(fraction: int, blocks: int, off_us: int) -> None:
    (run,) = place(heard(START_US + fraction, blocks, off_us=off_us), off_us, FRAME_US)
    assert run.start_us is not None
    assert abs(run.start_us - START_US - fraction) <= 50_000 + 1 and run.uncertainty_us <= 50_000
    assert run.duration_us == blocks * 100_000 and (run.first_seq, run.last_seq) == (0, blocks - 1)


@pytest.mark.parametrize(("pause", "runs"), [(0.0, 1), (1.9, 1), (3.1, 2), (100.0, 2)])
def test_a_jump_begins_a_new_run(pause: float, runs: int) -> None:
    later = START_US + 5_000_000 + round(pause * 1e6)
    placed = place(heard(START_US, 50) + heard(later, 50, first=50), 0, FRAME_US)
    assert len(placed) == runs
    assert placed[-1].end_us is not None
    assert runs == 1 or abs(placed[-1].end_us - later - 5_000_000) <= 50_000


def test_late_stamps_are_no_jump() -> None:
    records = heard(START_US, 50)
    records[20:33] = [
        Record(r.store, r.seq, r.frames, r.raw, stamp=EPOCH + 3) for r in records[20:33]
    ]  # the pendant's queue had waited
    (run,) = place(records, 0, FRAME_US)
    assert run.start_us is not None and abs(run.start_us - START_US) <= 100_000


def test_missing_records_begin_a_new_run() -> None:
    records = heard(START_US, 50)
    assert [(run.first_seq, run.last_seq) for run in place(records[:20] + records[25:], 0, FRAME_US)] == [
        (0, 19),
        (25, 49),
    ]


def test_batches_continue() -> None:
    records = heard(START_US + 300_000, 60)
    (first,) = place(records[:30], 0, FRAME_US)
    (second,) = place(records[30:], 0, FRAME_US, after=first)
    assert second.continues and not first.continues
    assert second.start_us == first.end_us and second.frames == first.frames
    (apart,) = place(heard(START_US + 60_000_000, 30, first=60), 0, FRAME_US, after=second)
    assert not apart.continues
    assert apart.start_us is not None and abs(apart.start_us - START_US - 60_000_000) <= 50_000


def test_a_clock_that_went_back_is_corrected_by_what_was_measured() -> None:
    """It crashed and went on from the time that was saved an hour before (dossier §4.3)."""
    hour = 3_600_000_000
    records = heard(START_US, 50) + heard(START_US + 60_000_000, 50, first=50, off_us=-hour)
    before, after = place(records, -hour, FRAME_US)
    assert before.start_us is not None and abs(before.start_us - START_US) <= 50_000
    assert after.start_us is not None and abs(after.start_us - START_US - 60_000_000) <= 50_000
    assert last_step_back((record.seq, record.stamp) for record in records) == 50


def test_a_clock_that_went_back_and_was_set_since_leaves_no_time() -> None:
    hour = 3_600_000_000
    records = heard(START_US, 50) + heard(START_US + 60_000_000, 50, first=50, off_us=-hour)
    records += heard(START_US + 120_000_000, 50, first=100)
    runs = place(records, 0, FRAME_US)
    assert [run.start_us is None for run in runs] == [False, True, False]
    anchored = anchor(runs, START_US + hour)
    assert anchored[1].guessed and anchored[1].end_us == anchored[2].start_us and not anchored[0].guessed


def test_a_run_of_the_future_has_no_time() -> None:
    records = heard(START_US + 3_600_000_000, 50)
    (run,) = place(records, 0, FRAME_US, until_us=START_US)
    assert run.start_us is None
    assert anchor([run], START_US)[0].end_us == START_US


def test_times_that_are_unknown() -> None:
    unknown = [Record(1, number, FRAMES, bytes(444)) for number in range(30)]
    booted = [Record(1, 30 + number, FRAMES, bytes(444), uptime=100 + number // 10) for number in range(30)]
    runs = place(unknown + booted + heard(START_US, 30, first=60), 0, FRAME_US)
    assert [(run.first_seq, run.start_us is None, run.uptime_us is None) for run in runs] == [
        (0, True, True),
        (30, True, False),
        (60, False, True),
    ]
    assert runs[1].uptime_us is not None and abs(runs[1].uptime_us - 99_950_000) <= 100_000
    first, second, third = anchor(runs, START_US)
    assert first.end_us == second.start_us and second.end_us == third.start_us


def test_files_begin_at_their_marks() -> None:
    raw = bytes(440)
    records = [Record(3, 0, FRAMES, raw, marks=(Mark(0, EPOCH),))]
    records += [Record(3, 440 * number, FRAMES, raw) for number in range(1, 10)]
    records += [Record(3, 4400, FRAMES, raw, marks=(Mark(2, EPOCH + 60),))]
    before, after = place(records, 1_000_000, FRAME_US)
    assert before.start_us == START_US - 1_000_000 + 500_000 and len(before.frames) == 52
    assert after.start_us == START_US + 59_000_000 + 500_000 and len(after.frames) == 3
    assert before.uncertainty_us == 500_000


def test_a_file_without_any_time_is_one_run() -> None:
    records = [Record(3, 440 * number, FRAMES, bytes(440)) for number in range(10)]
    (run,) = place(records, None, FRAME_US)
    assert run.start_us is None and len(run.frames) == 50
    (more,) = place([Record(3, 4400, FRAMES, bytes(440))], None, FRAME_US, after=run)
    assert more.continues and more.start_us is None


@given(
    st.lists(
        st.builds(
            Record,
            st.integers(1, 2),
            st.integers(0, 3),
            st.just(FRAMES) | st.just(()),
            st.just(bytes(444)) | st.just(bytes(440)),
            stamp=st.none() | st.integers(1_700_000_000, 1_700_000_020),
            uptime=st.none() | st.integers(0, 10),
        ),
        max_size=30,
    )
)
def test_every_frame_is_in_one_run(records: list[Record]) -> None:
    runs: list[Run] = place(records, 5, FRAME_US)
    assert [frame for run in runs for frame in run.frames] == [frame for r in records for frame in r.frames]
    known = [run.start_us for run in runs if run.start_us is not None]
    assert all(later >= earlier - 2_000_000 for earlier, later in itertools.pairwise(known))


def test_what_was_stored_after_what_is_known_did_not_begin_before_it() -> None:
    marked = [Record(2, 0, FRAMES, bytes(440), marks=(Mark(0, EPOCH - 12),))]
    (run,) = place(marked, None, FRAME_US)
    assert run.start_us is not None  # nothing contradicts its clock
    (run,) = place(marked, None, FRAME_US, known_us=START_US)
    assert run.start_us is None and anchor([run], START_US + 8_000_000)[0].end_us == START_US + 8_000_000


def test_what_a_clock_that_was_never_set_marks_has_no_time() -> None:
    first, second = place([Record(2, 0, FRAMES * 2, bytes(440), marks=(Mark(0, EPOCH), Mark(5, 0)))], 0, FRAME_US)
    assert first.start_us is not None and len(first.frames) == 5
    assert second.start_us is None and len(second.frames) == 5
