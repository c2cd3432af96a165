"""Small scripted pendants that answer storage commands by the bytes of the dossier §6, and a keeper that notes all."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from omi_edge.capture.blocks import BLOCK_BYTES, Record
from omi_edge.capture.link import OnValue
from omi_edge.capture.stored import Cursor, Loss
from omi_edge.clock import DrivenClock, Timer
from omi_edge.domain import Ending, Security, Sighting
from omi_edge.errors import LinkLost
from tests.helpers import START_US

EPOCH = START_US // 1_000_000
MTU = 498


def block_of(number: int) -> bytes:
    """Five frames that say which block they are of, and a stale tail behind a dangling length."""
    frames = [b"\xb8" + bytes([5 * number % 251, at]) + struct.pack(">I", number) * 18 for at in range(5)]
    packed = b"".join(bytes([len(frame)]) + frame for frame in frames)
    return packed + bytes([90]) + b"\x55" * (BLOCK_BYTES - len(packed) - 1)


def record_of(number: int, stamp: int | None = None) -> bytes:
    return struct.pack(">I", EPOCH + number // 10 if stamp is None else stamp) + block_of(number)


class StorageLink:
    """A link whose other side is a storage; ``queue`` sends one notification each ``step`` seconds."""

    def __init__(self, clock: DrivenClock, step: float = 0.01) -> None:
        self.address = "AA:BB"
        self.security = Security.OPEN
        self.clock = clock
        self.step = step
        self.commands: list[bytes] = []
        self.touched: set[str] = set()
        self.drop: set[int] = set()
        """Notifications, counted from 0, that get lost on the way."""
        self.cut_after: int | None = None
        self.delivered = 0
        self.per_step = 1
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._on_value: OnValue | None = None
        self._queue: list[tuple[bytes, Callable[[], None] | None]] = []
        self._timer: Timer | None = None

    async def connect(self) -> Sighting:
        self.ended = asyncio.get_running_loop().create_future()
        return Sighting("AA:BB", "Omi", -60, 0)

    def reconnect(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.delivered, self.cut_after = 0, None
        self.drop = set()
        self.commands = []
        self._queue.clear()

    def offers(self, uuid: str) -> bool:
        return True

    async def read(self, uuid: str) -> bytes:
        self.touched.add(uuid)
        if self.ended.done():
            raise LinkLost("gone.")
        return self.status()

    async def write(self, uuid: str, value: bytes) -> None:
        self.touched.add(uuid)
        if self.ended.done():
            raise LinkLost("gone.")
        assert len(self.commands) < 10_000
        self.commands.append(value)
        self.command(value)

    async def subscribe(self, uuid: str, on_value: OnValue) -> None:
        self.touched.add(uuid)
        self._on_value = on_value

    async def pair(self) -> None: ...
    async def unpair(self) -> None: ...

    async def wait_disconnected(self) -> Ending:
        return await asyncio.shield(self.ended)

    async def close(self) -> None: ...

    def end(self) -> None:
        self._queue.clear()
        if not self.ended.done():
            self.ended.set_result(Ending.TIMEOUT)

    def status(self) -> bytes:
        return bytes(16)

    def command(self, value: bytes) -> None:
        raise NotImplementedError

    def send(self, value: bytes, then: Callable[[], None] | None = None) -> None:
        self._queue.append((value, then))
        if self._timer is None:
            self._timer = self.clock.call_later(self.step, self._next)

    def quiet(self) -> None:
        self._queue.clear()

    def _next(self) -> None:
        self._timer = None
        for _ in range(self.per_step):
            if self._queue and not self.ended.done():
                self._deliver(*self._queue.pop(0))
        if self._queue and self._timer is None and not self.ended.done():
            self._timer = self.clock.call_later(self.step, self._next)

    def _deliver(self, value: bytes, then: Callable[[], None] | None) -> None:
        if self._on_value is not None and self.delivered not in self.drop:
            self._on_value(value)
        self.delivered += 1
        if then is not None:
            then()
        if self.cut_after is not None and self.delivered >= self.cut_after:
            self.end()

    @property
    def kinds(self) -> list[int]:
        return [command[0] for command in self.commands]


class RingLink(StorageLink):
    """Generation C. ``frees`` is what 3.0.21 does: what was sent is gone."""

    def __init__(self, clock: DrivenClock, records: Sequence[bytes], **options: Any) -> None:
        super().__init__(clock, options.pop("step", 0.01))
        self.first: int = options.pop("first", 0)
        self.records = list(records)
        self.read_seq = self.first
        self.dropped = 0
        self.frees: bool = options.pop("frees", False)
        self.crc: bool = options.pop("crc", False)
        self.ring_id: int | None = options.pop("ring_id", None)
        self.not_ready: int = options.pop("not_ready", 0)
        self.mute = False
        assert not options

    @property
    def write_seq(self) -> int:
        return self.first + len(self.records)

    def overwrite(self, count: int) -> None:
        self.read_seq += count
        self.dropped += count

    def command(self, value: bytes) -> None:
        if self.mute:
            return
        match value[0]:
            case 0x03:
                self.quiet()
                self.send(b"\x01\x00")
            case 0x10 if self.not_ready:
                self.not_ready -= 1
                self.send(b"\x01\x09")
            case 0x10:
                info = struct.pack(">BQQIQH", 2, self.read_seq, self.write_seq, 1_045_000, self.dropped, 444)
                if self.ring_id is not None:
                    info += bytes([0x0F, 1]) + self.ring_id.to_bytes(8, "big") + b"later"
                self.send(info)
            case 0x11:
                self._read(*struct.unpack(">QI", value[1:]))
            case 0x12:
                self._advance(int.from_bytes(value[1:], "big"))
            case 0x14:
                self.send(b"\x01\x06" if self.ring_id is None else bytes([1, 0, value[2]]))
            case 0x15:
                ring_id, seq = struct.unpack(">QQ", value[1:])
                if ring_id == self.ring_id:
                    self._advance(seq)
                else:
                    self.send(b"\x01\x0b")
            case _:
                raise AssertionError(value)

    def _read(self, start: int, count: int) -> None:
        if not self.read_seq <= start <= self.write_seq:
            self.send(b"\x01\x0a")
            return
        count = min(count, self.write_seq - start)
        self.send(struct.pack(">BQI", 5, start, count))
        payload = b"".join(self.records[start - self.first : start - self.first + count])
        for at in range(0, len(payload), MTU - 4):
            end = start + min(len(payload), at + MTU - 4) // 444
            self.send(b"\x03" + payload[at : at + MTU - 4], lambda end=end: self._sent(end))  # type: ignore[misc]
        done = struct.pack(">BBQ", 4, 0, start + count)
        self.send(done + struct.pack(">I", zlib.crc32(payload)) if self.crc else done)
        self.send(b"\x77what a later firmware may tell")

    def _sent(self, end: int) -> None:
        if self.frees:
            self.read_seq = max(self.read_seq, end)

    def _advance(self, seq: int) -> None:
        if self.read_seq <= seq <= self.write_seq:
            self.read_seq = seq
            self.send(b"\x01\x00")
        else:
            self.send(b"\x01\x0a")


class SingleLink(StorageLink):
    """Generation A. ``skip``: blocks that it fails to send once, so that stale memory follows the end.

    With ``repeats`` that memory is the last block; else it is of another time.
    """

    def __init__(self, clock: DrivenClock, content: bytes, skip: Sequence[int] = (), *, repeats: bool = False) -> None:
        super().__init__(clock)
        self.content = content
        self.repeats = repeats
        self.skip = list(skip)

    def status(self) -> bytes:
        return struct.pack("<II", len(self.content), 0)

    def command(self, value: bytes) -> None:
        assert len(value) in (2, 6)
        if value[0] == 3:
            self.quiet()
        self.send(b"\x00")
        if value[0] == 0:
            at = int.from_bytes(value[2:], "big") // 440 * 440
            left = len(self.content) - at
            while left > 0:
                if at in self.skip:
                    self.skip.remove(at)
                    at += 440
                    continue
                stale = self.content[-440:] if self.repeats else b"\x55" * 440
                chunk = self.content[at : at + 440] or stale
                self.send(chunk)
                at, left = at + 440, left - 440
            self.send(b"\x64")
        elif value[0] == 1:
            self.content = b""
            self.send(b"\xc8")
        else:
            assert value[0] in (3, 0x32)


class MultiLink(StorageLink):
    """Generation B: the last file is the one being recorded."""

    def __init__(self, clock: DrivenClock, files: dict[int, bytes], mtu: int = 498) -> None:
        super().__init__(clock)
        self.files = files
        self.chunk = min(mtu - 7, 440)
        self.keeps_last = False

    def command(self, value: bytes) -> None:
        names = list(self.files)
        match value[0]:
            case 0x03:
                self.quiet()
                self.send(b"\x00")
            case 0x32:
                self.send(b"\x00")
            case 0x10:
                rows = b"".join(struct.pack(">II", name, len(data)) for name, data in self.files.items())
                self.send(bytes([len(names)]) + rows)
            case 0x11 if value[1] >= len(names):
                self.send(b"\x08")
            case 0x11:
                self._read(names[value[1]], int.from_bytes(value[2:], "big"))
            case 0x12 if value[1] >= len(names):
                self.send(b"\x08")
            case 0x12 if self.keeps_last and value[1] == len(names) - 1:
                self.send(b"\x07\x07")
            case 0x12:
                del self.files[names[value[1]]]
                self.send(b"\x00")
            case _:
                raise AssertionError(value)

    def _read(self, name: int, offset: int) -> None:
        self.send(b"\x00")
        content = self.files[name][offset:]
        starts = range(0, len(content), self.chunk)
        for at in starts:
            gone = at == starts[-1] and name != list(self.files)[-1]
            value = name.to_bytes(4, "big") + content[at : at + self.chunk]
            self.send(value, (lambda: self._gone(name)) if gone else None)
        self.send(b"\x64")

    def _gone(self, name: int) -> None:
        self.files.pop(name, None)


class Owner:
    """Keeps in memory what a pipeline would keep in its file; conforms to Keeper."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Record] = {}
        self.cursor: Cursor | None = None
        self.losses: list[Loss] = []
        self.freed_at: list[tuple[int, int]] = []
        self.told: list[tuple[int, int]] = []
        self.batches: list[int] = []
        self.ends: list[int] = []
        """Where the store ends, with each word."""
        self.error: Exception | None = None

    async def keep(self, records: Sequence[Record], cursor: Cursor) -> None:
        if self.error is not None:
            raise self.error
        self.records |= {(record.store, record.seq): record for record in records}
        self.batches.append(len(records))
        self.cursor = cursor
        self.ends.append(cursor.end)

    async def freed(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.ends.append(cursor.end)
        self.freed_at.append((cursor.store, cursor.position))

    async def lost(self, loss: Loss, cursor: Cursor) -> None:
        self.losses.append(loss)
        self.cursor = cursor
        self.ends.append(cursor.end)

    async def kept(self, store: int, since: int, most: int) -> Sequence[tuple[int, bytes]]:
        final = max(self.freed_at, default=(0, 0))
        places = sorted(place for place in self.records if place[0] == store and place >= max((store, since), final))
        return [(place[1], self.records[place].raw) for place in places[:most]]

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        assert 0 <= done_bytes <= total_bytes
        self.told.append((done_bytes, total_bytes))

    @property
    def raw(self) -> list[bytes]:
        return [self.records[key].raw for key in sorted(self.records)]
