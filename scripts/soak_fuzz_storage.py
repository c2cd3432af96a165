"""Fuzzes the fetching of stored audio: scripts/soak fuzz-storage --count N [--seed S] [--generation G].

Mutated notifications go to each generation's parser, and through its state machine: a pendant that answers by the
protocol, whose answers are dropped, repeated, swapped, cut, flipped, joined by others. What must hold: a parser never
raises; a drain ends, with an error of LinkError's family or without; nothing is ever wiped; memory does not grow; and
with the cursor that such a session leaves behind an honest pendant's whole storage comes home.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import itertools
import random
import secrets
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omi_edge.capture import multi, ringwire, single
from omi_edge.capture.blocks import BLOCK_BYTES, record_of_file, record_of_ring
from omi_edge.capture.device import Storage
from omi_edge.capture.offline import drain
from omi_edge.clock import DrivenClock
from omi_edge.errors import LinkError
from tests.capture.storages import (
    EPOCH,
    MultiLink,
    Owner,
    RingLink,
    SingleLink,
    StorageLink,
    block_of,
    record_of,
)
from tests.helpers import START_US

PARSED = 2000
"""Values for a generation's parser in each round."""
SESSIONS = 4
"""Hostile sessions in each round, then an honest one."""
DRAIN_SECONDS = 3600.0
"""Simulated time of one drain, at most; what takes longer hangs: an honest one takes seconds."""
REPORT_EVERY = 100_000
GROWTH_LIMIT = 1_000_000
"""Bytes of Python memory that may be held more at the end than after the first report."""
OPCODES = {
    Storage.RING: (1, 2, 3, 4, 5, 6, 0x77),
    Storage.SINGLE_FILE: (0, 3, 4, 6, 100, 200),
    Storage.MULTI_FILE: (0, 1, 2, 6, 7, 8, 100, 255),
}
WIPES = {Storage.RING: 0x13, Storage.SINGLE_FILE: 0x02}
"""Commands that destroy everything; never sent."""
Send = Callable[[bytes, Callable[[], None] | None], None]


class Broken(Exception):
    """Something that must hold did not."""


