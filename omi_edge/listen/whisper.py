"""The full recogniser: Whisper, run by faster-whisper from files on this machine, and guarded against invented words.

Decoding is at temperature 0 alone: what Whisper does at higher ones is drawn by lot, and the same sound must give the
same words. What goes wrong there is taken away by ``guards`` instead.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, HeardWord, Hints, Recognition
from omi_edge.errors import EnginePermanent, EngineTransient, ModelMissing, ModelRefused
from omi_edge.listen.guards import Guarded, Piece, compression_ratio, guard
from omi_edge.listen.hotwords import fitting
from omi_edge.listen.vad import SileroVad, speech_spans
from omi_edge.models.shelf import Shelf

WINDOW_SECONDS = 30
"""Whisper hears windows of this length; partial text is of the last one."""
PARTIAL_SECONDS = 1.0
PARTIAL_GROWTH = 0.25
"""Partial text is made anew after this much more sound, and after this share of what there is already: each costs a
whole window, so that 30 s of speech cost 12 of them, not 30. A choice."""
MS = SAMPLE_RATE // 1000
FEATURES_A_SECOND = 100
"""Whisper's features are 10 ms apart (Whisper paper §2.2)."""
NEEDED = "tokenizer.json"
"""Without it faster-whisper would ask the network."""


