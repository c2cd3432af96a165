"""Each rule of the protocol dossier §5.3, its live test vectors (§10.1), then whatever a radio could deliver."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.frames import DEFERRED_PAUSE_US, FRAME_LIMIT, VALUE_LIMIT, Reassembler
from omi_edge.domain import Codec, Frame, Notification

BURST_US = 100_000


def value(number: int, index: int, payload: bytes) -> bytes:
    return (number & 0xFFFF).to_bytes(2, "little") + bytes([index]) + payload


def feed(reassembler: Reassembler, values: list[bytes], *, every_us: int = 1000, from_us: int = 0) -> list[Frame]:
    frames: list[Frame] = []
    for position, data in enumerate(values):
        frames += reassembler.feed(Notification(data, from_us + position * every_us))
    return frames


def heard(frames: list[Frame]) -> list[bytes]:
    return [frame.data for frame in frames]


def opus(number: int) -> bytes:
    """A frame of its own for each number, with a stock pendant's first byte."""
    return b"\xb8" + number.to_bytes(4, "little")


class TestImmediate:
    def test_each_notification_is_a_frame_at_its_arrival(self) -> None:
        frames = Reassembler(Codec.OPUS_20MS).feed(Notification(value(5, 0, opus(5)), 1234))
        assert frames == [Frame(opus(5), 1234, lost=0)]

    def test_the_first_id_is_no_loss_whatever_it_is(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        assert feed(reassembler, [value(40_000, 0, opus(1))])[0].lost == 0
        assert reassembler.counters.lost == 0

    @pytest.mark.parametrize("payload", [b"", b"\x01", b"\x01\x02", b"\x01\x02\x00"])
    def test_three_bytes_or_less_are_ignored(self, payload: bytes) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        values = [value(1, 0, opus(1)), payload, value(2, 0, opus(2))]
        frames = feed(reassembler, values)
        assert heard(frames) == [opus(1), opus(2)]
        assert (reassembler.counters.malformed, reassembler.counters.lost) == (1, 0)

    def test_longer_than_any_attribute_is_ignored(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        assert feed(reassembler, [value(1, 0, bytes(VALUE_LIMIT))]) == []
        assert len(feed(reassembler, [value(1, 0, bytes(VALUE_LIMIT - 3))])) == 1
        assert reassembler.counters.malformed == 1

    def test_the_id_wraps_without_a_loss(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        frames = feed(reassembler, [value(number, 0, opus(number)) for number in range(65_530, 65_545)])
        assert heard(frames) == [opus(number) for number in range(65_530, 65_545)]
        assert {frame.lost for frame in frames} == {0}
        assert (reassembler.counters.lost, reassembler.counters.restarts) == (0, 0)

    @pytest.mark.parametrize("gap", [1, 4, 0x7FFF])
    @pytest.mark.parametrize("first", [10, 65_530])
    def test_a_gap_is_told_with_the_frame_after_it(self, first: int, gap: int) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        frames = feed(reassembler, [value(first, 0, opus(1)), value(first + 1 + gap, 0, opus(2))])
        assert frames[1] == Frame(opus(2), 1000, lost=gap)
        assert reassembler.counters.lost == gap

    @pytest.mark.parametrize("back", [2, 100, 0x8000])
    def test_an_id_that_went_back_is_a_reboot_not_a_loss(self, back: int) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        frames = feed(reassembler, [value(40_000, 0, opus(1)), value(40_001 - back, 0, opus(2))])
        assert frames[1] == Frame(opus(2), 1000, lost=0)
        assert (reassembler.counters.restarts, reassembler.counters.lost) == (1, 0)

    def test_an_exact_repeat_is_left_out(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        values = [value(1, 0, opus(1)), value(1, 0, opus(1)), value(2, 0, opus(2))]
        assert heard(feed(reassembler, values)) == [opus(1), opus(2)]
        assert (reassembler.counters.duplicates, reassembler.counters.lost, reassembler.counters.restarts) == (1, 0, 0)

    def test_the_same_id_with_other_bytes_is_no_repeat(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        assert heard(feed(reassembler, [value(1, 0, opus(1)), value(1, 0, opus(9))])) == [opus(1), opus(9)]
        assert reassembler.counters.restarts == 1

    def test_a_fragment_turns_to_deferred_mode_and_is_an_orphan(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        assert heard(feed(reassembler, [value(1, 0, opus(1)), value(2, 1, b"tail")])) == [opus(1)]
        assert reassembler.deferred
        assert reassembler.counters.orphans == 1
        later = feed(reassembler, [value(3, 0, b"\xb8a"), value(4, 1, b"b"), value(5, 0, b"\xb8c")], from_us=2000)
        assert heard(later) == [b"\xb8ab"]
        assert heard(reassembler.flush()) == [b"\xb8c"]

    def test_another_first_byte_is_counted_and_passed_on(self) -> None:
        reassembler = Reassembler(Codec.OPUS_10MS)
        assert len(feed(reassembler, [value(1, 0, b"\xb0ok"), value(2, 0, opus(2))])) == 2
        assert reassembler.counters.unusual == 1

    @pytest.mark.parametrize(("number", "jump"), [(2, 0), (7, 5), (0, 0xFFFE), (1, 0xFFFF)])
    def test_the_step_of_the_ids_at_a_new_connection_is_told_and_is_no_loss(self, number: int, jump: int) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        feed(reassembler, [value(1, 0, opus(1))])
        reassembler.reconnected()
        first, second = feed(reassembler, [value(number, 0, opus(2)), value(number + 1, 0, opus(3))])
        assert (first.lost, first.jump) == (0, jump)
        assert (second.lost, second.jump) == (0, None)
        assert reassembler.counters.lost == 0

    def test_the_first_connection_of_all_has_no_step(self) -> None:
        reassembler = Reassembler(Codec.OPUS_20MS)
        reassembler.reconnected()
        (frame,) = feed(reassembler, [value(9, 0, opus(1))])
        assert frame.jump is None


class TestDeferred:
    def test_a_frame_is_whole_when_the_next_begins_and_bears_its_first_arrival(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        # 320 bytes of PCM as the dossier §5.1 describes it: 248 and 72
        first, second = bytes(range(248)), bytes(72)
        frames = feed(reassembler, [value(1, 0, first), value(2, 1, second), value(3, 0, first)])
        assert frames == [Frame(first + second, 0, lost=0)]
        assert heard(reassembler.flush()) == [first]
        assert reassembler.flush() == []

    def test_a_pause_ends_a_frame(self) -> None:
        reassembler = Reassembler(Codec.MULAW16)
        assert reassembler.feed(Notification(value(1, 0, b"a"), 0)) == []
        assert heard(reassembler.feed(Notification(value(2, 1, b"b"), DEFERRED_PAUSE_US))) == []
        assert heard(reassembler.feed(Notification(value(3, 0, b"c"), 2 * BURST_US))) == [b"ab"]
        # after a pause the frame is out, and what was lost during it takes nothing from it
        assert heard(reassembler.feed(Notification(value(9, 0, b"d"), 2 * BURST_US + DEFERRED_PAUSE_US + 1))) == [b"c"]

    def test_an_orphan_waits_for_the_next_beginning(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(1, 1, b"x"), value(2, 2, b"y"), value(3, 0, b"a"), value(4, 1, b"b"), value(5, 0, b"c")]
        frames = feed(reassembler, values)
        assert heard(frames) == [b"ab"]
        assert frames[0].lost == 0  # whose they were nobody knows
        assert reassembler.counters.orphans == 2

    @pytest.mark.parametrize("index", [2, 3, 255])
    def test_a_skipped_fragment_spoils_its_frame_alone(self, index: int) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(1, 0, b"a"), value(2, index, b"x"), value(3, 0, b"c"), value(4, 1, b"d"), value(5, 0, b"e")]
        assert heard(feed(reassembler, values)) == [b"cd"]

    def test_a_gap_spoils_the_frame_that_it_is_in(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(1, 0, b"a"), value(3, 1, b"x"), value(4, 0, b"c"), value(5, 0, b"d")]
        assert heard(feed(reassembler, values)) == [b"c"]
        assert reassembler.counters.lost == 1

    def test_a_reboot_spoils_the_frame_that_it_is_in(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(900, 0, b"a"), value(0, 0, b"b"), value(1, 1, b"c"), value(2, 0, b"d")]
        assert heard(feed(reassembler, values)) == [b"bc"]
        assert reassembler.counters.restarts == 1

    def test_a_repeated_fragment_is_added_once(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(1, 0, b"a"), value(2, 1, b"b"), value(2, 1, b"b"), value(3, 0, b"c")]
        assert heard(feed(reassembler, values)) == [b"ab"]

    @pytest.mark.parametrize(
        ("missing", "frames_lost"),
        # the frame before a gap may miss its end, so it is given up (dossier §5.3)
        [({6}, 2), ({7}, 1), ({6, 7}, 2), ({7, 8}, 2), ({6, 7, 8, 9}, 3), ({6, 9}, 3), ({7, 12}, 3)],
    )
    def test_lost_counts_frames_where_a_frame_takes_two_notifications(
        self, missing: set[int], frames_lost: int
    ) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(number, number % 2, opus(number)) for number in range(20) if number not in missing]
        frames = [*feed(reassembler, values), *reassembler.flush()]
        assert len(frames) == 10 - frames_lost
        assert sum(frame.lost for frame in frames) == frames_lost
        assert reassembler.counters.lost == len(missing)

    def test_endless_fragments_do_not_grow(self) -> None:
        reassembler = Reassembler(Codec.PCM16)
        values = [value(number, number % 256, bytes(500)) for number in range(5000)]
        assert all(len(frame.data) <= FRAME_LIMIT for frame in feed(reassembler, values))


@pytest.mark.parametrize(
    ("hexes", "numbers"),
    # protocol dossier §10.1
    [(["02 01 00 B8 01"], [258]), (["FF FF 00 B8 01", "00 00 00 B8 02"], [65_535, 0])],
)
def test_vectors_of_the_dossier(hexes: list[str], numbers: list[int]) -> None:
    reassembler = Reassembler(Codec.OPUS_20MS)
    values = [bytes.fromhex(text) for text in hexes]
    assert [int.from_bytes(data[:2], "little") for data in values] == numbers
    frames = feed(reassembler, values)
    assert heard(frames) == [data[3:] for data in values]
    follower = feed(reassembler, [value(numbers[-1] + 2, 0, opus(0))], from_us=10_000)
    assert follower[0].lost == 1  # the id was understood
    assert reassembler.counters.unusual == 0


anything = st.lists(
    st.tuples(
        st.one_of(
            st.binary(max_size=20),
            st.binary(min_size=500, max_size=520),
            st.builds(value, st.integers(0, 0xFFFF), st.integers(0, 3), st.binary(max_size=300)),
            st.builds(value, st.integers(0, 5), st.integers(0, 2), st.sampled_from([b"a", b"b", b""])),
        ),
        st.integers(0, 400_000),
    ),
    max_size=40,
)


@given(st.sampled_from(list(Codec)), anything)
def test_any_bytes_are_taken_and_memory_stays_bounded(codec: Codec, arrivals: list[tuple[bytes, int]]) -> None:
    reassembler = Reassembler(codec)
    now_us = 0
    frames: list[Frame] = []
    for data, pause_us in arrivals:
        now_us += pause_us
        out = reassembler.feed(Notification(data, now_us))
        assert len(out) <= 2
        assert reassembler._current is None or len(reassembler._current) <= FRAME_LIMIT
        assert len(reassembler._previous) <= VALUE_LIMIT
        frames += out
    frames += reassembler.flush()
    counters = reassembler.counters
    assert counters.frames == len(frames) <= counters.notifications == len(arrivals)
    assert all(frame.data and frame.lost >= 0 for frame in frames)
    taken = sum(len(frame.data) for frame in frames)
    assert taken <= sum(len(data) for data, _ in arrivals)


@given(st.sampled_from(list(Codec)), anything, st.integers(0, 0xFFFF), st.lists(st.binary(min_size=1, max_size=200)))
def test_frames_after_garbage_come_bit_for_bit(
    codec: Codec, arrivals: list[tuple[bytes, int]], number: int, payloads: list[bytes]
) -> None:
    reassembler = Reassembler(codec)
    feed(reassembler, [data for data, _ in arrivals])
    reassembler.flush()
    # one to let it find its place (it may be taken for a repeat of the garbage), then all must come
    values = [value(number + offset, 0, payload) for offset, payload in enumerate([b"place", *payloads])]
    frames = [*feed(reassembler, values, from_us=10**9), *reassembler.flush()]
    assert heard(frames)[-len(payloads) :] == payloads if payloads else True


@given(st.randoms(use_true_random=False), st.integers(0, 0xFFFF))
def test_what_was_lost_is_counted_whatever_is_lost_or_doubled(chance: random.Random, first: int) -> None:
    reassembler = Reassembler(Codec.OPUS_20MS)
    kept = [number for number in range(200) if number in (0, 199) or chance.random() > 0.2]
    values = []
    for number in kept:
        values += [value(first + number, 0, opus(number))] * chance.choice([1, 1, 1, 2, 3])
    frames = feed(reassembler, values)
    assert heard(frames) == [opus(number) for number in kept]
    assert sum(frame.lost for frame in frames) == reassembler.counters.lost == 200 - len(kept)
    assert reassembler.counters.duplicates == len(values) - len(kept)


@given(
    st.lists(st.binary(min_size=1, max_size=900), min_size=1, max_size=20),
    st.integers(20, 500),
    st.integers(0, 0xFFFF),
)
def test_what_was_cut_is_put_together(frames: list[bytes], size: int, first: int) -> None:
    reassembler = Reassembler(Codec.PCM16)
    values: list[bytes] = []
    for frame in frames:
        for index, start in enumerate(range(0, len(frame), size)):
            values.append(value(first + len(values), index, frame[start : start + size]))
    assert heard([*feed(reassembler, values), *reassembler.flush()]) == frames
