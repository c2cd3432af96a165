"""Blocks of 440 bytes as the firmware packs them (dossier §6.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omi_edge.virtual.holdings import Block
from omi_edge.virtual.packing import BLOCK_BYTES, LONGEST_FRAME, Packer
from tests.virtual.storing import frames, unpacked

ANY_FRAMES = st.lists(st.binary(min_size=1, max_size=LONGEST_FRAME), max_size=80)


def packed(packets: list[bytes]) -> tuple[list[Block], Packer]:
    packer = Packer()
    blocks = [packer.add(frame, (index, index + 1), (index, index + 1)) for index, frame in enumerate(packets)]
    return [block for block in blocks if block is not None], packer


def spurious(block: bytes, guard: int) -> int:
    """How many frames a reader finds who stops at ``o + 1 + n >= guard``; beyond those that are there."""
    count, o = 0, 0
    while o < 439:
        n = block[o]
        if n == 0:
            o += 1
            continue
        if o + 1 + n >= guard:
            break
        count += 1
        o += 1 + n
    return count - len(unpacked(block))


@given(ANY_FRAMES)
def test_reading_with_the_right_guard_gives_back_exactly_the_frames(packets: list[bytes]) -> None:
    blocks, packer = packed(packets)
    assert all(len(block.raw) == BLOCK_BYTES for block in blocks)
    found = [frame for block in blocks for frame in unpacked(block.raw)]
    assert found == packets[: len(found)]
    assert len(packer.spans) == len(packets) - len(found)
    spans = [span for block in blocks for span in block.spans] + list(packer.spans)
    assert spans == [(index, index + 1) for index in range(len(packets))]
    for block in blocks:
        assert len(unpacked(block.raw)) == len(block.spans)


@given(ANY_FRAMES)
def test_each_block_knows_the_first_frame_that_it_lacks(packets: list[bytes]) -> None:
    blocks, _ = packed(packets)
    assert [block.next_id for block in blocks] == [block.spans[-1][1] for block in blocks]


def test_the_tail_is_what_an_earlier_block_left_there() -> None:
    first, second = bytes([1]) * 200, bytes([2]) * 210
    blocks, _ = packed([first, second, bytes([3]) * 200, bytes([4]) * 200, bytes([5]) * 200])
    head = bytes([200]) + first + bytes([210]) + second
    assert blocks[0].raw == head + bytes([200]) + bytes(440 - len(head) - 1)
    assert blocks[1].raw[402] == 200, "the length of a frame that is in the next block"
    assert blocks[1].raw[403:412] == bytes([2]) * 9, "stale"
    assert unpacked(blocks[1].raw) == [bytes([3]) * 200, bytes([4]) * 200]


def test_a_block_that_is_filled_to_its_last_byte_but_one() -> None:
    packer = Packer()
    assert packer.add(bytes([7]) * 199, (0, 1), (0, 1)) is None
    block = packer.add(bytes([8]) * 238, (1, 2), (1, 2))
    assert block is not None
    assert block.raw[-2:] == b"\x08\x00"
    assert block.next_id == 2
    assert not packer.spans
    packer.add(b"\x09" * 10, (2, 3))
    assert packer.spans == ((2, 3),)


def test_one_that_just_does_not_fit_leaves_its_length_behind() -> None:
    packer = Packer()
    packer.add(bytes([7]) * 199, (0, 1), (0, 1))
    block = packer.add(bytes([8]) * 239, (1, 2), (1, 2))
    assert block is not None
    assert block.raw[200] == 239
    assert BLOCK_BYTES == 200 + 1 + 239, "with > instead of >= a reader takes 239 stale bytes for a frame"
    assert (spurious(block.raw, 440), spurious(block.raw, 441)) == (0, 1)


def test_a_reader_without_the_right_guard_finds_frames_that_were_never_there() -> None:
    blocks, _ = packed(frames(20_000))
    assert sum(spurious(block.raw, 440) for block in blocks) == 0
    assert sum(spurious(block.raw, 441) for block in blocks) > len(blocks) / 1000  # the dossier saw 1 in 100 blocks
    assert sum(spurious(block.raw + bytes(300), 740) for block in blocks) > len(blocks) / 2  # and about 1 in each


@given(ANY_FRAMES, st.integers(0, 80))
def test_a_time_that_is_marked_moves_no_frame(packets: list[bytes], where: int) -> None:
    packer, blocks = Packer(), []
    for index, frame in enumerate(packets):
        if index == where:
            blocks.append(packer.mark(1_795_176_000))
        blocks.append(packer.add(frame, (index, index + 1)))
    found = [frame for block in blocks if block is not None for frame in unpacked(block.raw, marks=True)]
    assert found == packets[: len(found)]
    assert len(packets) - len(found) == len(packer.spans)


def test_what_is_in_ram_can_be_lost() -> None:
    packer = Packer()
    packer.add(b"\xb8" * 60, (5, 6))
    assert packer.lose() == ((5, 6),)
    assert len(packer.spans) == len(packer.lose()) == 0
