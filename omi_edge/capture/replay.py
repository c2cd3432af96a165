"""A recording as a source: whatever PyAV reads, as 16 kHz mono PCM. What a damaged file still holds is kept."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import AudioError

Samples = npt.NDArray[np.int16]

_OPTIONS = {"protocol_whitelist": "-"}
"""No format may open anything but the file it was handed: a playlist names other files, or hosts on the network."""
_ESTIMATES = frozenset({"mp3", "aac"})
"""Formats whose duration may be a guess from the bit rate, so that a shorter one proves nothing."""
_SHORT_SECONDS = 0.5
"""Encoders pad and trim some milliseconds; what lacks more than this was cut off."""


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

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        """What could not be read, known when ``read`` has ended; None for a sound file."""
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
        decoder = _Decoding(self.path)
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

    def _assess(self, seconds: float, decoder: _Decoding) -> str | None:
        announced = self.info.seconds
        if announced is not None and not decoder.estimates and seconds < announced - _SHORT_SECONDS:
            return f"{seconds:.1f} s could be read of the {announced:.1f} s that the file announces."
        if decoder.skipped:
            return f"{decoder.skipped} damaged places were left out; {seconds:.1f} s could be read."
        if decoder.broken:
            return f"the file breaks off after {seconds:.1f} s."
        return None

    def _probe(self) -> RecordingInfo:
        with _opened(self.path) as container:
            stream = _audio(container)
            seconds = container.duration / _av().time_base if container.duration else None
            moment = container.metadata.get("creation_time") or stream.metadata.get("creation_time")
            codec = stream.codec_context
            return RecordingInfo(
                self.path.name, seconds, _moment(moment), codec.name, codec.sample_rate, codec.channels
            )


def probe(path: Path) -> RecordingInfo:
    """Return what a file says about itself, without decoding it. Raises AudioError."""
    return Recording(path).info


def read_pcm(path: Path) -> Recording:
    """Return a recording to iterate over: blocks of int16 samples at 16 kHz mono. Raises AudioError."""
    return Recording(path)


class _Decoding:
    """Decodes packet by packet, so that a damaged one costs only itself."""

    def __init__(self, path: Path) -> None:
        self.skipped = 0
        self.broken = False
        self.estimates = False
        self._path = path

    def frames(self) -> Iterator[Any]:
        av = _av()
        with _opened(self._path) as container:
            self.estimates = container.format.name in _ESTIMATES
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


def _opened(path: Path) -> Any:
    if not path.exists():
        raise AudioError("there is no such recording. Check the path.")
    if not path.is_file():
        raise AudioError("the recording is not a file. Name the audio file itself.")
    av = _av()
    try:
        if path.stat().st_size == 0:
            raise AudioError("the recording is empty: the file has no bytes.")
        return av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except PermissionError as error:
        raise AudioError("the recording may not be read. Check the permissions of the file.") from error
    except (av.FFmpegError, ValueError, EOFError, OSError) as error:
        raise AudioError("the file is not audio that can be read. WAV, FLAC, MP3, M4A and Ogg are.") from error


def _audio(container: Any) -> Any:
    if not container.streams.audio:
        raise AudioError("the recording has no audio track.")
    return container.streams.audio[0]


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
