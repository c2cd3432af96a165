"""A recording as a source: whatever PyAV reads, as 16 kHz mono PCM."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE
from omi_edge.errors import AudioError


class RecordingInfo(msgspec.Struct, frozen=True):
    """What a file says about itself."""

    name: str
    seconds: float | None
    """Duration, None where the file does not tell."""
    start_us: int | None
    """When it was recorded, from its creation_time tag."""
    codec: str
    rate: int
    channels: int


class Recording:
    """An audio file, read block by block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        """What could not be read, known after ``read``."""
        self.info = self._probe()

    def read(self) -> Iterator[npt.NDArray[np.int16]]:
        """Yield blocks of int16 samples at 16 kHz mono.

        What can be read is yielded even when the file is damaged or ends early; ``damage`` then says so. Raises
        AudioError when there is no audio at all.
        """
        av = _av()
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        heard = 0
        try:
            with av.open(str(self.path), metadata_errors="replace") as container:
                frames = container.decode(container.streams.audio[0])
                for frame in frames:
                    frame.pts = None  # blocks follow one another whatever the stamps say
                    for piece in resampler.resample(frame):
                        heard += piece.samples
                        yield piece.to_ndarray().reshape(-1)
                for piece in resampler.resample(None):
                    heard += piece.samples
                    yield piece.to_ndarray().reshape(-1)
        except (av.FFmpegError, ValueError, EOFError) as error:
            self.damage = f"damaged after {heard / SAMPLE_RATE:.1f} s"
            if not heard:
                raise AudioError(f"{self.path.name} holds no audio that can be decoded.") from error
        if not heard:
            raise AudioError(f"{self.path.name} holds no audio: it is empty.")
        seconds = heard / SAMPLE_RATE
        if self.damage is None and self.info.seconds is not None and seconds < self.info.seconds - 1.0:
            self.damage = f"ends after {seconds:.1f} s although it announces {self.info.seconds:.1f} s"

    def _probe(self) -> RecordingInfo:
        if not self.path.is_file():
            raise AudioError(f"there is no file {self.path}.")
        if self.path.stat().st_size == 0:
            raise AudioError(f"{self.path.name} is empty.")
        av = _av()
        try:
            with av.open(str(self.path), metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise AudioError(f"{self.path.name} has no audio track.")
                stream = container.streams.audio[0]
                seconds = container.duration / av.time_base if container.duration else None
                tags = {**container.metadata, **stream.metadata}
                return RecordingInfo(
                    self.path.name, seconds, _moment(tags.get("creation_time") or tags.get("date")),
                    stream.codec_context.name, stream.codec_context.sample_rate, stream.codec_context.channels,
                )  # fmt: skip
        except (av.FFmpegError, ValueError, EOFError) as error:
            raise AudioError(
                f"{self.path.name} is not audio that can be read. WAV, FLAC, MP3, M4A, Ogg and others are."
            ) from error
        except PermissionError as error:
            raise AudioError(f"{self.path.name} may not be read: {error.strerror}.") from error


def _moment(text: str | None) -> int | None:
    if not text or len(text) < 16:  # a bare year or day is no moment
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _av() -> Any:
    av = importlib.import_module("av")
    av.logging.set_level(None)  # its warnings would name files and end up on the terminal
    return av
