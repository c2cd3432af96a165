"""Silero VAD v6: the probability of speech in each 32 ms of a stream.

The ONNX file inside the faster-whisper wheel is run with onnxruntime directly; the package itself is not imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omi_edge.errors import EnginePermanent

CHUNK_SAMPLES = 512
CHUNK_MS = 32
CONTEXT_SAMPLES = 64
"""The model takes 512 new samples after the last 64 of the chunk before (Silero VAD, 16 kHz)."""
STATE_SHAPE = (1, 1, 128)
OPEN, CLOSE = 0.5, 0.35
"""Probabilities at which speech begins and ends: the threshold of Silero's get_speech_timestamps, and 0.15 below it."""
SHORTEST_CHUNKS = 3
"""Speech of fewer chunks than this (96 ms) is taken for a click. A choice."""
MODEL_FILE = "assets/silero_vad_v6.onnx"


def model_path() -> Path:
    """Return the model file. Raises EnginePermanent when the wheel does not carry it."""
    spec = importlib.util.find_spec("faster_whisper")
    path = Path(spec.origin).parent / MODEL_FILE if spec is not None and spec.origin else Path(MODEL_FILE)
    if not path.is_file():
        raise EnginePermanent("the Silero VAD model is missing; reinstall the package faster-whisper.")
    return path


class SileroVad:
    """One stream. Loads the model at first use; one thread, which sleeps between calls."""

    def __init__(self) -> None:
        self._session: Any = None
        self._rest = np.zeros(0, np.int16)
        self._input = np.zeros((1, CONTEXT_SAMPLES + CHUNK_SAMPLES), np.float32)
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)

    def reset(self) -> None:
        """Forget the stream."""
        self._rest = np.zeros(0, np.int16)
        self._input[:] = 0
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)

    def probabilities(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """Return one probability for each whole chunk of 512 samples; the remainder waits for the next call."""
        if self._session is None:
            self._session = _session()
        samples = np.concatenate([self._rest, pcm]) if len(self._rest) else pcm
        whole = len(samples) // CHUNK_SAMPLES
        self._rest = samples[whole * CHUNK_SAMPLES :].copy()
        out = np.empty(whole, np.float32)
        for index in range(whole):
            self._input[0, :CONTEXT_SAMPLES] = self._input[0, CHUNK_SAMPLES:]
            chunk = samples[index * CHUNK_SAMPLES : (index + 1) * CHUNK_SAMPLES]
            np.multiply(chunk, np.float32(1 / 32768), out=self._input[0, CONTEXT_SAMPLES:])
            probability, self._h, self._c = self._session.run(None, {"input": self._input, "h": self._h, "c": self._c})
            out[index] = probability.item()
        return out


def speech_spans(probabilities: Iterable[float], *, open: float = OPEN, close: float = CLOSE) -> list[tuple[int, int]]:
    """Return where speech is, start and end in milliseconds, from the probability of each chunk."""
    spans: list[tuple[int, int]] = []
    first: int | None = None
    for chunk, probability in enumerate(itertools.chain(probabilities, [-1.0])):
        if first is None and probability >= open:
            first = chunk
        elif first is not None and probability < close:
            if chunk - first >= SHORTEST_CHUNKS:
                spans.append((first * CHUNK_MS, chunk * CHUNK_MS))
            first = None
    return spans


def _session() -> Any:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])
