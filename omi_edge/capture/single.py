"""Fetches the one file of generation A (dossier §6.2): deleted on the pendant only after our commit and a check.

Its data have neither opcode nor offset, and a notification that the pendant could not send is skipped: so the last
block is asked for once more before anything is deleted, and where it differs the place of the first skip is looked for.
So it is, too, where the link broke off before that and what was kept does not come again.
"""

from __future__ import annotations

import struct

import msgspec

from omi_edge.capture.blocks import BLOCK_BYTES, digest
from omi_edge.capture.device import MIN_EPOCH
from omi_edge.capture.dialogue import ANSWER_SECONDS, Dialogue
from omi_edge.capture.files import DELETED, END, OK, AnotherFile, Transfer, equal_at_the_end, last_block, receive
from omi_edge.capture.persevere import persevere
from omi_edge.capture.stored import LOOK_RECORDS, Stumble, Tally, overlap

STOP, HEARTBEAT, DELETE = b"\x03\x01", b"\x32\x01", b"\x01\x01"
DELETE_SECONDS = 30.0
"""For a file to be gone; assumed, no source gives it."""


class Status(msgspec.Struct, frozen=True):
    """What the status characteristic tells (dossier §6.2)."""

    size: int
    began: int | None = None
    """When the recording began, by the pendant's clock; firmware 3.0.16 alone tells it."""


def status_of(value: bytes) -> Status | None:
    """Read the status: eight bytes or more, little-endian."""
    if len(value) < 8:
        return None
    began = int.from_bytes(value[8:12], "little") if len(value) >= 12 else 0
    return Status(int.from_bytes(value[:4], "little"), began if began >= MIN_EPOCH else None)


def read(offset: int) -> bytes:
    """Return the command that reads the file from ``offset``, a multiple of 440."""
    return struct.pack(">BBI", 0, 1, offset)


def payload(value: bytes) -> bytes | int | None:
    """Read a notification: one byte is a status, anything longer is data."""
    return value[0] if len(value) == 1 else value or None


async def drain(talk: Dialogue, tally: Tally) -> None:
    """Fetch the file and delete it. Raises LinkError's family, and what the keeper raises."""
    await persevere(talk, tally, STOP, _Fetch(talk, tally).once)


class _Fetch:
    def __init__(self, talk: Dialogue, tally: Tally) -> None:
        self._talk = talk
        self._tally = tally

    async def once(self) -> bool:
        """Read what is missing, check, delete; False when nothing is left."""
        status = await self._status()
        cursor = self._tally.cursor
        if status.size == 0:
            if cursor.position > 0:  # it was deleted, although we did not hear so
                await self._over()
            return False
        if cursor.store == 0 or cursor.position > status.size:
            self._tally.begin_store(None, 0)
        self._tally.cursor = msgspec.structs.replace(self._tally.cursor, end=status.size)
        self._tally.left(status.size - self._tally.cursor.position)
        transfer = Transfer(self._tally, status.size, status.began, may_repeat=True)
        try:
            await receive(self._talk, transfer, read(transfer.start), STOP, HEARTBEAT, payload)
        except AnotherFile:
            await self._retrace(status.size)
            return True
        if transfer.fed < transfer.size:
            raise Stumble("it sent less than it has")
        await self._check(transfer)
        await transfer.keep(checked=True)
        if (await self._status()).size > self._tally.cursor.position:
            return True
        await self._delete()
        return False

    async def _status(self) -> Status:
        status = status_of(await self._talk.status())
        if status is None:
            raise Stumble("it does not tell how its storage stands")
        return status

    async def _check(self, transfer: Transfer) -> None:
        """Compare the last block with the pendant's; go back to the first that differs.

        What it sends in place of skipped blocks may repeat its last one, which then agrees: so the first of the equal
        blocks at the end is asked for.
        """
        last = last_block(transfer.size)
        if count := len(transfer.digests) // 8:
            last = transfer.start + BLOCK_BYTES * (count - 1 - equal_at_the_end(bytes(transfer.digests)))
        if await self._agrees(transfer, last):
            return
        low, high = transfer.start, last  # somewhere after the blocks that agree come those that do not
        while low < high:
            middle = (low + high) // 2 // BLOCK_BYTES * BLOCK_BYTES
            if await self._agrees(transfer, middle):
                low = middle + BLOCK_BYTES
            else:
                high = middle
        before = (low - transfer.start) // BLOCK_BYTES - 1
        tail = bytes(transfer.digests[8 * before : 8 * before + 8]) if before >= 0 else b""
        self._tally.cursor = msgspec.structs.replace(self._tally.cursor, position=low if tail else 0, tail=tail)
        raise Stumble("it left blocks out")

    async def _agrees(self, transfer: Transfer, offset: int) -> bool:
        """Say whether the pendant's block at ``offset`` is the one that came for it."""
        content = await self._again(offset, min(BLOCK_BYTES, transfer.size - offset))
        at = 8 * ((offset - transfer.start) // BLOCK_BYTES)
        return digest(content) == bytes(transfer.digests[at : at + 8])

    async def _retrace(self, size: int) -> None:
        """What was kept does not come again: go back to the first block that differs, or begin with another file.

        Raises Stumble for the former.
        """
        tally = self._tally
        store, position = tally.cursor.store, tally.cursor.position
        kept = await tally.keeper.kept(store, 0, LOOK_RECORDS)
        some = min(2 * LOOK_RECORDS * BLOCK_BYTES, size)
        # twice: the first of them may be left out again
        if not kept or not (overlap(kept, await self._again(0, some)) or overlap(kept, await self._again(0, some))):
            await self._talk.hush(STOP)
            tally.begin_store(None, 0)
            return
        low, high, tail = 0, last_block(position) + BLOCK_BYTES, b""
        while low < high:
            middle = (low + high) // 2 // BLOCK_BYTES * BLOCK_BYTES
            kept = await tally.keeper.kept(store, middle, 1)
            if kept and kept[0] == (middle, await self._again(middle, min(BLOCK_BYTES, size - middle))):
                low, tail = middle + BLOCK_BYTES, digest(kept[0][1])
            else:
                high = middle
        tally.cursor = msgspec.structs.replace(tally.cursor, position=min(low, position), tail=tail)
        raise Stumble("what came is not what was kept")

    async def _again(self, offset: int, size: int) -> bytes:
        """Ask for so many bytes once more; fewer where it ends before. Raises Stumble when none come."""
        await self._talk.hush(STOP)
        await self._talk.write(read(offset))
        came = b""
        answered = False
        while len(came) < size:
            value = await self._talk.next(ANSWER_SECONDS)
            content = payload(value or b"")
            if value is None or content == END:
                break
            if isinstance(content, bytes) and answered:
                came += content
            elif content == OK:
                answered = True
            elif isinstance(content, int):
                raise Stumble(f"it refused to send with status {content}")
        await self._talk.hush(STOP)
        if not came:
            raise Stumble("it does not send a block again")
        return came[:size]

    async def _delete(self) -> None:
        await self._talk.write(DELETE)
        while True:
            value = await self._talk.next(DELETE_SECONDS)
            content = payload(value or b"")
            if value is None or (isinstance(content, int) and content not in (OK, DELETED)):
                raise Stumble("it does not delete what was fetched")
            if content == DELETED:
                break
        await self._over()

    async def _over(self) -> None:
        """The file is gone; the next is another one."""
        self._tally.begin_store(None, 0)
        await self._tally.keeper.freed(self._tally.cursor)
