from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omi_edge.domain import SAMPLE_RATE, AudioChunk, ChunkKind, Codec, Frame, SpeechSegment
from omi_edge.listen.gate import SpeechGate
from omi_edge.listen.vad import CHUNK_SAMPLES
from omi_edge.opus import Encoder
from omi_edge.pipeline.hearing import ChunkReady, Heard, Hearing, LiveAudio, Missing, Position, decode_span
from tests.helpers import START_US

FRAME_US = 20_000


class LoudnessVad:
    """Speech is what is loud."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def probabilities(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        samples = np.concatenate([self._rest, pcm])
        whole = len(samples) // CHUNK_SAMPLES
        self._rest = samples[whole * CHUNK_SAMPLES :]
        level = np.abs(samples[: whole * CHUNK_SAMPLES].astype(np.float32)).reshape(whole, CHUNK_SAMPLES).mean(1)
        loud: npt.NDArray[np.float32] = (level > 500).astype(np.float32)
        return loud


def hearing(**options: object) -> Hearing:
    count = itertools.count()
    return Hearing(
        "src",
        Codec.OPUS_20MS,
        lambda: SpeechGate(LoudnessVad()),
        lambda _: f"seg{next(count)}",
        **options,  # type: ignore[arg-type]
    )


def sound(*parts: tuple[float, float]) -> list[bytes]:
    """Packets of (seconds, loudness) one after another."""
    rng = np.random.default_rng(1)
    samples = np.concatenate([rng.normal(0, loud, round(seconds * SAMPLE_RATE)) for seconds, loud in parts])
    whole = samples[: len(samples) // 320 * 320].clip(-30000, 30000).astype(np.int16)
    encoder = Encoder()
    return [encoder.encode(frame) for frame in whole.reshape(-1, 320)]


def arrivals(packets: Sequence[bytes], start_us: int = START_US) -> list[tuple[Frame, int]]:
    """In bursts of five, as a CV1 sends."""
    return [(Frame(packet, 0), start_us + (index // 5 + 1) * 5 * FRAME_US) for index, packet in enumerate(packets)]


def fed(one: Hearing, frames: Sequence[tuple[Frame, int]], step: int = 5) -> Iterator[Heard]:
    for first in range(0, len(frames), step):
        yield from one.feed(frames[first : first + step])
    yield from one.finish()


def chunks_of(heard: Sequence[Heard]) -> list[AudioChunk]:
    return [item.chunk for item in heard if isinstance(item, ChunkReady) and item.chunk is not None]


def segments_of(heard: Sequence[Heard]) -> list[SpeechSegment]:
    return [segment for item in heard if isinstance(item, ChunkReady) for segment in item.segments]


def test_speech_is_kept_with_two_seconds_around_it_and_silence_is_not() -> None:
    heard = list(fed(hearing(), arrivals(sound((5, 5), (3, 3000), (8, 5)))))
    chunks = chunks_of(heard)
    assert all(chunk.duration_us <= 2_000_000 for chunk in chunks)
    assert all(later.start_us == earlier.end_us for earlier, later in itertools.pairwise(chunks))
    start = (chunks[0].start_us - START_US) / 1e6
    end = (chunks[-1].end_us - START_US) / 1e6
    assert 2.8 <= start <= 3.2
    assert 9.9 <= end <= 10.3
    (segment,) = segments_of(heard)
    assert 4.6 <= (segment.start_us - START_US) / 1e6 <= 4.9
    assert 8.0 <= (segment.end_us - START_US) / 1e6 <= 8.3
    assert 2_900_000 <= segment.speech_us <= 3_200_000


def test_dropped_silence_is_counted_to_the_packet() -> None:
    packets = sound((5, 5), (3, 3000), (8, 5))
    heard = list(fed(hearing(), arrivals(packets)))
    kept = sum(len(packet) for chunk in chunks_of(heard) for packet in chunk.packets)
    dropped = sum(item.dropped_bytes for item in heard if isinstance(item, ChunkReady))
    assert kept + dropped == sum(map(len, packets))


def test_kept_silence_fills_the_timeline() -> None:
    packets = sound((5, 5), (3, 3000), (8, 5))
    chunks = chunks_of(list(fed(hearing(keep_silence=True), arrivals(packets))))
    assert [packet for chunk in chunks for packet in chunk.packets] == packets
    assert {chunk.kind for chunk in chunks} == {ChunkKind.HEARD, ChunkKind.SILENCE}


def test_a_segment_is_told_with_or_after_its_last_audio() -> None:
    stored_until = 0
    for item in fed(hearing(), arrivals(sound((3, 5), (2, 3000), (4, 5), (1, 3000), (3, 5)))):
        if isinstance(item, ChunkReady):
            stored_until = item.chunk.end_us if item.chunk is not None else stored_until
            assert all(segment.end_us <= stored_until for segment in item.segments)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0.2, 4), st.sampled_from([5, 3000])), min_size=1, max_size=6),
    st.one_of(st.integers(1, 40), st.just(5000)),  # all at once: what waited for a busy machine
)
def test_live_audio_is_what_the_file_gives_back(parts: list[tuple[float, float]], step: int) -> None:
    _live_equals_stored(parts, step)


@pytest.mark.parametrize("step", [5, 77, 5000])
def test_also_where_a_long_segment_is_split(step: int) -> None:
    _live_equals_stored([(1, 5), (24.2, 3000), (0.1, 5), (20, 3000), (3, 5)], step)


def _live_equals_stored(parts: list[tuple[float, float]], step: int) -> None:
    heard = list(fed(hearing(), arrivals(sound(*parts)), step))
    live: dict[str, bytes] = {}
    for item in heard:
        if isinstance(item, LiveAudio):
            live[item.segment_id] = live.get(item.segment_id, b"") + item.pcm
    chunks = chunks_of(heard)
    segments = segments_of(heard)
    assert set(live) == {segment.id for segment in segments}
    for segment in segments:
        stored = decode_span(chunks, segment.start_us, segment.end_us)
        assert len(stored) == round((segment.end_us - segment.start_us) * SAMPLE_RATE / 1e6)
        assert stored.tobytes() == live[segment.id]


def test_a_short_hole_is_concealed_and_counted() -> None:
    frames = arrivals(sound((4, 3000)))
    lost = [*frames[:50], (Frame(frames[55][0].data, 0, lost=5), frames[55][1]), *frames[56:]]
    heard = list(fed(hearing(), lost))
    assert sum(item.lost for item in heard if isinstance(item, ChunkReady)) == 5
    assert sum(chunk.lost for chunk in chunks_of(heard)) == 5
    assert not [item for item in heard if isinstance(item, Missing)]
    assert len(segments_of(heard)) == 1


def test_a_long_hole_parts_two_runs_at_their_true_times() -> None:
    frames = arrivals(sound((6, 3000)))
    lost = [*frames[:100], (Frame(frames[200][0].data, 0, lost=100), frames[200][1]), *frames[201:]]
    heard = list(fed(hearing(), lost))
    (gap,) = [item for item in heard if isinstance(item, Missing)]
    assert gap.lost == 100
    assert abs(gap.start_us - (START_US + 2_000_000)) <= 100_000
    assert abs(gap.end_us - (START_US + 4_000_000)) <= 100_000
    assert len(segments_of(heard)) == 2


def test_a_sleeping_microphone_leaves_a_gap_although_no_id_is_missing() -> None:
    packets = sound((4, 3000))
    frames = arrivals(packets[:100]) + arrivals(packets[100:], START_US + 62_000_000)
    heard = list(fed(hearing(), frames))
    (gap,) = [item for item in heard if isinstance(item, Missing)]
    assert gap.lost == 0
    assert gap.end_us - gap.start_us == pytest.approx(60_000_000, abs=150_000)


def test_a_stall_that_catches_up_changes_nothing() -> None:
    frames = arrivals(sound((6, 3000)))
    stalled = [(frame, max(at, START_US + 3_200_000) if 100 <= n < 160 else at) for n, (frame, at) in enumerate(frames)]
    heard = list(fed(hearing(), stalled))
    assert not [item for item in heard if isinstance(item, Missing)]
    assert len(segments_of(heard)) == 1


def test_a_slow_pendant_is_put_right_before_it_is_half_a_second_behind() -> None:
    frames = [(frame, at + index * 2_000) for index, (frame, at) in enumerate(arrivals(sound((8, 5))))]
    heard = list(fed(hearing(keep_silence=True), frames))
    last = chunks_of(heard)[-1]
    assert abs(last.end_us - frames[-1][1]) < 500_000


def test_the_position_never_passes_speech_that_is_still_open() -> None:
    positions: list[tuple[Position, int]] = []
    one = hearing()
    frames = arrivals(sound((4, 5), (6, 3000), (4, 5)))
    for first in range(0, len(frames), 5):
        heard = one.feed(frames[first : first + 5])
        positions += [(item, frames[first][1]) for item in heard if isinstance(item, Position)]
    speech_start_us = START_US + 4_000_000
    assert all(
        position.quiet_until_us <= speech_start_us for position, at in positions
        if speech_start_us < at < START_US + 10_000_000
    )  # fmt: skip
    assert positions[-1][0].quiet_until_us > START_US + 12_000_000
    assert not positions[-1][0].speaking
