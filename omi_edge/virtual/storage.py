"""The stored audio's service while there is nothing behind it: the status is empty, and every command is put off."""

from __future__ import annotations

from omi_edge.virtual.profiles import StorageKind

_STATUS_BYTES = {StorageKind.SINGLE_FILE: 8, StorageKind.MULTI_FILE: 16, StorageKind.RING: 16}
"""Dossier §6.2, §6.4, §6.5."""
_STOP, _HEARTBEAT = 0x03, 0x32
_LIST, _READ, _DELETE = 0x10, 0x11, 0x12
_RING_COMMANDS = {0x03: (1,), 0x10: (1,), 0x11: (9, 13), 0x12: (9,), 0x13: (1,)}
"""Commands of the ring and how long they may be (dossier §6.5)."""
OK, BAD_FILE, EMPTY, INVALID, NOT_FOUND, NOT_READY = 0, 3, 4, 6, 7, 9


class Storage:
    """Answers as the generation ``kind`` does when it has nothing."""

    def __init__(self, kind: StorageKind) -> None:
        self._kind = kind

    @property
    def present(self) -> bool:
        """Whether the pendant has a storage service at all."""
        return self._kind is not StorageKind.NONE

    def status(self) -> bytes:
        """Return the status: zeros."""
        return bytes(_STATUS_BYTES[self._kind])

    def answer(self, command: bytes) -> bytes:
        """Return the notification that answers ``command``."""
        if self._kind is StorageKind.SINGLE_FILE:
            return bytes([_single_file(command)])
        if self._kind is StorageKind.MULTI_FILE:
            return _multi_file(command)
        return bytes([0x01, _ring(command)])


def _single_file(command: bytes) -> int:
    if len(command) not in (2, 6) or command[0] not in (0, 1, 2, _STOP, _HEARTBEAT):
        return INVALID
    if command[1] != 1:
        return BAD_FILE
    return EMPTY if command[0] == 0 else OK


def _multi_file(command: bytes) -> bytes:
    kind = command[0] if command else 0
    if kind == _LIST:
        return b"\xff"
    if kind in (_STOP, _HEARTBEAT):
        return bytes([OK])
    return bytes([NOT_FOUND if kind in (_READ, _DELETE) else INVALID])


def _ring(command: bytes) -> int:
    if not command or len(command) not in _RING_COMMANDS.get(command[0], ()):
        return INVALID
    return OK if command[0] == _STOP else NOT_READY
