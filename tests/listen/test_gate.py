from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omi_edge.domain import SAMPLE_RATE
from omi_edge.listen.gate import (
    COULD_BE,
    HANG_OVER_SECONDS,
    LONGEST_SECONDS,
    MINIMUM_SECONDS,
    PADDING_SECONDS,
    PRE_ROLL_SECONDS,
    SPLIT_SEARCH_SECONDS,
    Closed,
    Confirmed,
    Decided,
    GateEvent,
    Opened,
    SpeechGate,
)
from omi_edge.listen.vad import CHUNK_SAMPLES, SileroVad
from tests.listen.sound import CONVERSATION, SHORT, WORDS, events, noise, recording, script, segments

CHUNK_SECONDS = CHUNK_SAMPLES / SAMPLE_RATE
REACH = 2 * SAMPLE_RATE
CLICK_CHUNKS = round(MINIMUM_SECONDS / CHUNK_SECONDS)
PAUSE_CHUNKS = round(HANG_OVER_SECONDS / CHUNK_SECONDS)

Curve = list[float]


class CurveVad:
    """Gives a curve of probabilities, whatever it hears."""

    def __init__(self, curve: Curve) -> None:
        self._curve = np.array(curve, np.float32)
        self._at = 0
        self._rest = 0

    def probabilities(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        count, self._rest = divmod(self._rest + len(pcm), CHUNK_SAMPLES)
        self._at += count
        return self._curve[self._at - count : self._at]


def gated(curve: Curve, *, rest: int = 0, block: int = 1600, **levels: float) -> list[GateEvent]:
    """Events of a run whose chunks have these probabilities; ``rest`` samples follow the last whole chunk."""
    gate = SpeechGate(CurveVad(curve), **levels)
    out: list[GateEvent] = []
    total = len(curve) * CHUNK_SAMPLES + rest
    for first in range(0, total, block):
        out += gate.accept(np.zeros(min(block, total - first), np.int16))
    return out + gate.finish()


def closed(happened: Sequence[GateEvent]) -> list[Closed]:
    return [event for event in happened if isinstance(event, Closed)]


def kept(happened: Sequence[GateEvent], total: int) -> npt.NDArray[np.bool_]:
    """Which samples are stored."""
    keep, at = np.zeros(total, bool), 0
    for event in happened:
        if isinstance(event, Decided):
            assert event.end > at, "decisions go forward"
            keep[at : event.end] = event.keep
            at = event.end
    assert at == total, "everything is decided in the end"
    return keep


def for_seconds(*parts: tuple[float, float]) -> Curve:
    """Parts of (seconds, probability)."""
    return [probability for seconds, probability in parts for _ in range(round(seconds / CHUNK_SECONDS))]


def strict(curve: Curve, open_at: float = 0.5, close_at: float = 0.35) -> npt.NDArray[np.bool_]:
    """Which chunks are speech by the hysteresis, told another way: what is over the lower bar and in one stretch with
    something before it that was over the upper."""
    over = np.array(curve) >= close_at
    out = np.zeros(len(curve), bool)
    for _, stretch in itertools.groupby(range(len(curve)), lambda index: bool(over[index])):
        chunks = list(stretch)
        first = next((index for index in chunks if over[index] and curve[index] >= open_at), None)
        if first is not None:
            out[first : chunks[-1] + 1] = True
    return out


def utterances(speech: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.intp]]:
    """Chunks of speech in groups that no pause of the hang-over parts."""
    chunks = np.flatnonzero(speech)
    return np.split(chunks, np.flatnonzero(np.diff(chunks) > PAUSE_CHUNKS) + 1) if len(chunks) else []


# --- random curves --------------------------------------------------------------------------------------------------

LEVELS = st.one_of(
    st.sampled_from([0.0, 0.09, COULD_BE, 0.3, 0.34, 0.36, 0.49, 0.5, 0.9, 1.0]),
    st.floats(0, 1, width=32),
)
STRETCHES = st.one_of(
    st.integers(1, 12), st.integers(15, 80), st.sampled_from([18, 19, 46, 47, 61, 62, 63, 64, 125, 126]),
    st.integers(200, 1200),
)  # fmt: skip
CURVES = st.lists(st.tuples(LEVELS, STRETCHES), min_size=1, max_size=14).map(
    lambda parts: [float(np.float32(level)) for level, length in parts for _ in range(length)]
)
FLICKER = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300)
RUNS = st.one_of(
    CURVES, FLICKER, st.tuples(CURVES, FLICKER, CURVES).map(lambda three: [*three[0], *three[1], *three[2]])
)
RESTS = st.integers(0, CHUNK_SAMPLES - 1)