def main(count: int, seed: int, generations: Sequence[Storage]) -> int:
    """Run ``count`` notifications; return the exit code."""
    print(f"fuzz-storage: {count} notifications, seed {seed}", flush=True)
    began = time.monotonic()
    counts = {"parsed": 0, "sent": 0, "sessions": 0, "refused": 0}
    reported, baseline = 0, None
    tracemalloc.start()
    try:
        for number in itertools.count():
            generation = generations[number % len(generations)]
            asyncio.run(one_round(random.Random(f"{seed}:{number}"), generation, counts))
            done = counts["parsed"] + counts["sent"]
            if done // REPORT_EVERY > reported:
                reported = done // REPORT_EVERY
                gc.collect()  # what only waits for it is no growth
                held = tracemalloc.get_traced_memory()[0]
                baseline = held if baseline is None else baseline
                if held > baseline + GROWTH_LIMIT:
                    raise Broken(f"memory grew from {baseline} to {held} bytes")
                print(f"  {done} notifications, {counts}, {held / 1000:.0f} kB", flush=True)
            if done >= count:
                break
    except Exception as error:  # noqa: BLE001 whatever leaves the code under test is the finding
        traceback.print_exc()
        print(f"fuzz-storage: FAILED in round {number}, {counts}, seed {seed}: {error!r}")
        return 1
    finally:
        tracemalloc.stop()
    print(f"fuzz-storage: ok, {done} notifications, {counts}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


async def one_round(chance: random.Random, generation: Storage, counts: dict[str, int]) -> None:
    """Feed the parser, then let hostile sessions leave their cursor to an honest one."""
    for value in itertools.islice(values(chance, generation), PARSED):
        parse(value, generation)
    counts["parsed"] += PARSED
    clock, owner = DrivenClock(START_US), Owner()
    for _ in range(SESSIONS):
        link = pendant(chance, generation, clock, first=chance.choice((0, 0, 50)), number=0)
        make_hostile(chance, generation, link)
        counts["refused"] += await session(link, generation, owner)
        counts["sent"] += link.delivered
        counts["sessions"] += 1
    # an honest one, of the same kind but with other content
    before = set(owner.raw)
    link = pendant(chance, generation, clock, first=0, number=10_000)
    wanted = content_of(link)
    if await session(link, generation, owner):
        raise Broken(f"an honest pendant was given up ({generation})")
    counts["sent"] += link.delivered
    came = set(owner.raw) - before
    if missing := [raw for raw in wanted if raw not in came]:
        raise Broken(f"{len(missing)} of {len(wanted)} honest records did not come home ({generation})")


async def session(link: StorageLink, generation: Storage, owner: Owner) -> bool:
    """Drain once; say whether it ended with an error that is allowed."""
    task = asyncio.create_task(drain(link, generation, link.clock, owner, owner.cursor))
    until_us = link.clock.boot_us() + round(DRAIN_SECONDS * 1e6)
    while not task.done():
        if link.clock.boot_us() > until_us:
            raise Broken(f"a drain hangs ({generation})")
        await link.clock.advance(5.0)
    error = task.exception()
    if error is not None and not isinstance(error, LinkError):
        raise error
    if WIPES.get(generation) in link.kinds:
        raise Broken("everything was wiped")
    return error is not None


def pendant(chance: random.Random, generation: Storage, clock: DrivenClock, *, first: int, number: int) -> StorageLink:
    """Return a pendant that holds a few hundred blocks, numbered from ``number``."""
    count = chance.choice((1, 30, 40, 100))
    if generation is Storage.RING:
        records = [record_of(number + at) for at in range(count)]
        ring_id = chance.choice((None, None, 1 + number))
        link: StorageLink = RingLink(
            clock, records, first=first, frees=chance.random() < 0.5, crc=chance.random() < 0.3, ring_id=ring_id
        )
    elif generation is Storage.SINGLE_FILE:
        link = SingleLink(clock, b"".join(block_of(number + at) for at in range(count)))
    else:
        names = [EPOCH + number + 1800 * at for at in range(3)]
        files = {name: b"".join(block_of(number + 100 * at + k) for k in range(count)) for at, name in enumerate(names)}
        link = MultiLink(clock, files, chance.choice((498, 100)))
    link.per_step = 20
    return link


def content_of(link: StorageLink) -> list[bytes]:
    """Return what must come home of an honest pendant."""
    if isinstance(link, RingLink):
        return list(link.records)
    stored = [link.content] if isinstance(link, SingleLink) else list(link.files.values())  # type: ignore[attr-defined]
    return [whole[at : at + BLOCK_BYTES] for whole in stored for at in range(0, len(whole), BLOCK_BYTES)]


def make_hostile(chance: random.Random, generation: Storage, link: StorageLink) -> None:
    """Let its answers be mutated, and the link end at some moment."""
    honest: Send = link.send
    foreign = values(chance, generation)
    rate = chance.choice((0.002, 0.02, 0.2, 0.6))
    link.cut_after = chance.choice((20, 300, 3000))
    held: list[bytes] = []

    def send(value: bytes, then: Callable[[], None] | None = None) -> None:
        if chance.random() >= rate:
            honest(value, then)
            return
        kind = chance.randrange(7)
        if kind == 0:
            return
        if kind == 1:
            honest(value, then)
        elif kind == 2:
            held.append(value)
            return
        elif kind == 3:
            value = held.pop() if held else value
        elif kind == 4:
            honest(next(foreign), None)
        elif kind == 5:
            value = value[: chance.randrange(len(value) + 1)]
        else:
            value = flipped(chance, value)
        honest(value, then)

    link.send = send  # type: ignore[method-assign]


def values(chance: random.Random, generation: Storage) -> Iterator[bytes]:
    """Yield endless notifications: random ones, and such that begin like an honest one."""
    block = block_of(7)
    while True:
        kind = chance.randrange(4)
        if kind == 0:
            yield chance.randbytes(chance.choice((0, 1, 2, 3, 10, 14, 31, 41, 440, 444, 512)))
        elif kind == 1:
            yield bytes([chance.choice(OPCODES[generation])]) + chance.randbytes(
                chance.choice((0, 1, 2, 9, 12, 30, 40))
            )
        elif kind == 2:
            yield flipped(chance, EPOCH.to_bytes(4, "big") + block)[: chance.randrange(445)]
        else:
            yield flipped(chance, bytes.fromhex("0200000000000004D2000000000000162E000FF208000000000000000001BC"))


def flipped(chance: random.Random, value: bytes) -> bytes:
    """Return ``value`` with a few bits turned."""
    changed = bytearray(value)
    for _ in range(chance.randint(1, 4) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def parse(value: bytes, generation: Storage) -> None:
    """Give a value to the parsers of a generation: none may raise."""
    if generation is Storage.RING:
        ringwire.answer_of(value)
        record = record_of_ring(1, 0, value)
    elif generation is Storage.SINGLE_FILE:
        single.status_of(value)
        single.payload(value)
        record = record_of_file(1, 0, value)
    else:
        multi.files_of(value)
        multi.payload(value, EPOCH)
        record = record_of_file(1, 0, value, EPOCH)
    if sum(len(frame) + 1 for frame in record.frames) > BLOCK_BYTES:
        raise Broken("more frames than a block holds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=None)
    kinds: dict[str, Any] = {kind.value: kind for kind in OPCODES}
    parser.add_argument("--generation", choices=sorted(kinds), default=None)
    given = parser.parse_args()
    run = functools.partial(main, generations=list(OPCODES) if given.generation is None else [kinds[given.generation]])
    sys.exit(run(given.count, secrets.randbits(32) if given.seed is None else given.seed))