class WhisperRecognizer:
    """Implements ``engine.Recognizer``.

    ``folder`` is the models folder, ``model`` a name of the manifest. ``language`` is an ISO 639-1 code that locks it,
    "" has it detected in each segment. ``initial_prompt`` is Whisper's own; the words of a segment's hints become its
    hot words, as many as it takes. ``partials``: whether
    ``accept`` returns text; without, it only collects. Raises ModelError when the files are not what they should be,
    EnginePermanent for a language that Whisper does not know.
    """

    def __init__(
        self,
        *,
        folder: str,
        model: str,
        compute_type: str = "int8",
        beam_size: int = 5,
        threads: int = 2,
        language: str = "",
        initial_prompt: str = "",
        partials: bool = False,
    ) -> None:
        shelf = Shelf(Path(folder))
        place = shelf.locate(model)
        if not (place / NEEDED).is_file():
            raise ModelMissing(
                f"the model {model} has no {NEEDED}; add it to its files in models.toml and pull it anew."
            )
        self._model = _load(model, place, compute_type, threads)
        self._batched = importlib.import_module("faster_whisper").BatchedInferencePipeline(self._model)
        known = self._model.supported_languages
        if language and len(known) > 1 and language not in known:  # one for English alone hears English
            raise EnginePermanent(f"listen.language: Whisper knows no language {language!r}; use a code like en or de.")
        revision = shelf.wanted(shelf.manifest.find(model)).revision[:7]
        version = importlib.metadata.version("faster-whisper")
        self._engine = " ".join(part for part in (f"faster-whisper {version}", model, revision, compute_type) if part)
        self._beam_size = beam_size
        self._own_language = self._language = language
        self._initial_prompt = initial_prompt
        self._hotwords = ""
        self._partials = partials
        self._vad = SileroVad()
        self._active = False
        self._rest = b""
        self._sound: list[npt.NDArray[np.int16]] = []
        self._samples = 0
        self._probabilities: list[float] = []
        self._partial = ""
        self._next_partial = SAMPLE_RATE * PARTIAL_SECONDS

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""
        self._begin()
        self._expect(hints)
        self._active = True

    def accept(self, pcm: bytes) -> str:
        """See Recognizer. Raises EngineTransient when no segment was begun, or when decoding failed."""
        self._check_active()
        self._rest += pcm
        whole = len(self._rest) - len(self._rest) % 2
        samples = np.frombuffer(self._rest[:whole], np.int16)
        self._rest = self._rest[whole:]
        self._sound.append(samples)
        self._samples += len(samples)
        self._probabilities += self._vad.probabilities(samples).tolist()
        if self._partials and self._samples >= self._next_partial:
            self._next_partial = self._samples + max(SAMPLE_RATE * PARTIAL_SECONDS, self._samples * PARTIAL_GROWTH)
            guarded, _ = self._heard(WINDOW_SECONDS * SAMPLE_RATE, beam_size=1)
            self._partial = " ".join(word.text for word in guarded.words)
        return self._partial

    def finish(self) -> Recognition:
        """See Recognizer. Raises EngineTransient when no segment was begun, or when decoding failed."""
        self._check_active()
        self._active = False
        guarded, language = self._heard(self._samples, beam_size=self._beam_size)
        self._begin()  # neither sound nor names are needed any more
        self._hotwords = ""
        return Recognition(guarded.words, self._engine, language, guarded.rejected)

    def recognize_many(self, pieces: list[bytes], hints: Hints = NO_HINTS) -> list[Recognition]:
        """Recognise whole segments, s16le mono 16 kHz, with as few calls of the model as can be; a result for each.

        Each gets the words of its own sound alone. They go one by one where Whisper is to detect the language, since it
        does so once a call; so do those longer than its window. Raises EngineTransient when decoding failed.
        """
        self._expect(hints)
        sounds = [np.frombuffer(pcm[: len(pcm) // 2 * 2], np.int16) for pcm in pieces]
        together = bool(self._language) or not self._model.model.is_multilingual
        speech = [self._speech(sound) if together else [] for sound in sounds]
        chosen = [n for n, spans in enumerate(speech) if spans and len(sounds[n]) <= WINDOW_SECONDS * SAMPLE_RATE]
        if len(chosen) < 2:
            return [self._alone(pcm, hints) for pcm in pieces]
        decoded, language = self._decode_many([sounds[n] for n in chosen])
        prompt = self._prompt()
        found = {
            n: guard(one, speech[n], language=language, prompt=prompt) for n, one in zip(chosen, decoded, strict=True)
        }
        return [
            Recognition(found[n].words, self._engine, language, found[n].rejected)
            if n in found
            else self._alone(pcm, hints)
            for n, pcm in enumerate(pieces)
        ]

    def _alone(self, pcm: bytes, hints: Hints) -> Recognition:
        self.start(hints)
        self.accept(pcm)
        return self.finish()

    def _expect(self, hints: Hints) -> None:
        self._language = hints.language if hints.language in self._model.supported_languages else self._own_language
        self._hotwords = fitting(hints.words, self._tokens, self._model.max_length // 2 - 1)

    def _speech(self, sound: npt.NDArray[np.int16]) -> list[tuple[int, int]]:
        self._vad.reset()
        return speech_spans(self._vad.probabilities(sound).tolist())

    def _begin(self) -> None:
        self._rest = b""
        self._sound = []
        self._samples = 0
        self._probabilities = []
        self._vad.reset()
        self._partial = ""
        self._next_partial = SAMPLE_RATE * PARTIAL_SECONDS

    def _heard(self, most: int, *, beam_size: int) -> tuple[Guarded, str]:
        """Return the words of the last ``most`` samples, and their language; without speech Whisper is not asked."""
        speech = speech_spans(self._probabilities)
        first = max(0, self._samples - most)
        if not any(end * MS > first for _, end in speech):
            return Guarded(()), self._language or "en"
        samples = np.concatenate(self._sound)
        self._sound = [samples]
        pieces, language = self._decode(samples[first:], first // MS, beam_size)
        return guard(pieces, speech, language=language, prompt=self._prompt()), language

    def _prompt(self) -> list[str]:
        return [text for text in (self._initial_prompt, self._hotwords) if text]

    def _decode_many(self, sounds: list[npt.NDArray[np.int16]]) -> tuple[list[list[Piece]], str]:
        """Return what Whisper makes of each sound, decoded side by side in one batch.

        faster-whisper cuts the sounds out of one recording, by seconds that it rounds down to samples, makes the
        features of each by itself, and names where a sound began in the ``seek`` of what it heard there. Unlike one by
        one, each is decoded once: what the model says behind its last time stamp is not asked for again.
        """
        starts = np.cumsum([0, *(len(sound) for sound in sounds)]).tolist()
        clips = [
            {"start": (first + 0.25) / SAMPLE_RATE, "end": (last + 0.25) / SAMPLE_RATE}
            for first, last in itertools.pairwise(starts)
        ]
        try:
            segments, info = self._batched.transcribe(
                np.concatenate(sounds).astype(np.float32) / 32768,
                language=self._language or None,
                beam_size=self._beam_size,
                temperature=0.0,
                word_timestamps=True,
                without_timestamps=False,  # as one by one
                initial_prompt=self._initial_prompt or None,
                hotwords=self._hotwords or None,
                vad_filter=False,
                clip_timestamps=clips,
                batch_size=len(sounds),
            )
            seeks = {int(first / SAMPLE_RATE * FEATURES_A_SECOND): n for n, first in enumerate(starts[:-1])}
            found: list[list[Piece]] = [[] for _ in sounds]
            for segment in segments:
                n = seeks[segment.seek]
                found[n].append(_piece(segment, -(starts[n] // MS), len(sounds[n]) // MS))
            return [_whole(one) for one in found], str(info.language)
        except RuntimeError as error:
            raise EngineTransient("Whisper could not decode some segments; they are tried again.") from error

    def _decode(self, samples: npt.NDArray[np.int16], offset_ms: int, beam_size: int) -> tuple[list[Piece], str]:
        try:
            segments, info = self._model.transcribe(
                samples.astype(np.float32) / 32768,
                language=self._language or None,
                beam_size=beam_size,
                temperature=0.0,
                condition_on_previous_text=False,  # a loop would feed itself
                compression_ratio_threshold=None,
                log_prob_threshold=None,
                no_speech_threshold=None,  # the guards judge, and keep the reason
                word_timestamps=True,
                initial_prompt=self._initial_prompt or None,
                hotwords=self._hotwords or None,
                vad_filter=False,
            )
            last_ms = offset_ms + len(samples) // MS
            return [_piece(segment, offset_ms, last_ms) for segment in segments], str(info.language)
        except RuntimeError as error:  # CTranslate2's only kind
            raise EngineTransient("Whisper could not decode a segment; it is tried again.") from error

    def _tokens(self, text: str) -> int:
        return len(self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids)

    def _check_active(self) -> None:
        if not self._active:
            raise EngineTransient("the recogniser was given sound before a segment was begun.")


def _load(name: str, place: Path, compute_type: str, threads: int) -> Any:
    try:
        return importlib.import_module("faster_whisper").WhisperModel(
            str(place.absolute()), device="cpu", compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )
    except MemoryError:
        raise
    except Exception as error:  # CTranslate2 and tokenizers raise whatever they like, plain Exception among it
        raise ModelRefused(
            f"faster-whisper cannot load the model {name} with listen.compute_type {compute_type}; take another type, "
            f"or fetch the model anew: omi-edge models rm {name} --yes, then omi-edge models pull {name}"
        ) from error


def _piece(segment: Any, offset_ms: int, last_ms: int) -> Piece:
    return Piece(
        segment.text,
        tuple(_words(segment.words or (), offset_ms, last_ms)),
        segment.avg_logprob,
        segment.no_speech_prob,
        segment.compression_ratio,
        segment.temperature or 0.0,
        segment.seek,
    )


def _whole(pieces: list[Piece]) -> list[Piece]:
    """Return the pieces of one decoding with the compression ratio of all its text, as Whisper counts it one by one."""
    if not pieces:
        return pieces
    ratio = compression_ratio("".join(piece.text for piece in pieces).strip())
    return [msgspec.structs.replace(piece, compression_ratio=ratio) for piece in pieces]


def _words(words: Iterable[Any], offset_ms: int, last_ms: int) -> Iterable[HeardWord]:
    for word in words:
        text = word.word.strip()
        if text:
            start_ms = max(0, min(last_ms, offset_ms + round(word.start * 1000)))
            end_ms = max(start_ms, min(last_ms, offset_ms + round(word.end * 1000)))
            yield HeardWord(text, start_ms, end_ms, round(float(min(1.0, max(0.0, word.probability))), 3))
