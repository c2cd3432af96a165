"""Audio that a client sends over a socket, as the frames of a live source.

Opus packets go on as they are; PCM is encoded as a pendant would. Frames lie one after the other on the timeline from
where the client's audio began: TCP delivers late but loses nothing, so a late frame was spoken in time. A client that
falls silent for SILENT_SECONDS is placed anew by the clock; one that sends faster than people speak is read no further
than AHEAD_SECONDS into the future, and then waits.

The ledger accounts for such a source as for a pendant: where no frame came its client was silent while it was
connected, else disconnected. What is ahead of the clock is entered when its time comes, and not at all once the client
has left: no source claims more seconds than went by. The audio itself is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omi_edge.capture.absence import Hole, Witness
from omi_edge.capture.frames import HEADER_BYTES, VALUE_LIMIT
from omi_edge.clock import Clock, held
from omi_edge.domain import SAMPLE_RATE, Cause, Codec, Notification
from omi_edge.errors import BadInput
from omi_edge.opus import Encoder
from omi_edge.pipeline.intake import SILENT_SECONDS, Intake
from omi_edge.pipeline.spine import Spine

FRAME_BYTES = VALUE_LIMIT - HEADER_BYTES
"""Longest Opus packet that is taken: three times what a pendant's encoder makes."""
AHEAD_SECONDS = 60.0
"""How far a client's audio may be ahead of the clock."""
BAD_LIMIT = 100
"""Messages in a row that are no audio: then the client sends something else than it says."""
PCM_FRAME = Codec.OPUS_20MS
ENCODINGS = ("auto", "opus", "pcm16", "pcm8")
RATES = (8000, 16_000)
_PENDANT_TOCS = (0xB0, 0xB8)
"""First bytes of a pendant's Opus packets (protocol dossier §5.3)."""
_PENDANT_BYTES = 160


class SocketWitness(Witness):
    """What a hole in a socket's audio means: TCP loses nothing within a connection."""

    def causes(self, hole: Hole) -> tuple[Cause, ...]:
        """See Witness."""
        return (Cause.DISCONNECTED,) if hole.reconnected else (Cause.DEVICE_SILENT,)


class Line:
    """What is kept of a source between its connections."""

    def __init__(self) -> None:
        self.number = 0
        """Frames counted, as a pendant counts notifications."""
        self.next_us = 0
        """Boot time of the end of the last frame."""


