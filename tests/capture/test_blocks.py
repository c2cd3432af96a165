"""Blocks of stored audio: what the writer packs comes out, and nothing else (dossier §6.1)."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.capture.blocks import (
    BLOCK_BYTES,
    Mark,
    Record,
    record_of_file,
    record_of_ring,
    unpack,
)

EPOCH = 1_795_176_000
PACKETS = st.lists(st.binary(min_size=1, max_size=160), min_size=1, max_size=60)


def packed(packets: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the full blocks that the firmware's writer makes, and the packets inside."""
    block, at = bytearray(b"\x55" * BLOCK_BYTES), 0
    blocks: list[bytes] = []
    inside: list[bytes] = []
    waiting: list[bytes] = []
    for packet in packets:
        if at + len(packet) + 1 > BLOCK_BYTES - 1:
            block[at] = len(packet)  # and no more of it
            blocks.append(bytes(block))
            inside, waiting, at = inside + waiting, [], 0
        block[at : at + 1 + len(packet)] = bytes([len(packet)]) + packet
        at += 1 + len(packet)
        waiting.append(packet)
        if at == BLOCK_BYTES - 1:
            blocks.append(bytes(block))
            inside, waiting, at = inside + waiting, [], 0
    return blocks, inside


@given(PACKETS)
def test_what_was_packed_comes_out(packets: list[bytes]) -> None:
    blocks, inside = packed(packets)
    assert [frame for block in blocks for frame in unpack(block)[0]] == inside


def test_a_dangling_length_that_would_just_fit_is_no_frame() -> None:
    """Trap 10: with ``>`` in place of ``>=`` the stale byte 439 would belong to a frame."""
    first = bytes([200]) + b"\xb8" * 200
    dangling = first + bytes([238]) + b"\x55" * 238
    fits = first + bytes([237]) + b"\xb8" * 237 + b"\x55"
    assert len(dangling) == len(fits) == BLOCK_BYTES
    assert unpack(dangling)[0] == (b"\xb8" * 200,)
    assert unpack(fits)[0] == (b"\xb8" * 200, b"\xb8" * 237)


def test_zeros_are_padding() -> None:
    assert unpack(bytes(440)) == ((), ())
    assert unpack(b"\0\0\x02ab" + bytes(435)) == ((b"ab",), ())


def test_a_short_block_ends_with_its_last_whole_frame() -> None:
    assert unpack(b"\x03abc\x05de") == ((b"abc",), ())


def test_a_marker_of_3_0_16_is_a_time() -> None:
    block = b"\x02ab\xff" + EPOCH.to_bytes(4, "little") + b"\x02cd" + bytes(429)
    assert unpack(block) == ((b"ab", b"cd"), (Mark(1, EPOCH),))


@given(st.one_of(st.integers(0, 1_600_000_000), st.integers(1 << 31, (1 << 32) - 1)))
def test_a_marker_of_a_clock_that_was_never_set_is_no_frame(seconds: int) -> None:
    block = b"\x02ab\xff" + seconds.to_bytes(4, "little") + b"\x02cd" + bytes(429)
    assert unpack(block) == ((b"ab", b"cd"), (Mark(1, 0),))


def test_the_trailer_of_a_draft_ends_a_block() -> None:
    block = b"\x02ab" + bytes(405) + b"\xffCQ01" + b"\x01" * 27
    assert len(block) == 440 and unpack(block) == ((b"ab",), ())


def test_times_of_records() -> None:
    block = b"\x02ab" + bytes(437)
    assert record_of_ring(1, 7, bytes.fromhex("6B003640") + block).stamp == EPOCH
    assert record_of_ring(1, 7, bytes.fromhex("80000010") + block).uptime == 16
    unknown = record_of_ring(1, 7, bytes(4) + block)
    assert (unknown.stamp, unknown.uptime, unknown.frames) == (None, None, (b"ab",))
    assert record_of_ring(1, 7, (1_600_000_000).to_bytes(4, "big") + block).stamp is None
    assert record_of_file(1, 0, block, EPOCH) == Record(1, 0, (b"ab",), block, marks=(Mark(0, EPOCH),))
    assert record_of_file(1, 440, block, EPOCH).marks == record_of_file(1, 0, block, 77).marks == ()


@given(st.binary(max_size=500))
def test_no_bytes_raise(data: bytes) -> None:
    frames, marks = unpack(data)
    assert sum(len(frame) + 1 for frame in frames) < BLOCK_BYTES
    assert all(0 < len(frame) < 440 for frame in frames) and len(marks) <= 88
    assert record_of_ring(1, 0, data).raw == data
