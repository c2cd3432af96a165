"""What generations A and B share: a file comes as a stream of bytes that are cut into blocks (dossier §6.2, §6.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omi_edge.capture.blocks import BLOCK_BYTES, Record, digest, record_of_file
from omi_edge.capture.dialogue import ANSWER_SECONDS, Dialogue
from omi_edge.capture.stored import GATHER_RECORDS, GATHER_SECONDS, LOOK_RECORDS, Stumble, Tally, overlap
from omi_edge.errors import LinkLost

OK, END, DELETED = 0, 100, 200
"""One-byte answers (dossier §6.2)."""
HEARTBEAT_SECONDS = 30.0
"""Between two while a file is read: each holds the pendant up for half a second, and missing ones only make it note
its place more often (dossier §6.2); so seldom."""

Payload = Callable[[bytes], bytes | int | None]
"""Reads a notification: bytes of the file, a one-byte status, or None for what is neither."""


class AnotherFile(Exception):
    """The file is not the one that the cursor speaks of, or what was kept has a hole; never leaves ``capture``."""


class Transfer:
    """One read of a file to its end, from the block before the cursor, or from the first of ``known`` on.

    ``known``: what was kept, in order, of which nobody knows yet whether it is whole. What equals it is not kept again;
    from the first block that does not, all is. With ``anywhere`` it is the same file, too, when only some of it comes
    again at another place; without, the first must be equal.
    """

    def __init__(
        self, tally: Tally, size: int, began: int | None, *, may_repeat: bool = False,
        known: Sequence[tuple[int, bytes]] = (), anywhere: bool = False,
    ) -> None:  # fmt: skip
        self.size = size
        self.start = known[0][0] if known else last_block(tally.cursor.position)
        self.fed = self.start
        """Offset behind the last byte that came."""
        self.digests = bytearray()
        """Of every block from ``start``, 8 bytes each."""
        self._tally = tally
        self._may_repeat = may_repeat
        """Whether equal blocks at the end may be stale memory: kept only once the file was checked."""
        self._known = dict(known)
        """What may still come again as it was kept."""
        self._anywhere = known[:LOOK_RECORDS] if anywhere else ()
        self._undecided = False
        """Whether it may be another file."""
        self._began = began
        self._rest = bytearray()
        self._records: list[Record] = []

    @property
    def waiting(self) -> int:
        """Records that are not durable yet."""
        return len(self._records)

    def feed(self, payload: bytes) -> None:
        """Take bytes; those beyond the file's size are stale memory (dossier §6.2). Raises AnotherFile."""
        payload = payload[: max(0, self.size - self.fed)]
        self._rest += payload
        self.fed += len(payload)
        while len(self._rest) >= BLOCK_BYTES or (self._rest and self.fed == self.size):
            raw = bytes(self._rest[:BLOCK_BYTES])
            del self._rest[:BLOCK_BYTES]
            self._take(self.fed - len(self._rest) - len(raw), raw)

    async def keep(self, *, checked: bool = False, ended: bool = False) -> None:
        """Make durable what has come. Raises AnotherFile when that is clear once it has ``ended``."""
        if self._undecided and not ended:
            return
        if self._undecided:
            self._decide()
        count = len(self._records)
        if self._may_repeat and not checked:
            count = max(0, count - equal_at_the_end(bytes(self.digests)))
        if count:
            last = self._records[count - 1]
            await self._tally.keep(self._records[:count], last.seq + len(last.raw))
            del self._records[:count]

    def _take(self, offset: int, raw: bytes) -> None:
        cursor = self._tally.cursor
        self.digests += digest(raw)
        if self._known:
            if self._known.pop(offset, None) == raw:
                return
            if offset == self.start:
                if not self._anywhere:
                    raise AnotherFile
                self._undecided = True
            self._known.clear()
        elif offset < cursor.position and offset == self.start and not self._records:
            if digest(raw) != cursor.tail:
                raise AnotherFile
            return
        self._records.append(record_of_file(cursor.store, offset, raw, self._began))
        if self._undecided and (len(self._records) >= 2 * LOOK_RECORDS or offset + len(raw) == self.size):
            self._decide()

    def _decide(self) -> None:
        if not overlap(self._anywhere, b"".join(record.raw for record in self._records)):
            raise AnotherFile
        self._undecided = False


def last_block(position: int) -> int:
    """Return the offset of the block right before ``position``; 0 at the beginning."""
    return max(0, (position - 1) // BLOCK_BYTES * BLOCK_BYTES)


async def receive(
    talk: Dialogue, transfer: Transfer, command: bytes, stop: bytes, beat: bytes, payload: Payload
) -> None:
    """Ask for a file and take it to its end. However it ends, what came is kept. Raises Stumble or AnotherFile."""
    try:
        await talk.write(command)
        await _take(talk, transfer, beat, payload)
    except LinkLost:
        await transfer.keep()
        raise
    except Stumble:
        try:
            await talk.hush(stop, lambda value: _feed(transfer, payload(value)))
        finally:
            await transfer.keep()
        raise
    except BaseException as error:
        await talk.break_off(stop)
        if not isinstance(error, Exception):  # cancelled; the keeper did not fail
            while (value := talk.take()) is not None:
                _feed(transfer, payload(value))
            await transfer.keep()
        raise


async def _take(talk: Dialogue, transfer: Transfer, beat: bytes, payload: Payload) -> None:
    clock = talk.clock
    heard_us = kept_us = beaten_us = clock.boot_us()
    answered = False
    while True:
        now_us = clock.boot_us()
        until_us = heard_us + round(ANSWER_SECONDS * 1e6)
        if transfer.waiting:
            until_us = min(until_us, kept_us + round(GATHER_SECONDS * 1e6))
        value = await talk.next((until_us - now_us) / 1e6)
        now_us = clock.boot_us()
        if value is None:
            if now_us - heard_us >= ANSWER_SECONDS * 1e6:
                raise Stumble("it stopped sending")
        else:
            content = payload(value)
            heard_us = now_us
            kept_us = kept_us if transfer.waiting else now_us
            if isinstance(content, int):
                if content == END and answered:
                    await transfer.keep(ended=True)
                    return
                if content != OK:
                    raise Stumble(f"it refused to send with status {content}")
                answered = True
            elif answered:
                _feed(transfer, content)
        if now_us - kept_us >= GATHER_SECONDS * 1e6 or transfer.waiting >= GATHER_RECORDS:
            await transfer.keep()
            kept_us = clock.boot_us()
        if answered and now_us - beaten_us >= HEARTBEAT_SECONDS * 1e6:
            beaten_us = now_us
            await talk.write(beat)


def _feed(transfer: Transfer, content: bytes | int | None) -> None:
    if isinstance(content, bytes):
        transfer.feed(content)


def equal_at_the_end(digests: bytes) -> int:
    """Return how many digests, of eight bytes each, at the end are equal to the one before them."""
    end = len(digests)
    while end >= 16 and digests[end - 16 : end - 8] == digests[end - 8 : end]:
        end -= 8
    return (len(digests) - end) // 8
