"""faster-whisper itself on a model of random weights; and a scripted stand-in for what such a model never says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faster_whisper
import msgspec
import numpy as np
import pytest

from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, Hints, Recognition
from omi_edge.errors import (
    EnginePermanent,
    EngineTransient,
    ModelAltered,
    ModelMissing,
    ModelRefused,
    ModelTruncated,
    NotFound,
)
from omi_edge.listen.guards import Guarded
from omi_edge.listen.whisper import PARTIAL_GROWTH, WhisperRecognizer
from omi_edge.models.shelf import Shelf
from tests.listen.sound import SHORT, Samples, noise, recording
from tests.listen.tiny_whisper import NAME, shelved


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shelved(tmp_path_factory.mktemp("tiny") / "models").folder


@pytest.fixture
def own_models(tmp_path: Path) -> Path:
    return shelved(tmp_path / "models").folder


def recognizer(models: Path, **options: Any) -> WhisperRecognizer:
    return WhisperRecognizer(folder=str(models), model=NAME, threads=1, **options)


def hear(
    engine: WhisperRecognizer, samples: Samples, cuts: tuple[int, ...] = (), hints: Hints = NO_HINTS
) -> tuple[list[str], Recognition]:
    """Partial texts, and the result; cut at bytes."""
    raw = samples.tobytes()
    engine.start(hints)
    partials = [engine.accept(raw[first:last]) for first, last in zip((0, *cuts), (*cuts, len(raw)), strict=True)]
    return partials, engine.finish()


class ScriptedWhisper:
    """Says what a test wants; remembers what it was asked."""

    says: tuple[tuple[str, float, float], ...] = ()
    asked: list[dict[str, Any]]
    trouble: Exception | None = None
    supported_languages = ("de", "en", "nl")
    max_length = 448
    hf_tokenizer = SimpleNamespace(encode=lambda text, add_special_tokens: SimpleNamespace(ids=list(text)))
    """A token each character."""

    def __init__(self, path: str, **options: Any) -> None:
        assert Path(path).is_absolute()
        assert options["local_files_only"]

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterator[Any], Any]:
        type(self).asked.append(options | {"seconds": len(audio) / SAMPLE_RATE, "peak": float(np.abs(audio).max())})
        if self.trouble is not None:
            raise self.trouble
        words = [SimpleNamespace(word=f" {w}", start=a, end=b, probability=np.float64(0.9)) for w, a, b in self.says]
        text = "".join(word.word for word in words)
        segment = SimpleNamespace(
            text=text, words=words, avg_logprob=-0.3, no_speech_prob=0.1, compression_ratio=1.0, temperature=0.0, seek=0
        )
        return iter([segment]), SimpleNamespace(language=options["language"] or "nl")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedWhisper]:
    kind = type("Scripted", (ScriptedWhisper,), {"asked": []})
    monkeypatch.setattr(faster_whisper, "WhisperModel", kind)
    return kind


def test_the_real_library_gives_the_same_words_however_the_sound_is_cut(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omi_edge.listen.guards._of_piece", lambda *_: None)  # random weights deserve no belief
    engine = recognizer(models, beam_size=1)
    sound = recording(SHORT)[: 5 * SAMPLE_RATE]
    _, whole = hear(engine, sound)
    assert whole.words
    assert all(0 <= word.start_ms <= word.end_ms <= 5000 and 0 <= word.confidence <= 1 for word in whole.words)
    assert whole.engine == f"faster-whisper {faster_whisper.__version__} {NAME} int8"
    assert whole.language == "en"
    _, again = hear(engine, sound, (1, 333, 1024, 90_001))
    assert again == whole
    live, cut = hear(recognizer(models, beam_size=1, partials=True), sound, (64_000, 128_000))
    assert cut == whole
    assert live[-1]


SPANS = (0, 6), (1, 7), (1, 6)
"""Of the recording, in half seconds."""


def pieces() -> list[bytes]:
    """Return three segments of speech, a silence between two of them, and one that is longer than a window."""
    sound = recording(SHORT)[: 4 * SAMPLE_RATE]
    first, second, third = (sound[a * SAMPLE_RATE // 2 : b * SAMPLE_RATE // 2].tobytes() for a, b in SPANS)
    return [first, b"\0" * 64_000, second, third, np.tile(sound, 8)[: 31 * SAMPLE_RATE].tobytes()]


def test_several_in_one_call_get_what_each_gets_alone(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omi_edge.listen.guards._of_piece", lambda *_: None)  # random weights deserve no belief
    engine = recognizer(models, beam_size=1)
    calls, decode = [], engine._decode_many

    def counted(sounds: list[Samples]) -> Any:
        calls.append(len(sounds))
        return decode(sounds)

    monkeypatch.setattr(engine, "_decode_many", counted)
    segments = pieces()
    together = engine.recognize_many(segments)
    assert calls == [3]  # silence is not asked about, and what is too long goes alone
    assert len(together) == len(segments)
    assert together[1].words == ()
    assert together[4] == hear(engine, np.frombuffer(segments[4], np.int16))[1]
    for found, pcm in zip(together, segments, strict=True):
        alone = hear(engine, np.frombuffer(pcm, np.int16))[1]
        assert (found.engine, found.language) == (alone.engine, alone.language)
        assert all(0 <= word.start_ms <= word.end_ms <= len(pcm) // 32 for word in found.words)
    assert any(found.words for found in together)
    assert engine.recognize_many(segments[::-1])[::-1] == together  # whatever lies beside it
    assert engine.recognize_many([]) == []


class ScriptedBatch:
    """Says in each clip where it began, and one word too late for it."""

    asked: list[dict[str, Any]]

    def __init__(self, model: Any) -> None:
        pass

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterator[Any], Any]:
        self.asked.append(options)
        return iter([part for clip in options["clip_timestamps"] for part in self._heard(clip)]), SimpleNamespace(
            language="en"
        )

    def _heard(self, clip: dict[str, float]) -> Iterator[Any]:
        first, last = (int(clip[end] * SAMPLE_RATE) / SAMPLE_RATE for end in ("start", "end"))
        words = [(f" at{first:.2f}", first + 0.9, first + 1.2), (" late", last - 0.5, last + 5)]
        for text, start, end in words:
            yield SimpleNamespace(
                text=text, words=[SimpleNamespace(word=text, start=start, end=end, probability=0.9)], avg_logprob=-0.3,
                no_speech_prob=0.1, compression_ratio=1.0, temperature=0.0, seek=int(first * 100),
            )  # fmt: skip


def test_each_gets_its_own_words(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedBatch, "asked", [], raising=False)
    monkeypatch.setattr(faster_whisper, "BatchedInferencePipeline", ScriptedBatch)
    monkeypatch.setattr("omi_edge.listen.whisper.guard", lambda pieces, *_, **__: Guarded(
        tuple(word for piece in pieces for word in piece.words)
    ))  # fmt: skip
    sound = recording(SHORT)
    segments = [sound[: 2 * SAMPLE_RATE + 7].tobytes(), sound[: 3 * SAMPLE_RATE + 1].tobytes() + b"\1"]
    engine = recognizer(models, initial_prompt="Anna", language="en")
    first, second = engine.recognize_many(segments, Hints(("omi",)))
    assert [(word.text, word.start_ms, word.end_ms) for word in first.words] == [
        ("at0.00", 900, 1200), ("late", 1500, 2000),
    ]  # fmt: skip
    assert [(word.text, word.start_ms, word.end_ms) for word in second.words] == [
        ("at2.00", 900, 1200), ("late", 2500, 3000),
    ]  # fmt: skip
    (asked,) = ScriptedBatch.asked
    wanted = {"initial_prompt": "Anna", "hotwords": "omi", "temperature": 0.0, "without_timestamps": False,
              "vad_filter": False, "batch_size": 2}  # fmt: skip
    assert wanted.items() <= asked.items()


def test_where_the_language_is_to_be_detected_each_goes_alone(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 1.0, 1.5),)
    scripted.model = SimpleNamespace(is_multilingual=True)  # type: ignore[attr-defined]
    found = recognizer(models).recognize_many(pieces()[:3])
    assert [one.language for one in found] == ["nl", "en", "nl"]
    assert len(scripted.asked) == 2


def test_words_that_are_not_believed_leave_their_reasons(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 0.8, 1.2), ("ghost", 9.0, 9.5))
    sound = np.concatenate([recording(SHORT)[: 3 * SAMPLE_RATE], np.zeros(8 * SAMPLE_RATE, np.int16)])
    _, found = hear(recognizer(models), sound)
    assert [word.text for word in found.words] == ["hello"]
    assert [(one.start_ms, one.reason, one.words) for one in found.rejected] == [(9000, "outside-speech", 1)]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Recognition) == found


def test_without_speech_whisper_is_not_asked(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("ghost", 0.0, 0.5),)
    engine = recognizer(models, partials=True)
    for sound in (np.zeros(3 * SAMPLE_RATE, np.int16), noise(3, 800), noise(3, 800, pink=True), np.zeros(0, np.int16)):
        partials, found = hear(engine, sound)
        assert (partials, found.words) == ([""], ())
    assert scripted.asked == []


def test_what_is_asked(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 1.0, 1.5), ("", 1.5, 1.6), ("there", 1.5, 99.0))
    engine = recognizer(models, beam_size=3, language="de", initial_prompt="Anna, Bob.")
    _, found = hear(engine, recording(SHORT)[: 3 * SAMPLE_RATE], hints=Hints(("omi", "Ada"), "xx"))
    assert [(word.text, word.start_ms, word.end_ms) for word in found.words] == [
        ("hello", 1000, 1500),
        ("there", 1500, 3000),
    ]
    assert found.language == "de"
    (asked,) = scripted.asked
    wanted = {
        "language": "de",
        "beam_size": 3,
        "initial_prompt": "Anna, Bob.",
        "hotwords": "omi, Ada",
        "temperature": 0.0,
    }
    assert wanted.items() <= asked.items()
    assert asked["peak"] <= 1.0
    scripted.asked.clear()
    assert hear(recognizer(models), recording(SHORT)[: 3 * SAMPLE_RATE])[1].language == "nl"
    assert (scripted.asked[0]["language"], scripted.asked[0]["initial_prompt"]) == (None, None)


def test_hints_hold_for_one_segment_and_need_no_other_model(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 1.0, 1.5),)
    engine, sound = recognizer(models, language="de"), recording(SHORT)[: 3 * SAMPLE_RATE]
    for hints in (Hints(("Ada",), "nl"), Hints(("Bob", "Ada")), NO_HINTS):
        hear(engine, sound, hints=hints)
    assert [(one["hotwords"], one["language"]) for one in scripted.asked] == [
        ("Ada", "nl"), ("Bob, Ada", "de"), (None, "de"),
    ]  # fmt: skip
    hear(engine, sound, hints=Hints(tuple(f"name{n:03}" for n in range(100))))
    hotwords = scripted.asked[-1]["hotwords"]
    assert hotwords.startswith("name000, name001")
    assert 223 - len(", name000") < len(" " + hotwords) <= 223


def test_what_was_hinted_is_doubted_where_little_supports_it(models: Path, scripted: type[ScriptedWhisper]) -> None:
    speech = recording(SHORT)[SAMPLE_RATE : 3 * SAMPLE_RATE]
    sound = np.concatenate([speech, np.zeros(2 * SAMPLE_RATE, np.int16)])
    scripted.says = (("Zephira", 1.4, 3.4),)  # a good quarter of it is speech
    assert hear(recognizer(models), sound)[1].words
    _, found = hear(recognizer(models), sound, hints=Hints(("Zephira",)))
    assert found.words == ()
    assert [one.reason for one in found.rejected] == ["phantom-phrase"]


def test_the_real_library_puts_the_words_before_each_window(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = recognizer(models, beam_size=1)
    whisper = engine._model
    prompts: list[list[int]] = []
    own = whisper.get_prompt

    def get_prompt(*args: Any, **options: Any) -> list[int]:
        prompts.append(own(*args, **options))
        return prompts[-1]

    monkeypatch.setattr(whisper, "get_prompt", get_prompt)
    sound = np.tile(recording(SHORT)[SAMPLE_RATE : 5 * SAMPLE_RATE], 9)  # 36 s: two windows
    many = ("Marguerite", "<|endoftext|>", "Dr Wu", *(f"Name{n}" for n in range(99)))
    hear(engine, sound, hints=Hints(many))
    texts = [whisper.hf_tokenizer.decode(prompt, skip_special_tokens=False) for prompt in prompts]
    assert len(texts) >= 2
    for text in texts:
        given = text.removeprefix("<|startofprev|>").split("<|startoftranscript|>")[0]
        assert given.startswith(" Marguerite, Dr Wu, Name0, Name1")
        assert given.split(", ")[-1] in many  # not cut in the middle of a word
    prompts.clear()
    hear(engine, sound)
    assert not any("startofprev" in whisper.hf_tokenizer.decode(one, skip_special_tokens=False) for one in prompts)


def test_partial_text_is_made_seldom_and_of_the_last_window(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 0.5, 1.0),)
    speech = recording(SHORT)[SAMPLE_RATE : 4 * SAMPLE_RATE]
    sound = np.tile(speech, 14)  # 42 s
    engine = recognizer(models, partials=True)
    blocks = tuple(range(3_200, len(sound) * 2, 3_200))
    partials, _ = hear(engine, sound, blocks)
    *live, last = scripted.asked
    assert {one["beam_size"] for one in live} == {1}
    assert last["beam_size"] == 5
    lengths = [one["seconds"] for one in live]
    assert lengths == sorted(lengths)
    assert lengths[0] == pytest.approx(1.0)
    assert lengths[-1] == 30.0
    assert last["seconds"] == 42.0
    assert len(live) < 16 < 30 / (1 + PARTIAL_GROWTH)
    assert "hello" in partials
    scripted.asked.clear()
    assert set(hear(recognizer(models), sound, blocks)[0]) == {""}
    assert len(scripted.asked) == 1


def test_nothing_of_a_segment_reaches_the_next(models: Path, scripted: type[ScriptedWhisper]) -> None:
    scripted.says = (("hello", 1.0, 1.5),)
    engine = recognizer(models)
    engine.start()
    engine.accept(recording(SHORT).tobytes() + b"\x01")
    assert hear(engine, np.zeros(SAMPLE_RATE, np.int16))[1].words == ()
    with pytest.raises(EngineTransient, match="before a segment was begun"):
        engine.accept(b"")
    with pytest.raises(EngineTransient, match="before a segment was begun"):
        engine.finish()


def test_a_decoding_that_fails_is_tried_again(models: Path, scripted: type[ScriptedWhisper]) -> None:
    engine = recognizer(models)
    scripted.trouble = RuntimeError("what was said")
    with pytest.raises(EngineTransient) as found:
        hear(engine, recording(SHORT))
    assert "what was said" not in str(found.value)
    scripted.trouble = None
    assert hear(engine, recording(SHORT))[1].language == "nl"


@pytest.mark.usefixtures("scripted")
def test_a_language_that_whisper_does_not_know(models: Path) -> None:
    with pytest.raises(EnginePermanent, match=r"listen\.language.*'xx'"):
        recognizer(models, language="xx")


def test_a_model_for_english_alone_hears_english(models: Path) -> None:
    engine = recognizer(models, language="de", beam_size=1)
    assert hear(engine, recording(SHORT)[: 3 * SAMPLE_RATE])[1].language == "en"


def test_files_that_are_not_what_they_were(own_models: Path) -> None:
    with pytest.raises(NotFound, match=f"did you mean {NAME}"):
        WhisperRecognizer(folder=str(own_models), model="tiny-randon")
    weights = own_models / NAME / "model.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelAltered, match=f"omi-edge models import FOLDER --as {NAME}"):
        recognizer(own_models)
    os.truncate(weights, 1000)
    with pytest.raises(ModelTruncated, match=f"omi-edge models import FOLDER --as {NAME}"):
        recognizer(own_models)
    weights.unlink()
    with pytest.raises(ModelMissing, match=f"omi-edge models import FOLDER --as {NAME}"):
        recognizer(own_models)


def test_files_that_are_as_they_were_and_no_model(own_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shelf, "locate", lambda shelf, name: shelf.place(name))
    (own_models / NAME / "model.bin").write_bytes(b"no weights")
    with pytest.raises(ModelRefused, match=f"omi-edge models pull {NAME}"):
        recognizer(own_models)
    (own_models / NAME / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match=r"no tokenizer\.json"):
        recognizer(own_models)
