"""A recording as a source: whatever PyAV reads, as 16 kHz mono PCM. What a damaged file still holds is kept."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.capture import containers
from omi_edge.domain import SAMPLE_RATE, Codec
from omi_edge.errors import AudioError

Samples = npt.NDArray[np.int16]

_OPTIONS = {"protocol_whitelist": "-"}
"""No format may open anything but the file it was handed: a playlist names other files, or hosts on the network."""
_SHORT_SECONDS = 0.05
"""Encoders pad and trim some milliseconds; what lacks more than this is missing."""


class RecordingInfo(msgspec.Struct, frozen=True):
    """What a file says about itself."""

    name: str
    """Of the file, without its folder."""
    seconds: float | None
    """Duration, None where the file does not tell."""
    start_us: int | None
    """When it was recorded (UTC), from its creation_time tag; None where it does not tell."""
    codec: str
    rate: int
    """Samples per second."""
    channels: int


class Recording:
    """An audio file, read block by block. The constructor raises AudioError when it is none."""

    frame_codec: Codec | None = None
    """It is read as PCM, never as a pendant's frames."""
    device = ""
    """It does not tell which pendant it is of."""

    def __init__(self, source: Path | BinaryIO) -> None:
        self._source = source
        """Its file, or what can be read and moved about in like one."""
        self.damage: str | None = None
        """What could not be read, known when ``read`` has ended; None for a sound file."""
        self._stated = False
        self.info = self._probe()

    def __iter__(self) -> Iterator[Samples]:
        return self.read()

    def read(self) -> Iterator[Samples]:
        """Yield blocks of int16 samples at 16 kHz mono, of any length; several channels are mixed down.

        What can be read is yielded even when the file is damaged or ends early; ``damage`` then says so. Raises
        AudioError when there is no audio at all.
        """
        self.damage = None
        heard = 0
        mixer = _Mixer()
        decoder = _Decoder(self._source)
        for frame in decoder.frames():
            for block in mixer.mix(frame):
                heard += len(block)
                yield block
        for block in mixer.rest():
            heard += len(block)
            yield block
        if not heard:
            raise AudioError("the recording holds no audio that can be decoded. Export it again, as WAV for example.")
        self.damage = self._assess(heard / SAMPLE_RATE, decoder)

    def digest(self) -> bytes:
        """Return SHA-256 of the codec and of what the container wraps: tags, names and chapters do not count.

        Nothing is decoded: so it does not change with the decoder.
        """
        found = hashlib.sha256(f"{self.info.codec} {self.info.rate} {self.info.channels}\n".encode())
        with _opened(self._source) as container:
            packets = container.demux(_audio(container))
            try:
                for packet in packets:
                    found.update(bytes(packet))
            except (_av().FFmpegError, ValueError, EOFError):
                pass  # what cannot be read cannot be taken either
        return found.digest()

    def _assess(self, seconds: float, decoder: _Decoder) -> str | None:
        announced = self.info.seconds
        if self._stated and announced is not None and seconds < announced - _SHORT_SECONDS:
            return f"{seconds:.2f} s could be read of the {announced:.2f} s that the file announces."
        with opened_file(self._source) as file:
            breaks_off = containers.breaks_off(file)
        if decoder.broken or breaks_off:
            return f"the file breaks off after {seconds:.2f} s."
        if decoder.skipped:
            return f"damaged parts were left out ({decoder.skipped}); {seconds:.2f} s could be read."
        return None

    def _probe(self) -> RecordingInfo:
        with _opened(self._source) as container:
            stream = _audio(container)
            name = container.format.name
            seconds = container.duration / _av().time_base if container.duration else None
            moment = container.metadata.get("creation_time") or stream.metadata.get("creation_time")
            codec = stream.codec_context
            info = RecordingInfo(
                self._source.name if isinstance(self._source, Path) else "", seconds, _moment(moment), codec.name,
                codec.sample_rate, codec.channels,
            )  # fmt: skip
        with opened_file(self._source) as file:
            self._stated = containers.states_duration(file, name)
        return info


class _Decoder:
    """Decodes packet by packet, so that a damaged one costs only itself."""

    def __init__(self, source: Path | BinaryIO) -> None:
        self.skipped = 0
        self.broken = False
        self._source = source

    def frames(self) -> Iterator[Any]:
        av = _av()
        with _opened(self._source) as container:
            packets = container.demux(_audio(container))
            while True:
                try:
                    packet = next(packets, None)
                except (av.FFmpegError, ValueError, EOFError):
                    self.broken = True
                    return
                if packet is None:
                    return
                try:
                    frames = packet.decode()
                except (av.FFmpegError, ValueError, EOFError):
                    self.skipped += 1
                    continue
                yield from frames


class _Mixer:
    """To 16 kHz mono, whatever comes; the format may change within a file (chained Ogg)."""

    def __init__(self) -> None:
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None

    def mix(self, frame: Any) -> Iterator[Samples]:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._format:
            yield from self.rest()
            self._resampler = _av().AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self._format = form
        frame.pts = None  # blocks follow one another whatever the stamps say
        yield from self._blocks(frame)

    def rest(self) -> Iterator[Samples]:
        if self._resampler is not None:
            yield from self._blocks(None)

    def _blocks(self, frame: Any) -> Iterator[Samples]:
        for piece in self._resampler.resample(frame):
            if piece.samples:
                yield piece.to_ndarray().reshape(-1)


@contextlib.contextmanager
def opened_file(path: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Have a recording's file open for reading. Raises AudioError when there is none, or nothing in it."""
    if not isinstance(path, Path):
        path.seek(0)
        yield path
        return
    try:
        if not path.exists():
            raise AudioError("there is no such recording. Check the path.")
        if not path.is_file():
            raise AudioError("the recording is not a file. Name the audio file itself.")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise AudioError("the recording is empty: the file has no bytes.")
            yield file
    except PermissionError as error:
        raise AudioError("the recording may not be read. Check the permissions of the file.") from error
    except OSError as error:
        raise AudioError("the recording cannot be read. Check the disk that it lies on.") from error


@contextlib.contextmanager
def _opened(path: Path | BinaryIO) -> Iterator[Any]:
    av = _av()
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(opened_file(path))
        try:
            container = opened.enter_context(av.open(file, options=_OPTIONS, metadata_errors="replace"))
        except (av.FFmpegError, ValueError, EOFError, OSError) as error:
            raise AudioError(
                "the file is not audio that can be read, or its beginning or end is missing (an M4A needs both). WAV, "
                "FLAC, MP3, M4A and Ogg can be read."
            ) from error
        yield container


def _audio(container: Any) -> Any:
    if not container.streams.audio:
        raise AudioError("the recording has no audio track.")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise AudioError("the recording is of a kind of audio that nothing here can decode.")
    return stream


def _moment(text: str | None) -> int | None:
    """A moment with its zone, else nothing: a bare date or an unzoned time would be a guess."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if moment.tzinfo is None or moment.timestamp() <= 0:
        return None
    return round(moment.timestamp() * 1e6)


@functools.cache
def _av() -> Any:
    av = importlib.import_module("av")
    av.logging.set_level(None)  # its warnings would name files and end up on the terminal
    return av
