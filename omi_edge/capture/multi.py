"""Fetches the files of generation B (dossier §6.4), oldest first.

The pendant deletes a file by itself once it has sent the last byte, unless it is the one being recorded: what is read
must be taken as the only copy. Indices move when a file goes, so the list is read again before each command.

What was kept may have a hole where a notification got lost, and the link may break off before the sizes are compared.
So what is not final begins some way before the cursor again: where that differs there is still time to stop before the
last byte is sent, and the file is read anew from where it is not final yet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from omi_edge.capture.blocks import BLOCK_BYTES
from omi_edge.capture.device import MIN_EPOCH
from omi_edge.capture.dialogue import ANSWER_SECONDS, Dialogue
from omi_edge.capture.files import OK, AnotherFile, Transfer, last_block, receive
from omi_edge.capture.persevere import persevere
from omi_edge.capture.stored import FEW_RECORDS, Loss, Stumble, Tally, Why
from omi_edge.errors import BadPeripheral

STOP, LIST, HEARTBEAT = b"\x03", b"\x10", b"\x32"
NOT_FOUND = 7
MOST_FILES = 1000
"""A status with more of them is one of generation A, as Omi's app takes it (dossier §6.4)."""
AGAIN_BLOCKS = 64
"""That are read again after an interruption, at most: our choice, 1.7 s at the pace of the ring (dossier §6.5)."""


class File(msgspec.Struct, frozen=True):
    """One file of the list."""

    name: int
    """When it began, by the pendant's clock; or its uptime then, before the clock was set."""
    size: int