@settings(max_examples=60, deadline=None)
@given(RUNS, RESTS)
@example([0.0] * 200 + [COULD_BE] + [0.0] * 200, 0)
def test_all_within_two_seconds_of_possible_speech_is_stored_and_nothing_else(curve: Curve, rest: int) -> None:
    total = len(curve) * CHUNK_SAMPLES + rest
    near, surely_not = np.zeros(total, bool), np.ones(total, bool)
    for chunk in np.flatnonzero(np.array(curve, np.float32) >= np.float32(COULD_BE)):
        first, last = chunk * CHUNK_SAMPLES, (chunk + 1) * CHUNK_SAMPLES
        near[max(0, first - REACH) : last + REACH] = True
        surely_not[max(0, first - REACH - CHUNK_SAMPLES) : last + REACH + CHUNK_SAMPLES] = False
    keep = kept(gated(curve, rest=rest), total)
    assert keep[near].all()
    assert not keep[surely_not].any()


@settings(max_examples=60, deadline=None)
@given(RUNS, RESTS)
def test_segments_are_in_order_apart_short_enough_stored_and_hold_all_speech(curve: Curve, rest: int) -> None:
    total = len(curve) * CHUNK_SAMPLES + rest
    happened = gated(curve, rest=rest)
    found = closed(happened)
    inside = np.zeros(total, bool)
    for segment in found:
        assert 0 <= segment.start < segment.end <= total
        assert segment.end - segment.start <= LONGEST_SECONDS * SAMPLE_RATE
        assert 0 <= segment.speech <= segment.end - segment.start
        inside[segment.start : segment.end] = True
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert kept(happened, total)[inside].all()
    for chunks in utterances(strict(curve)):
        heard = [inside[chunk * CHUNK_SAMPLES : (chunk + 1) * CHUNK_SAMPLES].all() for chunk in chunks]
        assert all(heard) or len(chunks) < CLICK_CHUNKS


@settings(max_examples=60, deadline=None)
@given(RUNS, RESTS)
def test_a_segment_opens_is_confirmed_and_closes_and_nothing_confirmed_is_cut_off(curve: Curve, rest: int) -> None:
    start: int | None = None
    confirmed = 0
    for event in gated(curve, rest=rest):
        match event:
            case Opened():
                assert start is None
                start = confirmed = event.start
            case Confirmed():
                assert start is not None
                assert event.end >= confirmed
                confirmed = event.end
            case Closed():
                assert start == event.start
                assert confirmed <= event.end
                start = None
            case Decided():
                pass
    assert start is None