class SocketSound:
    """The audio of one connection. Not to be used by two tasks at once."""

    def __init__(
        self, source_id: str, encoding: str, rate: int, *, spine: Spine, clock: Clock, line: Line, witness: Witness,
        since_us: int,
    ) -> None:  # fmt: skip
        check_sound(encoding, rate)
        self.source_id = source_id
        self.encoding = encoding
        self.rate = rate
        self.frames = 0
        self.bad = 0
        """Messages that were no audio."""
        self.heard_us = 0
        """Length of the audio that was taken."""
        self.since_us = since_us
        """Boot time at which the client came."""
        self._spine = spine
        self._clock = clock
        self._line = line
        self._witness = witness
        self._intake: Intake | None = None
        self._codec: Codec | None = None
        self._encoder: Encoder | None = None
        self._rest = b""
        self._bad_in_a_row = 0

    @property
    def codec(self) -> str:
        """What it sends, once that is known."""
        if self.encoding != "opus":
            return self.encoding
        return "opus" if self._codec is not Codec.OPUS_20MS else "opus_fs320"

    @property
    def speaking_since_us(self) -> int | None:
        """UTC at which the speech that goes on began, None while nobody speaks."""
        intake = self._intake
        return intake.quiet_until_us if intake is not None and intake.speaking else None

    async def take(self, data: bytes) -> None:
        """Take one message. Waits while the client is ahead of the clock.

        Raises BadInput when too many in a row are no audio; VaultError when the way into the file cannot be opened.
        """
        if not data or self._spine.withheld:  # thrown away before anything looks into it
            self._rest = b""
            return
        if self.encoding == "auto":
            opus = data[0] in _PENDANT_TOCS and len(data) <= _PENDANT_BYTES
            self.encoding, self.rate = ("opus", SAMPLE_RATE) if opus else ("pcm8", 8000)
        packets = [data] if self.encoding == "opus" else await self._encoded(data)
        if self.encoding == "opus" and not self._is_frame(data):
            self.bad += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= BAD_LIMIT:
                raise BadInput("what comes is no Opus of one 10 or 20 ms frame a message; /ws_pcm takes bare samples.")
            return
        self._bad_in_a_row = 0
        if packets:
            await self._hear(packets)

    async def pause(self) -> None:
        """Bring what was taken into the file: the client says that it stops."""
        self._rest = b""
        if self._intake is not None:
            await self._intake.finish()

    async def close(self, alive_us: int) -> None:
        """The connection has ended; its last sign of life came at ``alive_us``, boot time."""
        with held(self._clock):
            try:
                await self.pause()
            finally:
                self._intake = None
                await self._spine.ledger.visited(self.source_id, self.since_us, alive_us)

    def _is_frame(self, packet: bytes) -> bool:
        codec = codec_of(packet)
        if codec is None or len(packet) > FRAME_BYTES:
            return False
        if self._codec is None:
            self._codec = codec
        return codec is self._codec

    async def _encoded(self, data: bytes) -> list[bytes]:
        """PCM of any length to whole frames; the rest waits for the next message."""
        self._codec = PCM_FRAME
        if self._encoder is None:
            self._encoder = Encoder(PCM_FRAME)
        wanted = PCM_FRAME.frame_us * self.rate // 1_000_000 * (1 if self.encoding == "pcm8" else 2)
        data = self._rest + data
        whole = len(data) - len(data) % wanted
        self._rest = data[whole:]
        if not whole:
            return []
        samples = wide(data[:whole], self.encoding, self.rate).reshape(-1, PCM_FRAME.frame_us * SAMPLE_RATE // 10**6)
        return await asyncio.to_thread(lambda: [self._the_encoder().encode(frame) for frame in samples])

    def _the_encoder(self) -> Encoder:
        assert self._encoder is not None
        return self._encoder

    async def _hear(self, packets: Sequence[bytes]) -> None:
        line, fresh = self._line, self._intake is None
        if self._intake is None:
            assert self._codec is not None
            with held(self._clock):
                self._intake = await self._spine.open_socket(self.source_id, self._codec, self._witness)
            self._intake.reconnected()
        frame_us = self._intake.codec.frame_us
        began_us = self._clock.boot_us() - (len(packets) - 1) * frame_us
        if began_us - line.next_us > (0 if fresh else SILENT_SECONDS * 1e6):
            line.next_us = began_us
        for packet in packets:
            value = line.number.to_bytes(2, "little") + b"\0" + packet
            self._intake.notify(Notification(value, line.next_us))
            line.number = (line.number + 1) & 0xFFFF
            line.next_us += frame_us
        self.frames += len(packets)
        self.heard_us += len(packets) * frame_us
        ahead = (line.next_us - self._clock.boot_us()) / 1e6 - AHEAD_SECONDS
        if ahead > 0:
            await self._clock.sleep(ahead)


class Sockets:
    """The lines of all sources that came over sockets since the daemon began."""

    def __init__(self, spine: Spine, clock: Clock) -> None:
        self._spine = spine
        self._clock = clock
        self._lines: dict[str, tuple[Line, Witness]] = {}

    def open(self, source_id: str, encoding: str, rate: int, since_us: int) -> SocketSound:
        """Return the way in for one connection of a client that came at ``since_us``, boot time.

        Raises BadInput for an encoding or a rate that is not taken.
        """
        line, witness = self._lines.setdefault(source_id, (Line(), SocketWitness()))
        return SocketSound(
            source_id, encoding, rate, spine=self._spine, clock=self._clock, line=line, witness=witness,
            since_us=since_us,
        )  # fmt: skip


def check_sound(encoding: str, rate: int) -> None:
    """Raise BadInput for an encoding or a rate that is not taken."""
    if encoding not in ENCODINGS:
        known = ", ".join((*ENCODINGS[1:], "opus_fs320"))
        raise BadInput(f"this codec cannot be decoded here; use one of {known}.", "codec")
    if rate not in RATES:
        raise BadInput("sample_rate must be 8000 or 16000.", "sample_rate")


def codec_of(packet: bytes) -> Codec | None:
    """Return the codec of an Opus packet by its own first byte, None unless it is mono and lasts 10 or 20 ms.

    RFC 6716 §3.1, table 2: five bits of configuration, one for stereo, two for the number of frames.
    """
    if not packet:
        return None
    config, stereo, code = packet[0] >> 3, packet[0] & 4, packet[0] & 3
    if stereo or code == 3:
        return None
    if config < 12:
        frame_us = (10_000, 20_000, 40_000, 60_000)[config % 4]
    elif config < 16:
        frame_us = (10_000, 20_000)[config % 2]
    else:
        frame_us = (2_500, 5_000, 10_000, 20_000)[config % 4]
    length_us = frame_us * (1 if code == 0 else 2)
    return {10_000: Codec.OPUS_10MS, 20_000: Codec.OPUS_20MS}.get(length_us)


def wide(data: bytes, encoding: str, rate: int) -> npt.NDArray[np.int16]:
    """Return samples, int16 at 16 kHz, of bytes that are s16le (``pcm16``) or unsigned 8-bit (``pcm8``)."""
    if encoding == "pcm8":
        samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) * np.int16(256)
    else:
        samples = np.frombuffer(data, "<i2").astype(np.int16)
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    # linear interpolation, as for a pendant's legacy codecs
    following = np.append(samples[1:], samples[-1]).astype(np.int32)
    doubled = np.empty(len(samples) * 2, np.int16)
    doubled[0::2] = samples
    doubled[1::2] = (samples.astype(np.int32) + following) // 2
    return doubled
