"""A client of stored audio for tests: it asks by hand and looks at every byte."""

from __future__ import annotations

import random
from collections import Counter

from omi_edge import gatt
from omi_edge.clock import DrivenClock
from omi_edge.virtual.connection import Connection
from omi_edge.virtual.faults import Faults
from omi_edge.virtual.holdings import StoredFate
from omi_edge.virtual.pendant import Pendant
from omi_edge.virtual.profiles import CV1_3_0_21, Profile

NOON = 1_795_176_000
"""2026-11-20T12:00:00Z (dossier §10.1)."""
LARGEST = 254
"""Bytes of frames of which one alone fits into a block."""


def noon() -> DrivenClock:
    return DrivenClock(NOON * 1_000_000)


def frames(count: int, seed: int = 1) -> list[bytes]:
    """Of the sizes of speech at 20 ms (dossier §7)."""
    chance = random.Random(seed)
    return [b"\xb8" + chance.randbytes(chance.randint(61, 156)) for _ in range(count)]


def unpacked(block: bytes, *, marks: bool = False) -> list[bytes]:
    """The reader's rule of the dossier §6.1, in its words; with ``marks`` the times of firmware 3.0.16 are left out."""
    found: list[bytes] = []
    o = 0
    while o < 439:
        n = block[o]
        if n == 0:
            o += 1
            continue
        if marks and n == 0xFF:
            o += 5
            continue
        if o + 1 + n >= 440:
            break
        found.append(block[o + 1 : o + 1 + n])
        o += 1 + n
    return found


def fill(pendant: Pendant, blocks: int, seed: int = 1) -> list[bytes]:
    """Store so many full blocks of one frame each; return all frames, of which the last is still being packed.

    Where a frame was being packed already it is the first block's.
    """
    chance = random.Random(seed)
    packing = any(truth.fate is StoredFate.PACKING for truth in pendant.storage.record)
    packets = [chance.randbytes(LARGEST) for _ in range(blocks if packing else blocks + 1)]
    pendant.store_packets(packets)
    return packets


def fates(pendant: Pendant) -> Counter[str]:
    """How many blocks have which fate."""
    return Counter(str(block.fate) for block in pendant.storage.blocks)


class Client:
    """Connected and subscribed; ``heard`` has what came, in hex and with spaces for its eyes."""

    def __init__(self, clock: DrivenClock, pendant: Pendant, link: Connection) -> None:
        self.clock = clock
        self.pendant = pendant
        self.link = link
        self.values: list[bytes] = []

    async def ask(self, command: str, seconds: float = 0.0) -> list[str]:
        """Write a command in hex; return what came until ``seconds`` later, in hex."""
        self.values.clear()
        await self.link.write(gatt.STORAGE_CONTROL, bytes.fromhex(command))
        await self.clock.advance(seconds)
        return [value.hex() for value in self.values]

    async def status(self) -> str:
        return (await self.link.read(gatt.STORAGE_STATUS)).hex()


async def come(clock: DrivenClock, pendant: Pendant, *, audio: bool = True) -> Client:
    """Connect and subscribe, to audio too."""
    link = pendant.connect("here")
    client = Client(clock, pendant, link)
    await link.subscribe(gatt.STORAGE_CONTROL, client.values.append)
    if audio:
        await link.subscribe(gatt.AUDIO_DATA, lambda _: None)
    return client


async def stored(
    blocks: int, profile: Profile = CV1_3_0_21, *, mtu: int = 498, faults: Faults | None = None
) -> tuple[Client, list[bytes]]:
    """A connected client of a pendant with so many blocks, and the frames in them."""
    clock = noon()
    pendant = Pendant(clock, profile, mtu=mtu, faults=faults)
    packets = fill(pendant, blocks) if blocks else []
    return await come(clock, pendant), packets