@settings(max_examples=60, deadline=None)
@given(RUNS, RESTS, st.integers(1, 5000))
def test_it_does_not_matter_how_the_samples_arrive(curve: Curve, rest: int, block: int) -> None:
    total = len(curve) * CHUNK_SAMPLES + rest
    pieces, whole = gated(curve, rest=rest, block=max(block, total // 200)), gated(curve, rest=rest, block=total)
    assert closed(pieces) == closed(whole)
    np.testing.assert_array_equal(kept(pieces, total), kept(whole, total))


@settings(max_examples=60, deadline=None)
@given(RUNS, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
@example([0.5] * 20 + [0.06] * 200, 0.05, 0.4)
def test_what_is_transcribed_is_stored_whatever_the_settings(curve: Curve, one: float, other: float) -> None:
    close, open_ = sorted((one, other))
    total = len(curve) * CHUNK_SAMPLES
    happened = gated(curve, open=open_, close=close)
    keep = kept(happened, total)
    assert all(keep[segment.start : segment.end].all() for segment in closed(happened))


# --- one rule at a time ---------------------------------------------------------------------------------------------


def seconds(segment: Closed) -> tuple[float, float]:
    return segment.start / SAMPLE_RATE, segment.end / SAMPLE_RATE


def test_it_opens_at_one_probability_and_closes_at_a_lower_one() -> None:
    assert not closed(gated(for_seconds((2, 0.0), (3, 0.49), (2, 0.0))))
    (segment,) = closed(gated(for_seconds((2, 0.0), (1, 0.5), (2, 0.36), (2, 0.34))))
    assert segment.end / SAMPLE_RATE == pytest.approx(5.0 + PADDING_SECONDS, abs=2 * CHUNK_SECONDS)
    assert segment.speech / SAMPLE_RATE == pytest.approx(3.0, abs=2 * CHUNK_SECONDS)


def test_the_levels_can_be_set() -> None:
    curve = for_seconds((2, 0.0), (3, 0.71), (2, 0.6), (2, 0.0))
    assert not closed(gated(curve, open=0.8, close=0.5))
    (segment,) = closed(gated(curve, open=0.7, close=0.65))
    assert segment.speech / SAMPLE_RATE == pytest.approx(3.0, abs=2 * CHUNK_SECONDS)


def test_a_segment_begins_three_tenths_before_the_speech_and_ends_a_tenth_after_it() -> None:
    (segment,) = closed(gated(for_seconds((3.2, 0.0), (2.4, 0.9), (3, 0.0))))
    assert seconds(segment) == pytest.approx((3.2 - PRE_ROLL_SECONDS, 5.6 + PADDING_SECONDS), abs=1e-3)
    assert (PRE_ROLL_SECONDS, PADDING_SECONDS) == (0.3, 0.1)


def test_the_beginning_of_the_run_ends_the_pre_roll() -> None:
    (segment,) = closed(gated(for_seconds((0.128, 0.0), (2, 0.9), (3, 0.0))))
    assert segment.start == 0


def test_a_quarter_of_a_second_opens_and_less_does_not() -> None:
    quiet = [0.0] * 100
    assert closed(gated(quiet + [0.9] * CLICK_CHUNKS + quiet))
    click = gated(quiet + [0.9] * (CLICK_CHUNKS - 1) + quiet)
    assert not any(isinstance(event, Opened | Closed) for event in click)
    assert kept(click, 207 * CHUNK_SAMPLES)[100 * CHUNK_SAMPLES : 107 * CHUNK_SAMPLES].all(), "but it is stored"
    assert pytest.approx(0.25, abs=CHUNK_SECONDS / 2) == CLICK_CHUNKS * CHUNK_SECONDS


def test_it_opens_while_the_speech_goes_on() -> None:
    gate = SpeechGate(CurveVad([0.9] * 20))
    opened = [chunk for chunk in range(20) if Opened(0) in gate.accept(np.zeros(CHUNK_SAMPLES, np.int16))]
    assert opened == [CLICK_CHUNKS - 1]


def test_a_pause_shorter_than_the_hang_over_does_not_part() -> None:
    assert len(closed(gated(for_seconds((2, 0.9), (0.55, 0.0), (2, 0.9), (2, 0.0))))) == 1
    one, other = closed(gated(for_seconds((2, 0.9), (0.65, 0.0), (2, 0.9), (2, 0.0))))
    assert one.end < other.start


@pytest.mark.parametrize("pause", [0.65, 1.0, 1.4])
def test_short_speech_is_joined_to_its_neighbour(pause: float) -> None:
    (segment,) = closed(gated(for_seconds((3, 0.0), (0.512, 0.9), (pause, 0.0), (2, 0.9), (3, 0.0))))
    assert segment.start / SAMPLE_RATE == pytest.approx(2.7, abs=CHUNK_SECONDS)
    assert segment.end / SAMPLE_RATE == pytest.approx(3.512 + pause + 2 + PADDING_SECONDS, abs=2 * CHUNK_SECONDS)


def test_short_speech_without_a_neighbour_is_transcribed_with_its_surroundings() -> None:
    (segment,) = closed(gated(for_seconds((3.2, 0.0), (0.512, 0.9), (4, 0.0))))
    assert seconds(segment) == pytest.approx((2.9, 4.212), abs=CHUNK_SECONDS)
    assert segment.end - segment.start >= SAMPLE_RATE
    assert segment.speech / SAMPLE_RATE == pytest.approx(0.512)


def test_short_speech_at_the_end_of_a_run_is_not_lost() -> None:
    (segment,) = closed(gated(for_seconds((3.2, 0.0), (0.512, 0.9))))
    assert segment.end / SAMPLE_RATE == pytest.approx(3.712)


def test_a_click_does_not_part_or_lengthen_what_comes_later() -> None:
    (segment,) = closed(gated([0.0] * 100 + [0.9] * 3 + [0.0] * 100 + [0.9] * 60 + [0.0] * 100))
    assert segment.start == 203 * CHUNK_SAMPLES - round(PRE_ROLL_SECONDS * SAMPLE_RATE)
    assert segment.speech == 60 * CHUNK_SAMPLES


@pytest.mark.parametrize("quietest", [24.5, 26.0, 29.5])
def test_thirty_seconds_are_cut_where_it_is_quietest(quietest: float) -> None:
    talk = for_seconds((45, 0.95))
    middle = round(quietest / CHUNK_SECONDS)
    talk[middle - 3 : middle + 4] = [0.6] * 7
    one, other = closed(gated(talk + [0.0] * 60))
    assert one.start == 0
    assert one.end == other.start
    assert one.end / SAMPLE_RATE == pytest.approx(quietest, abs=2 * CHUNK_SECONDS)
    assert one.speech + other.speech == pytest.approx(45 * SAMPLE_RATE, abs=3 * CHUNK_SAMPLES)


def test_a_single_dip_does_not_beat_a_longer_pause_and_the_ends_are_not_quieter_than_they_are() -> None:
    talk = for_seconds((45, 0.95))
    talk[820] = 0.4  # 26.24 s
    talk[870:880] = [0.5] * 10  # 27.84 s to 28.16 s
    one, _ = closed(gated(talk + [0.0] * 60))
    assert 27.8 < one.end / SAMPLE_RATE < 28.2


def test_the_end_of_a_run_does_not_make_a_segment_longer_than_thirty_seconds() -> None:
    chunks = round(LONGEST_SECONDS * SAMPLE_RATE) // CHUNK_SAMPLES
    (segment,) = closed(gated([0.9] * chunks, rest=CHUNK_SAMPLES - 1))
    assert (segment.start, segment.end) == (0, LONGEST_SECONDS * SAMPLE_RATE)


def test_ten_minutes_of_talk_are_cut_into_pieces_that_touch() -> None:
    found = closed(gated(for_seconds((600, 0.95), (3, 0.0)), block=16_000))
    assert found[0].start == 0
    assert found[-1].end / SAMPLE_RATE == pytest.approx(600 + PADDING_SECONDS, abs=CHUNK_SECONDS)
    assert all(one.end == other.start for one, other in itertools.pairwise(found))
    shortest = LONGEST_SECONDS - SPLIT_SEARCH_SECONDS
    assert all(shortest - 0.1 <= (one.end - one.start) / SAMPLE_RATE <= LONGEST_SECONDS for one in found[:-1])


def test_silence_is_decided_as_it_comes_and_not_kept_waiting() -> None:
    gate = SpeechGate(CurveVad([0.0] * 1000))
    decided = 0
    for chunk in range(1000):
        for event in gate.accept(np.zeros(CHUNK_SAMPLES, np.int16)):
            assert isinstance(event, Decided)
            assert not event.keep
            decided = event.end
        assert (chunk + 1) * CHUNK_SAMPLES - decided <= REACH + CHUNK_SAMPLES
    assert gate.finish() == [Decided(1000 * CHUNK_SAMPLES, keep=False)]


def test_an_empty_run_says_nothing() -> None:
    assert SpeechGate(CurveVad([])).finish() == []
    assert gated([], rest=100) == [Decided(100, keep=False)]


# --- the real VAD ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CONVERSATION, WORDS[0], SHORT], ids=lambda path: path.stem)
def test_every_spoken_line_is_transcribed_and_stored(path: Path) -> None:
    total = len(recording(path))
    keep, inside = kept(events(path), total), np.zeros(total, bool)
    for segment in segments(path):
        inside[segment.start : segment.end] = True
    for line in script(path).lines:
        spoken = slice(round(line.start * SAMPLE_RATE), round(line.end * SAMPLE_RATE))
        assert keep[spoken].all()
        assert inside[spoken].all()


def test_the_pause_between_two_conversations_is_not_stored() -> None:
    keep = kept(events(CONVERSATION), len(recording(CONVERSATION)))
    pause = slice(round(68.5 * SAMPLE_RATE), round(76 * SAMPLE_RATE))
    assert not keep[pause].any()
    assert keep.mean() < 0.95


@pytest.mark.parametrize("pink", [False, True], ids=["white", "pink"])
@pytest.mark.parametrize("loudness", [1.0, 0.1], ids=["loud", "20 dB down"])
def test_no_word_of_a_noisy_recording_is_left_out_of_the_store(pink: bool, loudness: float) -> None:
    samples = recording(WORDS[0]).astype(np.float64)
    lines = script(WORDS[0]).lines
    spoken = np.zeros(len(samples), bool)
    for line in lines:
        spoken[round(line.start * SAMPLE_RATE) : round(line.end * SAMPLE_RATE)] = True
    level = float(np.sqrt(np.mean(samples[spoken] ** 2))) * 10 ** (-5 / 20)  # 5 dB SNR
    noisy = (samples + noise(len(samples) / SAMPLE_RATE, level, pink=pink)[: len(samples)]) * loudness
    gate = SpeechGate(SileroVad())
    happened = gate.accept(noisy.clip(-32768, 32767).astype(np.int16)) + gate.finish()
    assert kept(happened, len(samples))[spoken].all()


def test_a_split_at_the_very_end_is_not_too_late_either() -> None:
    """Speech that hardly fades: the quietest point is in the last chunk of the thirty seconds."""
    curve = [0.0] * 10 + [0.5] * 18 + [0.36] * 908 + [0.0] * 3
    assert all(event.end - event.start <= LONGEST_SECONDS * SAMPLE_RATE for event in closed(gated(curve)))
