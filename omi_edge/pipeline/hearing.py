"""Frames in; durable chunks, speech segments and live audio out. Synchronous: it runs in the capture thread.

A *run* is a stretch of frames without a hole. Inside a run frame ``k`` lies at ``run_start + k × frame``; so nothing
depends on when a burst happened to arrive. A hole ends the run: the gate decides what it still holds, decoder and VAD
start anew, and the next run is anchored to the clock again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE, AudioChunk, ChunkKind, Codec, Frame, SpeechSegment
from omi_edge.listen.gate import Closed, Confirmed, Decided, GateEvent, Opened, SpeechGate
from omi_edge.opus import Decoder

CONCEAL_US = 300_000
"""Longest hole that is concealed by the decoder inside a run; what is longer has no sound to guess at."""
SLIP_US = 300_000
"""How far the timeline may be from the clock before a new run is started."""
SLIP_WINDOW_US = 2_000_000
"""Every frame of this long a stretch must be late: the pendant holds at most 1.28 s (protocol dossier §7), so a link
that merely stalled has caught up by then."""
WARM_UP_US = 1_000_000
"""What a fresh decoder hears before a segment; after one second the history of the stream no longer matters."""
RECENT_US = 10_000_000
"""How far back packets are at hand for a live decoder: where a long segment may be split, warm-up and one block."""
BLOCK_FRAMES = 50
"""Frames that are judged at once, at most."""
POSITION_STEP_US = 1_000_000
SILENCE_REPORT_US = 60_000_000
"""How often a long silence is noted in the file: once a minute spares the card."""
QUIET_LEVEL = 400
"""Mean of |sample| below which a pendant's microphone may fall asleep: its own bar is 250 (dossier §5.5), judged before
the codec."""
LOOK_BACK_US = 1_000_000
"""A segment that opens now starts at most this long ago (minimum speech and pre-roll)."""


class Stretch(msgspec.Struct):
    """Consecutive frames that were decided alike; boot time."""

    start_us: int
    end_us: int
    speech: bool
    """Whether they are kept: within two seconds of what could be speech."""
    lost_us: int = 0
    """What of it was concealed."""
    losses: int = 0


class ChunkReady(msgspec.Struct, frozen=True):
    """A chunk to be stored, with the segments that end in it."""

    chunk: AudioChunk | None
    segments: tuple[SpeechSegment, ...] = ()
    lost: int = 0
    """Frames known to be lost since the chunk before."""
    dropped_bytes: int = 0
    dropped_us: int = 0
    heard_until_us: int = 0
    stretches: tuple[Stretch, ...] = ()
    """What was decided since the one before; empty for a recording."""


class LiveAudio(msgspec.Struct, frozen=True):
    """PCM of a segment that is being spoken: what a live recogniser may hear so far."""

    segment_id: str
    start_us: int
    pcm: bytes
    first: bool = False
    last: bool = False
    end_us: int = 0
    """Of the segment, in its last piece."""


class Position(msgspec.Struct, frozen=True):
    """Up to here the source is known to hold no speech that is not in a segment."""

    quiet_until_us: int
    speaking: bool
    """Whether a segment is open."""


class Missing(msgspec.Struct, frozen=True):
    """A stretch of the timeline without frames, found when frames came again."""

    start_us: int
    """UTC, by the wall clock as it is set at the end."""
    end_us: int
    end_boot_us: int
    lost: int
    """Frames that the ids of one connection say are missing."""
    jump: int | None
    """Frame.jump of the first frame after it."""
    reconnected: bool
    quiet_us: int
    """How long before it the microphone had heard next to nothing."""
    start_boot_us: int = 0
    """0 for a recording."""


Heard = ChunkReady | LiveAudio | Position | Missing


class Hearing:
    """One source. Feed frames with their arrival in UTC microseconds; take what is returned, in order."""

    def __init__(
        self,
        source_id: str,
        codec: Codec,
        gate: Callable[[], SpeechGate],
        new_segment_id: Callable[[int], str],
        *,
        chunk_seconds: float = 2.0,
        keep_silence: bool = False,
        live: bool = True,
    ) -> None:
        self._source_id = source_id
        self._codec = codec
        self._new_gate = gate
        self._new_segment_id = new_segment_id
        self._chunk_frames = max(1, int(chunk_seconds * 1_000_000) // codec.frame_us)
        self._keep_silence = keep_silence
        self._live = live
        self._decoder = Decoder(codec)
        self._run: _Run | None = None
        self._out: list[Heard] = []
        self._lost = 0
        self._end_us = 0
        self._end_boot_us = 0
        self._stretches: list[Stretch] = []
        self._late_frames = 0
        self._told = Position(0, speaking=False)
        self._reconnected = False
        self._quiet_us = 0
        self._quiet_before_us = 0
        """The same before the first of the frames that are late now: a short hole shows only after a while."""

    @property
    def end_us(self) -> int:
        """UTC just after the last frame, 0 before the first."""
        return self._end_us

    def reconnected(self) -> None:
        """Say that the next frame is the first of a connection."""
        self._reconnected = True

    def feed(self, frames: Sequence[tuple[Frame, int]]) -> list[Heard]:
        """Take (frame, arrival in UTC µs) pairs."""
        block: list[npt.NDArray[np.int16]] = []
        for frame, arrival_us in frames:
            if self._continues(frame, arrival_us):
                assert self._run is not None
                for _ in range(frame.lost):
                    self._run.add(b"")
                    block.append(self._decoder.decode(b""))
                self._lost += frame.lost
            else:
                self._hear(block)
                block = []
                self._new_run(frame, arrival_us)
                assert self._run is not None
            self._run.add(frame.data)
            block.append(self._decoder.decode(frame.data))
            self._end_us, self._end_boot_us = self._run.end_us, self._run.end_boot_us
            if len(block) >= BLOCK_FRAMES:  # however much has waited: what a live decoder goes back to is at hand
                self._hear(block)
                block = []
        self._hear(block)
        return self._taken()

    def finish(self) -> list[Heard]:
        """End the run, for a source that ends or falls silent."""
        self._end_run()
        return self._taken()

    def checkpoint(self) -> tuple[list[Heard], int] | None:
        """Give out what is decided, and how many frames of the run so far that is; None while a segment is open.

        Heard again from there on, the rest of the run becomes the same but for the history of decoder and VAD.
        """
        run = self._run
        if run is None or run.speaking:
            return None
        self._flush(run)
        return self._taken(), run.decided

    def _continues(self, frame: Frame, arrival_us: int) -> bool:
        run = self._run
        if run is None or self._reconnected or frame.lost * self._codec.frame_us > CONCEAL_US:
            return False
        late_us = arrival_us - (run.end_us + (frame.lost + 1) * self._codec.frame_us)
        if late_us > SLIP_US:
            if not self._late_frames:
                self._quiet_before_us = self._quiet_us
            self._late_frames += 1
        else:
            self._late_frames = 0
        if self._late_frames * self._codec.frame_us > SLIP_WINDOW_US or late_us > SLIP_WINDOW_US:
            return False
        # a pendant whose clock is fast is put right where nothing is kept, or at once when the wall clock was set back
        return not (late_us < -SLIP_US and (run.in_silence or late_us < -SLIP_WINDOW_US))

    def _new_run(self, frame: Frame, arrival_us: int) -> None:
        before_us, frame_us = self._end_us, self._codec.frame_us
        self._end_run()
        start_us = arrival_us - frame_us
        start_boot_us = frame.boot_us - frame_us
        if before_us:
            # how far apart they are the boot clock knows, whatever was done to the wall clock; a recording has none
            apart_us = start_boot_us - self._end_boot_us if frame.boot_us else start_us - before_us
            if before_us - SLIP_WINDOW_US < start_us <= before_us:
                start_us = before_us + 1  # never on top of what is there; one microsecond apart marks the seam
            if apart_us > frame_us or frame.lost:
                missing_us = start_us - before_us
                if abs(missing_us - apart_us) > SLIP_US:
                    missing_us = max(0, apart_us)
                self._out.append(
                    Missing(
                        start_us - missing_us, start_us, start_boot_us, frame.lost,
                        frame.jump, self._reconnected, self._quiet_before_us if self._late_frames else self._quiet_us,
                        self._end_boot_us if frame.boot_us else 0,
                    )
                )  # fmt: skip
            if apart_us <= frame_us:
                start_boot_us = self._end_boot_us  # a seam and an overlap are no time of their own
            self._lost += frame.lost
        self._reconnected = False
        self._quiet_us = 0
        self._late_frames = 0
        self._decoder.reset()
        self._run = _Run(self._source_id, self._codec, start_us, self._new_gate(), self._new_segment_id, self._live)
        self._run.start_boot_us = start_boot_us if frame.boot_us else 0

    def _end_run(self) -> None:
        if self._run is None:
            return
        self._handle(self._run.gate.finish())
        self._flush(self._run)
        end_us = self._run.end_us
        self._run = None
        self._tell_position(end_us, speaking=False)

    def _hear(self, block: list[npt.NDArray[np.int16]]) -> None:
        if block and self._run is not None:
            pcm = np.concatenate(block) if len(block) > 1 else block[0]
            quiet = float(np.abs(pcm, dtype=np.float32).mean()) < QUIET_LEVEL
            self._quiet_us = self._quiet_us + len(block) * self._codec.frame_us if quiet else 0
            self._handle(self._run.gate.accept(pcm))

    def _handle(self, events: list[GateEvent]) -> None:
        run = self._run
        assert run is not None
        # what is kept is settled first: a segment that closes then finds all of its frames
        for event in events:
            if isinstance(event, Decided):
                for packet, keep in run.decide(event):
                    self._keep(run, packet, keep)
        for event in events:
            if isinstance(event, Opened):
                self._out += run.open(event)
            elif isinstance(event, Confirmed):
                self._out += run.confirm(event.end)
            elif isinstance(event, Closed):
                segment, audio = run.close(event)
                self._out += audio
                self._flush(run, (segment,))
        self._tell_position(run.quiet_until_us, speaking=run.speaking)

    def _keep(self, run: _Run, packet: bytes, keep: bool) -> None:
        if not keep and not self._keep_silence:
            if run.packets:
                self._flush(run)
            run.dropped_bytes += len(packet)
            run.dropped_us += self._codec.frame_us
            self._note(run, packet, speech=False)
            run.skip()
            if run.dropped_us >= SILENCE_REPORT_US:
                self._flush(run)
            return
        kind = ChunkKind.HEARD if keep else ChunkKind.SILENCE
        if run.packets and (kind is not run.kind or len(run.packets) >= self._chunk_frames):
            self._flush(run)
        run.kind = kind
        self._note(run, packet, speech=keep)
        run.packets.append(packet)
        if len(run.packets) >= self._chunk_frames:
            self._flush(run)

    def _note(self, run: _Run, packet: bytes, *, speech: bool) -> None:
        """Write down what became of the frame that has just been decided."""
        if not run.start_boot_us:
            return
        frame_us = self._codec.frame_us
        start_us = run.start_boot_us + run.decided * frame_us
        last = self._stretches[-1] if self._stretches else None
        if last is None or last.speech is not speech or last.end_us != start_us:
            last = Stretch(start_us, start_us, speech)
            self._stretches.append(last)
        if not packet:
            last.lost_us += frame_us
            last.losses += not run.losing
        run.losing = not packet
        last.end_us += frame_us

    def _flush(self, run: _Run, segments: tuple[SpeechSegment, ...] = ()) -> None:
        chunk = run.take_chunk()
        if chunk is None and not segments and not run.dropped_us and not self._lost:
            return
        stretches, self._stretches = tuple(self._stretches), []
        self._out.append(
            ChunkReady(chunk, segments, self._lost, run.dropped_bytes, run.dropped_us, run.end_us, stretches)
        )
        self._lost = run.dropped_bytes = run.dropped_us = 0

    def _tell_position(self, quiet_until_us: int, *, speaking: bool) -> None:
        told = self._told
        if speaking is not told.speaking or abs(quiet_until_us - told.quiet_until_us) >= POSITION_STEP_US:
            self._told = Position(quiet_until_us, speaking)
            self._out.append(self._told)

    def _taken(self) -> list[Heard]:
        out, self._out = self._out, []
        return out


class _Run:
    """The frames of one run, and what of it is open. Positions of the gate are samples since the run began."""

    def __init__(
        self,
        source_id: str,
        codec: Codec,
        start_us: int,
        gate: SpeechGate,
        new_segment_id: Callable[[int], str],
        live: bool,
    ) -> None:
        self.gate = gate
        self.kind = ChunkKind.HEARD
        self.packets: list[bytes] = []
        self.dropped_bytes = 0
        self.dropped_us = 0
        self.in_silence = False
        self.start_boot_us = 0
        """Boot time of the first frame; 0 for a recording."""
        self.losing = False
        """Whether the last frame that was decided is lost."""
        self._source_id = source_id
        self._codec = codec
        self._start_us = start_us
        self._samples = codec.frame_us * SAMPLE_RATE // 1_000_000
        self._new_segment_id = new_segment_id
        self._live = live
        self._frames = 0
        self._undecided: deque[bytes] = deque()
        self._straddling_keep = False
        self._stored = 0
        """Frames before the first of ``packets``."""
        self._recent: deque[bytes] = deque(maxlen=RECENT_US // codec.frame_us)
        self._open_id: str | None = None
        self._open_start = 0
        self._live_decoder: Decoder | None = None
        self._live_next = 0
        """Next frame for the live decoder."""
        self._live_heard = 0
        """Samples of the run already given out."""
        self._live_rest = np.zeros(0, np.int16)
        """Decoded beyond what was confirmed."""

    @property
    def end_us(self) -> int:
        return self._start_us + self._frames * self._codec.frame_us

    @property
    def end_boot_us(self) -> int:
        return self.start_boot_us + self._frames * self._codec.frame_us

    @property
    def decided(self) -> int:
        """Frames whose fate was decided and noted."""
        return self._stored + len(self.packets)

    @property
    def quiet_until_us(self) -> int:
        if self._open_id is not None:
            return self._utc(self._open_start)
        return max(self._start_us, self.end_us - LOOK_BACK_US)

    @property
    def speaking(self) -> bool:
        return self._open_id is not None

    def add(self, packet: bytes) -> None:
        self._frames += 1
        self._undecided.append(packet)
        self._recent.append(packet)

    def decide(self, event: Decided) -> list[tuple[bytes, bool]]:
        """Return the frames that lie wholly before ``event.end``, each with whether any part of it is to be kept."""
        decided = []
        while self._undecided:
            frame_end = (self._frames - len(self._undecided) + 1) * self._samples
            if frame_end > event.end:
                self._straddling_keep |= event.keep and frame_end - self._samples < event.end
                break
            keep = event.keep or self._straddling_keep
            self._straddling_keep = False
            decided.append((self._undecided.popleft(), keep))
            self.in_silence = not keep
        return decided

    def skip(self) -> None:
        self._stored += 1

    def take_chunk(self) -> AudioChunk | None:
        if not self.packets:
            return None
        start_us = self._start_us + self._stored * self._codec.frame_us
        chunk = AudioChunk(self._source_id, start_us, self._codec, tuple(self.packets), self.kind)
        self._stored += len(self.packets)
        self.packets = []
        return chunk

    def open(self, event: Opened) -> list[LiveAudio]:
        self._open_start = event.start
        self._open_id = self._new_segment_id(self._utc(event.start))
        if not self._live:
            return []
        first = event.start // self._samples
        oldest = self._frames - len(self._recent)
        self._live_next = max(oldest, 0, first - WARM_UP_US // self._codec.frame_us)
        self._live_decoder = Decoder(self._codec)
        self._live_heard = event.start
        self._live_rest = np.zeros(0, np.int16)
        skipped = self._decode_live((first + 1) * self._samples)
        self._live_rest = skipped[len(skipped) - ((first + 1) * self._samples - event.start) :]
        return [LiveAudio(self._open_id, self._utc(event.start), b"", first=True)]

    def confirm(self, end: int, *, last: bool = False) -> list[LiveAudio]:
        if self._live_decoder is None or self._open_id is None or (end <= self._live_heard and not last):
            return []
        pcm = np.concatenate([self._live_rest, self._decode_live(end)])
        wanted = max(0, end - self._live_heard)
        self._live_rest = pcm[wanted:]
        self._live_heard += wanted
        end_us = self._utc(end) if last else 0
        return [LiveAudio(self._open_id, self._utc(self._open_start), pcm[:wanted].tobytes(), last=last, end_us=end_us)]

    def close(self, event: Closed) -> tuple[SpeechSegment, list[LiveAudio]]:
        assert self._open_id is not None
        audio = self.confirm(event.end, last=True)
        segment = SpeechSegment(
            self._open_id,
            self._source_id,
            self._utc(event.start),
            self._utc(event.end),
            event.speech * 1_000_000 // SAMPLE_RATE,
        )
        self._open_id = None
        self._live_decoder = None
        return segment, audio

    def _decode_live(self, end: int) -> npt.NDArray[np.int16]:
        assert self._live_decoder is not None
        oldest = self._frames - len(self._recent)
        decoded = []
        while self._live_next * self._samples < end and self._live_next < self._frames:
            decoded.append(self._live_decoder.decode(self._recent[self._live_next - oldest]))
            self._live_next += 1
        return np.concatenate(decoded) if decoded else np.zeros(0, np.int16)

    def _utc(self, sample: int) -> int:
        return self._start_us + round(sample * 1_000_000 / SAMPLE_RATE)


def decode_span(
    chunks: Sequence[AudioChunk], start_us: int, end_us: int, *, warm_up_us: int = WARM_UP_US
) -> npt.NDArray[np.int16]:
    """Return the samples of [start_us, end_us) from stored chunks, int16 at 16 kHz.

    The same samples as a live recogniser heard: the decoder starts with the frames of the second before, as far as
    they belong to the same run. A hole inside the span is left out; chunks must be in order of time.
    """
    pieces: list[npt.NDArray[np.int16]] = []
    decoder: Decoder | None = None
    expected_us = -1
    for chunk in chunks:
        if decoder is None or chunk.start_us != expected_us:
            decoder = Decoder(chunk.codec)
        expected_us = chunk.end_us
        frame_us = chunk.codec.frame_us
        for index, packet in enumerate(chunk.packets):
            frame_start_us = chunk.start_us + index * frame_us
            if frame_start_us >= end_us:
                break
            if start_us - frame_start_us >= warm_up_us + frame_us:  # whole frames before the one that holds the start
                continue
            pcm = decoder.decode(packet)
            low = max(0, round((start_us - frame_start_us) * SAMPLE_RATE / 1_000_000))
            high = min(len(pcm), round((end_us - frame_start_us) * SAMPLE_RATE / 1_000_000))
            if low < high:
                pieces.append(pcm[low:high])
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
