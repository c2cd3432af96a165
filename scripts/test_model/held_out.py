"""Which sentences are learnt, which are only asked, and the few of them that the tests of the project play."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from scripts.test_model.speech import RATE, VOICES, Order, Samples, Spoken, orders

SENTENCES = 6000
PACES = (0.82, 1.3)
"""flite's duration_stretch in the training."""
EACH, TOGETHER = 4, 4
"""Sentences of each voice in the recording for the tests, and how many of all are said without a long pause."""
QUIET_ROOM = 0.0004
"""Rms of the noise under it; digital silence is what no microphone hears."""
BIT_RATE, FRAME = 32_000, 320


def corpus_orders(draw: random.Random, held_out: set[tuple[str, ...]]) -> list[Order]:
    """Return what is learnt."""
    return orders(draw, SENTENCES, VOICES, lambda: draw.uniform(*PACES), held_out)


def held_out_sets(draw: random.Random) -> dict[str, list[Order]]:
    """Return what is only asked: voices that are known, the same faster and slower than learnt, and a strange one."""
    return {
        "voices": orders(draw, 200, VOICES, lambda: draw.uniform(0.9, 1.15), set()),
        "fast": orders(draw, 60, VOICES, lambda: 0.72, set()),
        "slow": orders(draw, 60, VOICES, lambda: 1.45, set()),
        "strange": orders(draw, 60, ("kal",), lambda: 1.0, set()),
    }


def write_sounds(spoken: Sequence[Spoken], to: Path) -> None:
    """Write the first sentences of three words or more, as many of each voice, and beside them what is said when.

    The last TOGETHER follow one another quickly, as a conversation of their own.
    """
    chosen = [
        one for voice in VOICES for one in [one for one in spoken if one.voice == voice and len(one.words) > 2][:EACH]
    ]
    chosen = chosen[::EACH] + [one for number, one in enumerate(chosen) if number % EACH]  # the voices take turns
    parts, lines = [np.zeros(RATE, np.float32)], []
    for number, one in enumerate(chosen):
        at = sum(map(len, parts)) / RATE
        together = number >= len(chosen) - TOGETHER
        lines.append(_line(one, at, conversation=int(together)))
        samples = one.samples / np.abs(one.samples).max() * np.float32(0.5)
        parts += [samples, np.zeros(int((0.4 if together else 2.0) * RATE), np.float32)]
    sound = np.concatenate([*parts, np.zeros(RATE, np.float32)])
    sound += np.random.default_rng(len(sound)).normal(0, QUIET_ROOM, len(sound)).astype(np.float32)
    _save(to.with_suffix(".ogg"), sound)
    head = [
        "# Sentences that the model in tests/models/spoken has not heard in its training; speakers are flite's voices."
    ]
    head += ["# Made by scripts/make_test_model; `starts` are the true times of the words.", ""]
    head += [f"seconds = {len(sound) / RATE:.2f}", ""]
    to.with_suffix(".toml").write_text("\n".join([*head, *lines]), encoding="utf-8")


def _line(one: Spoken, at: float, *, conversation: int) -> str:
    entries = {
        "conversation": conversation,
        "speaker": json.dumps(one.voice),
        "start": round(at + one.spans[0][0], 2),
        "end": round(at + one.spans[-1][1], 2),
        "text": json.dumps(" ".join(one.words)),
        "starts": json.dumps([round(at + start, 2) for start, _ in one.spans]),
    }
    return "\n".join(["[[lines]]", *(f"{key} = {value}" for key, value in entries.items()), ""])


def _save(path: Path, sound: Samples) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = BIT_RATE
        samples = (sound * 32767).astype(np.int16)
        for first in range(0, len(samples) - len(samples) % FRAME, FRAME):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + FRAME], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