def files_of(value: bytes) -> tuple[File, ...] | None:
    """Read the list: as many as are whole; None for what is no list."""
    if len(value) == 1 and value[0] == 0:
        return ()
    count = min(value[0], (len(value) - 1) // 8) if value else 0
    if count == 0:
        return None
    return tuple(File(*struct.unpack_from(">II", value, 1 + 8 * index)) for index in range(count))


def read(index: int, offset: int) -> bytes:
    """Return the command that reads a file from ``offset``."""
    return struct.pack(">BBI", 0x11, index, offset)


def delete(index: int) -> bytes:
    """Return the command that deletes a file."""
    return bytes([0x12, index])


def payload(value: bytes, name: int) -> bytes | int | None:
    """Read a notification: a status, or data of the file ``name``; what is of another file is left over."""
    if len(value) == 1:
        return value[0]
    return value[4:] if len(value) > 4 and value[:4] == name.to_bytes(4, "big") else None


async def drain(talk: Dialogue, tally: Tally) -> None:
    """Fetch all files. Raises LinkError's family, and what the keeper raises."""
    status = await talk.status()
    if len(status) >= 8 and int.from_bytes(status[4:8], "little") > MOST_FILES:
        raise BadPeripheral("the pendant's storage is of another kind than its firmware's version; it is left alone.")
    await persevere(talk, tally, STOP, _Fetch(talk, tally).once)


class _Fetch:
    def __init__(self, talk: Dialogue, tally: Tally) -> None:
        self._talk = talk
        self._tally = tally
        self._left: set[int] = set()
        """Files that the pendant does not delete: the one being recorded."""
        self._doubtful = False
        """Whether what was kept of the file did not come again where it was to."""
        self._strange: int | None = None
        """The file of which nothing of the little that was kept came again; that may have been a hole."""

    async def once(self) -> bool:
        """Read one file and see it deleted; False when there is none."""
        files = await self._list()
        await self._follow(files)
        waiting = [file for file in files if file.name not in self._left and file.size]
        if not waiting:
            return False
        file = next((file for file in waiting if file.name == self._tally.cursor.identity), waiting[0])
        cursor = self._tally.cursor
        if cursor.store == 0 or cursor.identity != file.name or cursor.position > file.size:
            self._tally.begin_store(file.name, 0, end=file.size)
        self._tally.cursor = msgspec.structs.replace(self._tally.cursor, end=file.size)
        if self._tally.cursor != cursor:  # durable before it is read: once it was sent only the cursor knows of it
            await self._tally.keeper.keep((), self._tally.cursor)
        self._tally.left(self._bytes_left(files))
        if self._tally.cursor.position < file.size and not await self._read(files.index(file), file):
            return True
        await self._delete(file)
        return True

    def _bytes_left(self, files: tuple[File, ...]) -> int:
        cursor = self._tally.cursor
        whole = sum(file.size for file in files if file.name not in self._left)
        return max(0, whole - (cursor.position if any(file.name == cursor.identity for file in files) else 0))

    async def _list(self) -> tuple[File, ...]:
        await self._talk.write(LIST)
        while True:
            value = await self._talk.next(ANSWER_SECONDS)
            if value is None or value == b"\xff":
                raise Stumble("it does not list its files")
            if (files := files_of(value)) is not None:
                return files

    async def _follow(self, files: tuple[File, ...]) -> None:
        """Find the file that was being read: it may have got its name since, or be gone."""
        cursor = self._tally.cursor
        if cursor.identity is None or any(file.name == cursor.identity for file in files):
            return
        if cursor.identity < MIN_EPOCH:  # a name by uptime is changed once the clock is set (dossier §6.4)
            renamed = [file for file in files if file.size == cursor.end and file.name >= MIN_EPOCH]
            if len(renamed) == 1:
                self._tally.cursor = msgspec.structs.replace(cursor, identity=renamed[0].name)
                return
        if cursor.position < cursor.end:
            await self._lose(cursor.position, cursor.end, cursor.end - cursor.position, Why.FREED)
        await self._forget()

    async def _read(self, index: int, file: File) -> bool:
        """Read a file to its end; False when it must be looked at anew."""
        entry = self._tally.cursor
        known, first = await self._known()
        transfer = Transfer(self._tally, file.size, file.name, known=known, anywhere=first)
        command = read(index, transfer.start)
        try:
            await receive(self._talk, transfer, command, STOP, HEARTBEAT, lambda value: payload(value, file.name))
        except AnotherFile:
            if known and not first:
                self._doubtful = True
                raise Stumble("what came is not what was kept") from None
            if len(known) < FEW_RECORDS and file.name >= MIN_EPOCH and file.name != self._strange:
                self._strange = file.name
                raise Stumble("what came is not what was kept") from None
            gone = self._tally.cursor  # it only had the size, or the name, of the one that was read before
            if gone.position < gone.end:
                await self._lose(gone.position, gone.end, gone.end - gone.position, Why.FREED)
            self._tally.begin_store(file.name, 0, end=file.size)
            await self._talk.hush(STOP)
            return False
        self._doubtful = False
        missing = file.size - transfer.fed
        if missing == 0:
            return True
        await self._talk.hush(STOP)
        if any(other.name == file.name for other in await self._list()):
            self._tally.cursor = entry
            raise Stumble("it sent less than it has")
        await self._lose(min(entry.position, transfer.start), file.size, missing, Why.GARBLED)
        await self._forget()
        return False

    async def _known(self) -> tuple[Sequence[tuple[int, bytes]], bool]:
        """Return what of the file is to come again, and whether that is the first that is not final."""
        keeper, cursor = self._tally.keeper, self._tally.cursor
        whole = await keeper.kept(cursor.store, 0, AGAIN_BLOCKS)
        since = last_block(cursor.position) - (AGAIN_BLOCKS - 1) * BLOCK_BYTES
        first = self._doubtful or not whole or since <= whole[0][0]
        known = whole if first else await keeper.kept(cursor.store, since, AGAIN_BLOCKS)
        return [(offset, raw) for offset, raw in known if offset < cursor.position], first

    async def _delete(self, file: File) -> None:
        """See that a file which was read whole is gone."""
        files = await self._list()
        index = next((at for at, other in enumerate(files) if other.name == file.name), None)
        if index is not None and files[index].size > self._tally.cursor.position:
            return  # it has grown
        if index is not None:
            await self._talk.write(delete(index))
            value = await self._talk.next(ANSWER_SECONDS)
            if value is None or len(value) != 1 or value[0] not in (OK, NOT_FOUND):
                if file != files[-1]:
                    raise Stumble("it does not delete what was fetched")
                self._left.add(file.name)  # the one being recorded; the cursor remembers how far it was read
                return
        await self._forget()

    async def _lose(self, first: int, end: int, missing: int, why: Why) -> None:
        records = -(-missing // BLOCK_BYTES)
        await self._tally.lose(Loss(self._tally.cursor.store, first, end - 1, records, why), end)

    async def _forget(self) -> None:
        """A file is gone: its name may be given again."""
        self._tally.cursor = msgspec.structs.replace(self._tally.cursor, identity=None, end=0)
        await self._tally.keeper.freed(self._tally.cursor)
