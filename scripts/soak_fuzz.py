"""Feeds random and mutated notifications to the reassembler and its decoder: scripts/soak fuzz --count N [--seed S].

Checks what must hold whatever comes: no exception, bounded memory, and after garbage the next valid frames bit for bit.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
import traceback
import tracemalloc
from collections.abc import Iterator

from omi_edge.capture.frames import FRAME_LIMIT, VALUE_LIMIT, Reassembler
from omi_edge.domain import Codec, Frame, Notification
from omi_edge.opus import Decoder, silence_packet

ROUND = 200
"""Hostile notifications between two checks with valid ones."""
VALID = 5
REPORT_EVERY = 100_000
GROWTH_LIMIT = 200_000
"""Bytes of Python memory that may be held more at the end than after the first report."""
DECODED_SHARE = 0.1
"""Share of the emitted frames that is also decoded: decoding costs ten times as much as putting together."""


class Broken(Exception):
    """Something that must hold did not."""


def main(count: int, seed: int) -> int:
    """Run ``count`` notifications; return the exit code."""
    print(f"fuzz: {count} notifications, seed {seed}", flush=True)
    chance = random.Random(seed)
    began = time.monotonic()
    done = frames = 0
    reported = 0
    baseline: int | None = None
    tracemalloc.start()
    subjects = {codec: (Reassembler(codec), Decoder(codec)) for codec in Codec}
    try:
        while done < count:
            reassembler, decoder = subjects[chance.choice(list(Codec))]
            hostile = min(ROUND, count - done)
            frames += attack(chance, reassembler, decoder, hostile)
            done += hostile + check_recovery(chance, reassembler)
            if done // REPORT_EVERY > reported:
                reported = done // REPORT_EVERY
                held = tracemalloc.get_traced_memory()[0]
                baseline = held if baseline is None else baseline
                if held > baseline + GROWTH_LIMIT:
                    raise Broken(f"memory grew from {baseline} to {held} bytes")
                print(f"  {done} notifications, {frames} frames, {held / 1000:.0f} kB", flush=True)
    except Exception as error:  # noqa: BLE001 whatever leaves the code under test is the finding
        traceback.print_exc()
        print(f"fuzz: FAILED after {done} notifications, seed {seed}: {error!r}")
        return 1
    finally:
        tracemalloc.stop()
    bad = sum(decoder.bad for _, decoder in subjects.values())
    seconds = time.monotonic() - began
    print(f"fuzz: ok, {done} notifications, {frames} frames, {bad} undecodable, {seconds:.0f} s, seed {seed}")
    return 0


def attack(chance: random.Random, reassembler: Reassembler, decoder: Decoder, hostile: int) -> int:
    """Feed hostile notifications; return how many frames came of them."""
    now_us = chance.randrange(10**12)
    frames = 0
    for value in hostile_values(chance, hostile):
        now_us += chance.choice((0, 1000, 100_000, 200_000, 10**9))
        out = reassembler.feed(Notification(value, now_us))
        if len(out) > 2:
            raise Broken(f"{len(out)} frames of one notification")
        held = 0 if reassembler._current is None else len(reassembler._current)
        if held > FRAME_LIMIT or len(reassembler._previous) > VALUE_LIMIT:
            raise Broken(f"{held} bytes held")
        frames += len(out)
        for frame in out:
            check_frame(chance, decoder, frame)
    return frames


def check_frame(chance: random.Random, decoder: Decoder, frame: Frame) -> None:
    """Whatever a frame holds, it becomes one frame of samples."""
    if not 0 < len(frame.data) <= FRAME_LIMIT or frame.lost < 0:
        raise Broken(f"a frame of {len(frame.data)} bytes after {frame.lost} lost")
    if chance.random() < DECODED_SHARE:
        samples = len(decoder.decode(frame.data))
        if samples * 1_000_000 != decoder.codec.frame_us * 16_000:
            raise Broken(f"a frame of {samples} samples")


def check_recovery(chance: random.Random, reassembler: Reassembler) -> int:
    """Feed valid notifications after the garbage; return their number. After the first, all must come out as fed."""
    reassembler.flush()
    first = chance.randrange(0x10000)
    packets = [chance.randbytes(chance.randint(1, 160)) for _ in range(VALID)]
    frames: list[Frame] = []
    for offset, packet in enumerate(packets):
        value = ((first + offset) & 0xFFFF).to_bytes(2, "little") + b"\0" + packet
        frames += reassembler.feed(Notification(value, 10**13 + offset * 20_000))
    frames += reassembler.flush()
    # the first may be taken for a repeat of the last garbage
    if [frame.data for frame in frames][-VALID + 1 :] != packets[1:]:
        raise Broken("valid frames did not come out bit for bit")
    if any(frame.lost for frame in frames[-VALID + 1 :]):
        raise Broken("a loss was counted where there was none")
    return VALID


def hostile_values(chance: random.Random, count: int) -> Iterator[bytes]:
    """Yield random values, and valid ones that were truncated, repeated, reordered, cut up, joined or flipped."""
    number = chance.randrange(0x10000)
    delayed: list[bytes] = []
    value = b""
    for _ in range(count):
        kind = chance.randrange(9)
        if kind == 0:
            value = chance.randbytes(chance.choice((0, 1, 2, 3, 4, 20, 251, 498, 512, 513, 2000)))
        elif kind == 1 and delayed:
            value = delayed.pop(chance.randrange(len(delayed)))
        elif kind == 2:
            pass  # once more
        else:
            number = (number + chance.choice((1, 1, 1, 1, 1, 2, 7, 0x7FFF, 0x8000, 0xFFFF))) & 0xFFFF
            index = chance.choice((0, 0, 0, 0, 1, 2, 255)) if kind > 4 else 0
            body = bytearray(silence_packet(Codec.OPUS_20MS) + chance.randbytes(chance.randint(0, 90)))
            if kind == 3:
                body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            value = number.to_bytes(2, "little") + bytes([index]) + body
            if kind == 4:
                value = value[: chance.randint(0, len(value))]
            elif kind == 8 and len(delayed) < 50:
                delayed.append(value)
                continue
        yield value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    sys.exit(main(arguments.count, secrets.randbits(32) if arguments.seed is None else arguments.seed))
