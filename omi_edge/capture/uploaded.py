"""Decodes a recording that was sent in, inside an engine process: what is made by strangers is taken apart there.

The process has no file. Each call returns what the decoder needs next, some bytes at an offset, or what it has made of
those before; so neither side ever holds the whole of it.
"""

from __future__ import annotations

import io
import os
import queue
import threading
from typing import BinaryIO, cast

import msgspec

from omi_edge.capture.replay import Recording
from omi_edge.errors import AudioError

WINDOW_BYTES = 64 * 1024
"""So much is asked for at once. A choice: 2 s of 16 kHz PCM, some more of anything else."""


class Step(msgspec.Struct, frozen=True):
    """What comes of a call."""

    offset: int = 0
    size: int = 0
    """Bytes that are needed from ``offset``; 0 when this is something else."""
    pcm: bytes = b""
    """s16le mono 16 kHz."""
    problem: str = ""
    """Why it cannot be read to its end."""

    @property
    def ended(self) -> bool:
        """Whether that was all of it."""
        return not (self.size or self.pcm)


class UploadDecoder:
    """One recording at a time: ``start``, then ``go_on`` with what was asked for (or nothing) until it has ended."""

    def __init__(self) -> None:
        self._remote: _Remote | None = None

    def start(self, size: int) -> Step:
        """Begin with a recording of so many bytes; whatever was under way is given up."""
        if self._remote is not None:
            self._remote.give(None)
        self._remote = _Remote(size)
        threading.Thread(target=_decode, args=(self._remote,), daemon=True).start()
        return self._remote.next()

    def go_on(self, data: bytes) -> Step:
        """Go on with the bytes that were asked for; after PCM with none."""
        if self._remote is None:
            raise ValueError("nothing was started")
        self._remote.give(data)
        return self._remote.next()


class _Remote(io.RawIOBase):
    """A file whose bytes are asked for as they are needed."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0
        self._window = b""
        self._window_at = 0
        self._asked: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def next(self) -> Step:
        """Wait for what the decoder says."""
        return self._asked.get()

    def give(self, data: bytes | None) -> None:
        """Hand over what was asked for; None ends it."""
        self._given.put(data)

    def tell_step(self, step: Step) -> bytes:
        """Say something from the decoder's side, and wait for the answer."""
        self._asked.put(step)
        data = self._given.get()
        if data is None:
            raise OSError("given up")
        return data

    def end(self, problem: str) -> None:
        """Say that there is nothing more."""
        self._asked.put(Step(problem=problem))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        parts = []
        while wanted > 0:
            part = self._some(wanted)
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def _some(self, wanted: int) -> bytes:
        inside = self._at - self._window_at
        if not 0 <= inside < len(self._window):
            at = self._at // WINDOW_BYTES * WINDOW_BYTES
            size = min(WINDOW_BYTES, self._size - at)
            self._window, self._window_at = self.tell_step(Step(at, size)), at
            if len(self._window) != size:
                raise OSError("a piece is missing")
            inside = self._at - at
        return self._window[inside : inside + wanted]


def _decode(remote: _Remote) -> None:
    try:
        recording = Recording(cast(BinaryIO, remote))
        for block in recording:
            remote.tell_step(Step(pcm=block.astype("<i2", copy=False).tobytes()))
        remote.end(recording.damage or "")
    except AudioError as error:
        remote.end(str(error))
    except Exception:  # noqa: BLE001 a thread's end must be told, and what the library says may hold content
        remote.end("the recording cannot be decoded.")
