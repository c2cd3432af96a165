"""Makes the recordings that ship with the project, from lines spoken by flite (https://github.com/festvox/flite).

    apt install flite && .venv/bin/python scripts/make_recordings.py

Deterministic. Writes omi_edge/virtual/recordings/ (what the demo plays) and tests/recordings/ (the same words in
several formats), each with the times at which every line is spoken.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

RATE = 16_000
ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "omi_edge/virtual/recordings"
TESTS = ROOT / "tests/recordings"
VOICES = {"A": "rms", "B": "slt"}

MORNING = [
    ("A", "good morning how are you today"),
    ("B", "very well thank you we have to plan our trip to boston"),
    ("A", "yes we need to decide how we want to travel"),
    ("B", "the train takes four hours and the flight is very expensive"),
    ("A", "i think the train is better we can work on the way"),
    ("B", "okay then we decided to take the train to boston"),
    ("A", "my sister lives in boston and she has a big house"),
    ("B", "that is wonderful can we stay with her for two nights"),
    ("A", "i will call her this evening"),
    ("B", "we have a meeting with the bank next week"),
    ("A", "i will send you the contract by friday"),
    ("B", "great then i can read it before the meeting"),
    ("A", "i have an appointment with the dentist tomorrow at ten in the morning"),
    ("B", "then we should meet in the afternoon"),
    ("A", "yes let us meet at three in my office"),
    ("B", "good i will bring the papers from the bank"),
    ("A", "my brother robert works for the bank he can help us"),
    ("B", "remind me to call the doctor on monday"),
    ("A", "of course are you not well"),
    ("B", "it is about my son peter he was ill but he is better now"),
]
EVENING = [
    ("A", "hello again i am at the supermarket"),
    ("B", "we need to buy milk bread and cheese for the weekend"),
    ("A", "what about the dinner on saturday"),
    ("B", "my brother michael is coming with his wife and the children"),
    ("A", "how many people will be there"),
    ("B", "there will be seven people and two of them do not eat meat"),
    ("A", "then we can make some rice with fresh vegetables"),
    ("B", "that sounds very good michael likes chocolate cake"),
    ("A", "i will make a chocolate cake on friday evening"),
    ("A", "the children can play in the garden after dinner"),
    ("B", "the weather will be warm and sunny on saturday"),
    ("B", "please bring some flowers as well"),
    ("A", "yes there is a small flower shop near the station"),
    ("B", "thank you very much i will see you this evening"),
]
WORDS = [
    ("A", "we need to buy milk bread and cheese for the weekend"),
    ("B", "i will send you the contract by friday"),
    ("A", "the train takes four hours"),
]
SHORT = [("A", "remind me to call the doctor on monday")]

PAUSES = (0.6, 0.9, 0.5, 0.7)
"""Seconds between lines, in turn."""
BETWEEN_SECONDS = 14.0
"""Long enough to end a conversation in the demo."""
NOISE_LEVEL = 12.0
"""A quiet room: rms in units of 16-bit samples; digital silence is what no microphone hears."""


def speak(text: str, voice: str) -> npt.NDArray[np.int16]:
    """Return one line at 16 kHz without the silence around it."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], check=True)
        with wave.open(file.name) as reader:
            rate = reader.getframerate()
            samples = np.frombuffer(reader.readframes(reader.getnframes()), np.int16)
    if rate != RATE:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        pieces = [*resampler.resample(frame), *resampler.resample(None)]
        samples = np.concatenate([piece.to_ndarray().reshape(-1) for piece in pieces])
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)
    return samples[loud[0] : loud[-1] + 1]


def compose(parts: list[tuple[list[tuple[str, str]], float]]) -> tuple[npt.NDArray[np.int16], list[dict[str, object]]]:
    """Return the audio of (lines, silence before them) and each line with its times in seconds."""
    pieces: list[npt.NDArray[np.int16]] = []
    lines: list[dict[str, object]] = []
    at = 0
    for number, (spoken, before) in enumerate(parts):
        pause = before
        for index, (speaker, text) in enumerate(spoken):
            pieces.append(np.zeros(round(pause * RATE), np.int16))
            at += len(pieces[-1])
            audio = speak(text, VOICES[speaker])
            lines.append(
                {
                    "conversation": number,
                    "speaker": speaker,
                    "start": round(at / RATE, 2),
                    "end": round((at + len(audio)) / RATE, 2),
                    "text": text,
                }
            )
            pieces.append(audio)
            at += len(audio)
            pause = PAUSES[index % len(PAUSES)]
    pieces.append(np.zeros(RATE, np.int16))
    samples = np.concatenate(pieces).astype(np.float64) * 0.7
    noise = np.random.default_rng(20).normal(0, NOISE_LEVEL, len(samples))
    return np.clip(samples + noise, -32768, 32767).astype(np.int16), lines


def save(path: Path, samples: npt.NDArray[np.int16], codec: str, rate: int, channels: int, bitrate: int = 0) -> None:
    """Write samples at 16 kHz mono as another rate and layout."""
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if bitrate:
            stream.bit_rate = bitrate
        form = {"libopus": "s16", "flac": "s16"}[codec]
        resampler = av.AudioResampler(
            format=form, layout=layout, rate=rate, frame_size=960 if codec == "libopus" else 4096
        )
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def describe(path: Path, title: str, lines: list[dict[str, object]], seconds: float) -> None:
    """Write the script of a recording beside it."""
    text = [
        f"# {title}\n# Made by scripts/make_recordings.py; speaker A is flite's {VOICES['A']}, B is {VOICES['B']}.\n"
    ]
    text.append(f"seconds = {seconds:.2f}\n")
    for line in lines:
        text.append("[[lines]]")
        text += [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in line.items()]
        text.append("")
    path.write_text("\n".join(text), encoding="utf-8")


def main() -> int:
    """Make everything."""
    if shutil.which("flite") is None:
        print("flite is missing: apt install flite", file=sys.stderr)
        return 1
    PACKAGE.mkdir(exist_ok=True)
    TESTS.mkdir(exist_ok=True)
    samples, lines = compose([(MORNING, 1.0), (EVENING, BETWEEN_SECONDS)])
    save(PACKAGE / "conversation.ogg", samples, "libopus", 48_000, 1, 28_000)
    describe(PACKAGE / "conversation.toml", "Two conversations of two people.", lines, len(samples) / RATE)
    samples, lines = compose([(WORDS, 0.8)])
    for name, rate, channels in (("16k-mono", RATE, 1), ("48k-stereo", 48_000, 2), ("44k1-stereo", 44_100, 2)):
        save(TESTS / f"words-{name}.flac", samples, "flac", rate, channels)
    describe(TESTS / "words.toml", "The same words in three formats.", lines, len(samples) / RATE)
    samples, lines = compose([(SHORT, 0.8)])
    save(TESTS / "short.ogg", samples, "libopus", 48_000, 1, 28_000)
    describe(TESTS / "short.toml", "One sentence: a smoke test.", lines, len(samples) / RATE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
