"""Lets recognisers hear what nobody said: scripts/soak noise [--minutes 60] [--seed S] [--noise NAME] [--engine NAME].

Silence, white and brown noise, the hum of a fan, music and clicks, at levels that change, go two ways: as the daemon
hears (VAD, segments), and straight into each recogniser, half a minute at once. Not one word may come of it. Then the
same settings hear speech, clean and mixed with each noise at 10 dB: of the words that a recogniser hears there, at most
one in a hundred may be taken away by what guards against invented ones.

Engines: pocketsphinx, and the Whisper of tests/models/spoken where it is there; --models names a models folder, of
which --engine may name any.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from omi_edge.capture.replay import Recording
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import Recognition, Recognizer
from omi_edge.listen.gate import Closed, SpeechGate
from omi_edge.listen.transcribe import PocketSphinxRecognizer
from omi_edge.listen.vad import SileroVad
from omi_edge.listen.whisper import WhisperRecognizer
from omi_edge.virtual.script import recording_path
from tests.listen import spoken_whisper

Sound = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]
BLOCK_SECONDS = 30
SNR_DB = 10.0
MOST_LOST = 0.01
FULL = 32_767


def silence(lot: np.random.Generator, count: int) -> Sound:
    """Digital zero, or the last bit of a converter."""
    return lot.integers(-1, 2, count).astype(np.float64) * lot.integers(0, 2) / FULL


def white(lot: np.random.Generator, count: int) -> Sound:
    """Equal power at all frequencies."""
    return lot.normal(0, 1, count)


def brown(lot: np.random.Generator, count: int) -> Sound:
    """Power that falls with the square of frequency, from 20 Hz on."""
    spectrum = np.fft.rfft(lot.normal(0, 1, count))
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.maximum(frequencies, 20), count)


def fan(lot: np.random.Generator, count: int) -> Sound:
    """Mains hum with harmonics, blades that pass, and the rush of air."""
    t = np.arange(count) / SAMPLE_RATE
    hum = sum(lot.uniform(0.1, 1) / n * np.sin(2 * np.pi * 50 * n * t + lot.uniform(0, 6)) for n in range(1, 9))
    blades = 1 + 0.4 * np.sin(2 * np.pi * lot.uniform(8, 30) * t)
    air = brown(lot, count)
    return np.asarray(hum + 3 * blades * air / air.std())


def music(lot: np.random.Generator, count: int) -> Sound:
    """Chords of a scale with harmonics and vibrato, a melody above them, and a beat."""
    out = np.zeros(count)
    scale = 220 * 2 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16]) / 12)
    beat = round(SAMPLE_RATE * 60 / lot.uniform(70, 150))
    for at in range(0, count, beat):
        length = min(count - at, beat)
        t = np.arange(length) / SAMPLE_RATE
        fade = np.exp(-t * lot.uniform(1, 6))
        for note in [*lot.choice(scale, 3), 2 * lot.choice(scale)]:
            vibrato = note * (1 + 0.004 * np.sin(2 * np.pi * 5.5 * t))
            phase = 2 * np.pi * np.cumsum(vibrato) / SAMPLE_RATE
            for n in range(1, 8):
                out[at : at + length] += fade * np.sin(n * phase) / n**1.5
        drum = lot.normal(0, 1, length) * np.exp(-t * 40) + 2 * np.sin(2 * np.pi * 60 * t) * np.exp(-t * 15)
        out[at : at + length] += 2 * drum
    return out


def clicks(lot: np.random.Generator, count: int) -> Sound:
    """Keys, clocks and knocks: short bursts, some that ring."""
    out = lot.normal(0, 0.002, count)
    at = 0
    while at < count:
        length = min(count - at, int(lot.integers(20, 800)))
        t = np.arange(length) / SAMPLE_RATE
        ring = np.sin(2 * np.pi * lot.uniform(300, 5000) * t) + lot.normal(0, 1, length)
        out[at : at + length] += lot.uniform(0.1, 1) * ring * np.exp(-t * lot.uniform(80, 900))
        at += int(lot.exponential(SAMPLE_RATE * 0.3)) + 1
    return out


NOISES: dict[str, Callable[[np.random.Generator, int], Sound]] = {
    "silence": silence, "white": white, "brown": brown, "fan": fan, "music": music, "clicks": clicks,
}  # fmt: skip


def blocks(name: str, minutes: float, seed: int) -> Iterator[Samples]:
    """Yield half minutes of a noise, each at a level between -60 and -10 dB of full scale; silence stays what it is."""
    for index in range(round(minutes * 60 / BLOCK_SECONDS)):
        lot = np.random.default_rng((seed, list(NOISES).index(name), index))
        sound = NOISES[name](lot, BLOCK_SECONDS * SAMPLE_RATE)
        if name != "silence":
            sound *= 10 ** (lot.uniform(-60, -10) / 20) / max(sound.std(), 1e-9)
        yield np.clip(sound * FULL, -FULL, FULL).astype(np.int16)


def recognised(recognizer: Recognizer, pcm: bytes) -> Recognition:
    """Hear one piece whole."""
    recognizer.start()
    recognizer.accept(pcm)
    return recognizer.finish()


def segments(sound: Iterator[Samples]) -> Iterator[bytes]:
    """Cut as the daemon does."""
    gate, heard, dropped = SpeechGate(SileroVad()), np.zeros(0, np.int16), 0
    for block in sound:
        heard = np.concatenate([heard, block])
        for event in gate.accept(block):
            if isinstance(event, Closed):
                yield heard[event.start - dropped : event.end - dropped].tobytes()
        spare = max(0, len(heard) - 90 * SAMPLE_RATE)  # no segment is longer, nor decided later
        heard, dropped = heard[spare:], dropped + spare
    for event in gate.finish():
        if isinstance(event, Closed):
            yield heard[event.start - dropped : event.end - dropped].tobytes()


class Tally(msgspec.Struct):
    """What was heard, and what of it was not believed."""

    words: int = 0
    rejected: int = 0
    segments: int = 0

    def add(self, found: Recognition) -> None:
        """Count one piece."""
        self.words += len(found.words)
        self.rejected += sum(one.words for one in found.rejected)
        self.segments += 1


def nothing_said(label: str, recognizer: Recognizer, names: Sequence[str], minutes: float, seed: int) -> bool:
    """Let a recogniser hear noises both ways; return whether it wrote nothing."""
    clean = True
    for name in names:
        began = time.monotonic()
        gated, straight = Tally(), Tally()
        for pcm in segments(blocks(name, minutes, seed)):
            gated.add(recognised(recognizer, pcm))
        for block in blocks(name, minutes, seed):
            straight.add(recognised(recognizer, block.tobytes()))
        clean &= gated.words == straight.words == 0
        print(
            f"  {label}, {minutes:g} min of {name}: {gated.words} words in {gated.segments} segments "
            f"({gated.rejected} not believed), {straight.words} straight in ({straight.rejected} not believed), "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    return clean


def speech_kept(label: str, recognizer: Recognizer, spoken: Samples, names: Sequence[str], seed: int) -> bool:
    """Let a recogniser hear speech, clean and in noise; return whether the guards leave it its words."""
    lot = np.random.default_rng(seed)
    level = np.sqrt(np.mean(spoken.astype(np.float64) ** 2))
    total = Tally()
    for name in ["", *(name for name in names if name != "silence")]:
        sound = spoken.astype(np.float64)
        if name:
            noise = NOISES[name](lot, len(spoken))
            sound += noise / noise.std() * level / 10 ** (SNR_DB / 20)
        tally = Tally()
        for pcm in segments(iter([np.clip(sound, -FULL, FULL).astype(np.int16)])):
            tally.add(recognised(recognizer, pcm))
        print(f"  {label}, speech {f'with {name} at {SNR_DB:g} dB' if name else 'clean'}: {tally.words} words, "
              f"{tally.rejected} not believed", flush=True)  # fmt: skip
        total.words += tally.words
        total.rejected += tally.rejected
    share = total.rejected / max(1, total.words + total.rejected)
    print(f"  {label}, speech in all: {100 * share:.2f} % not believed of {total.words + total.rejected} words")
    return total.words > 0 and share <= MOST_LOST


def pcm_of(path: Path) -> Samples:
    """Decode a recording."""
    return np.concatenate(list(Recording(path)))


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--speech", type=float, default=600.0, help="seconds of speech, clean and with each noise; 0 leaves it out"
    )
    parser.add_argument("--noise", choices=list(NOISES), action="append")
    parser.add_argument("--engine", action="append", metavar="NAME")
    parser.add_argument("--models", type=Path, help="a models folder that --engine names models of")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    names = options.noise or list(NOISES)
    print(f"noise: {options.minutes:g} min of each of {', '.join(names)}, seed {seed}", flush=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="omi-edge-soak-") as folder:
        for label, recognizer, spoken in _engines(options, Path(folder)):
            if not nothing_said(label, recognizer, names, options.minutes, seed):
                failed.append(f"{label} wrote words that nobody said")
            if options.speech and not speech_kept(
                label, recognizer, spoken[: round(options.speech * SAMPLE_RATE)], names, seed
            ):
                failed.append(f"{label} lost words to the guards")
    print(f"noise: {'FAILED: ' + '; '.join(failed) if failed else 'ok'}, seed {seed}")
    return 1 if failed else 0


def _engines(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Recognizer, Samples]]:
    """Yield what is to hear, each with speech that it can understand."""
    names = options.engine or ["pocketsphinx", *([spoken_whisper.NAME] if spoken_whisper.THERE else [])]
    for name in names:
        if name == "pocketsphinx":
            yield name, PocketSphinxRecognizer(), pcm_of(recording_path())
        elif name == spoken_whisper.NAME:
            shelf = spoken_whisper.shelved(folder / "models")
            yield name, WhisperRecognizer(folder=str(shelf.folder), model=name), pcm_of(spoken_whisper.HELD_OUT)
        else:
            yield name, WhisperRecognizer(folder=str(options.models), model=name), pcm_of(recording_path())


if __name__ == "__main__":
    sys.exit(main())
