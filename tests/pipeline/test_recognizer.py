"""The chosen recogniser, and the built-in one in its place: real files, real engine processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from omi_edge.clock import DrivenClock
from omi_edge.config import Config, EngineConfig, ListenConfig, ModelsConfig, WebConfig
from omi_edge.daemon import Daemon
from omi_edge.domain import SAMPLE_RATE
from omi_edge.engine import NO_HINTS, EngineSpec, HeardWord, Hints, Recognition, Rejected
from omi_edge.errors import BadInput, ConfigError, EnginePermanent, EngineTransient, ModelMissing
from omi_edge.models.shelf import Shelf
from omi_edge.pipeline import engines
from omi_edge.pipeline.engines import ChosenEngines
from omi_edge.pipeline.recognizer import AGAIN_SECONDS
from omi_edge.store import notices
from tests.helpers import PASSPHRASE
from tests.listen.sound import SHORT, recording
from tests.listen.tiny_whisper import NAME, shelved

CONFIG = Config(listen=ListenConfig(recognizer="whisper", model=NAME), engine=EngineConfig(threads=1))
SECOND = b"\0" * 32_000
DEADLY = b"\1" * 32_000
"""No Whisper survives it."""
BUILT_IN = "tests.pipeline.test_recognizer:BuiltIn"


class BuiltIn:
    """Stands for PocketSphinx."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        return "so far"

    def finish(self) -> Recognition:
        """See Recognizer."""
        return Recognition((HeardWord("word", 0, 400, 0.9),), "built-in 1")


class Whisper(BuiltIn):
    """Stands for the real one; does what the language says."""

    def start(self, hints: Hints = NO_HINTS) -> None:
        """See Recognizer."""
        if self._options["language"] == "no":
            raise EnginePermanent("cannot be loaded")
        if self._options["language"] == "die":
            os._exit(1)

    def accept(self, pcm: bytes) -> str:
        """See Recognizer."""
        if pcm == DEADLY:
            os._exit(1)
        return super().accept(pcm)

    def finish(self) -> Recognition:
        """See Recognizer."""
        return Recognition(
            (), f"whisper partials={self._options.get('partials')}", rejected=(Rejected(0, 9, "too-fast"),)
        )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return shelved(tmp_path / "models")


@pytest.fixture
async def closing() -> AsyncIterator[list[ChosenEngines]]:
    opened: list[ChosenEngines] = []
    yield opened
    for one in opened:
        await one.close()


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.RECOGNIZERS, "pocketsphinx", EngineSpec(BUILT_IN))
    monkeypatch.setitem(engines.RECOGNIZERS, "whisper", EngineSpec("tests.pipeline.test_recognizer:Whisper"))


def chosen(clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines], language: str = "") -> ChosenEngines:
    config = Config(listen=ListenConfig(recognizer="whisper", model=NAME, language=language))
    closing.append(ChosenEngines(config, clock, shelf.folder))
    return closing[-1]


async def _blocks() -> AsyncIterator[bytes]:
    yield SECOND


async def test_the_real_whisper_runs_in_an_engine_process(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    closing.append(ChosenEngines(CONFIG, clock, shelf.folder))
    (found,) = closing
    assert await found.check() == ""
    heard = await found.recognize(SECOND)
    assert heard.engine.startswith("faster-whisper ")
    assert heard.engine.endswith(f"{NAME} int8")
    assert {tier.engine for tier in found.tiers.values()} == {NAME, "builtin"}


@pytest.mark.usefixtures("stand_ins")
async def test_another_recogniser_or_model_can_be_named(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    closing.append(ChosenEngines(Config(), clock, shelf.folder))
    (found,) = closing
    assert (await found.recognize_with("pocketsphinx", SECOND)).engine == "built-in 1"
    assert (await found.recognize_with(NAME, SECOND)).engine == "whisper partials=None"
    with pytest.raises(BadInput, match=f"did you mean {NAME}"):
        found.check_recognizer(NAME[:-1])
    other = next(m.name for m in shelf.manifest.model if m.kind == "asr" and m.name != NAME)
    with pytest.raises(ModelMissing, match=f"omi-edge models pull {other}"):
        found.check_recognizer(other)


FINAL = Config(listen=ListenConfig(final=NAME, language="en", beam=1), engine=EngineConfig(threads=1))


async def test_the_final_one_runs_the_real_whisper_in_a_process_of_its_own(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    closing.append(ChosenEngines(FINAL, clock, shelf.folder))
    (found,) = closing
    speech = recording(SHORT)[: 3 * SAMPLE_RATE].tobytes()
    assert await found.check_final() == ""
    (alone,) = await found.recognize_final(NAME, [(speech, NO_HINTS)])
    both = await found.recognize_final(NAME, [(one, NO_HINTS) for one in (speech, SECOND, speech)])
    assert {one.engine for one in both} == {alone.engine}
    assert (len(both), both[0], both[1].words) == (3, both[2], ())
    assert [process.name for process in found.processes] == ["live", "batch", "final"]
    assert [process.pid is not None for process in found.processes] == [False, False, True]
    shelf.place(NAME).rename(shelf.place("away"))
    assert f"omi-edge models pull {NAME}" in await found.check_final()
    with pytest.raises(ModelMissing, match=f"omi-edge models pull {NAME}"):
        await found.recognize_final(NAME, [(speech, NO_HINTS)])


@pytest.mark.parametrize(("name", "nearest"), [(NAME[:-1], NAME), ("wisper", "whisper"), ("silero-vad", "")])
def test_a_final_recogniser_that_does_not_exist(clock: DrivenClock, shelf: Shelf, name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"listen\.final: there is no recogniser.*{nearest}"):
        ChosenEngines(Config(listen=ListenConfig(final=name)), clock, shelf.folder)


async def test_the_second_pass_is_seen_in_status_and_health(folder: Path, clock: DrivenClock, shelf: Shelf) -> None:
    config = Config(listen=FINAL.listen, models=ModelsConfig(folder=str(shelf.folder)), web=WebConfig(port=0))
    place = shelf.place(NAME)
    place.rename(place.with_name("away"))
    async with Daemon(config, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:
        await clock.advance(1.0)
        (part,) = [part for part in (await daemon.health()).parts if part.name == "final pass"]
        assert (part.state, part.critical) == ("degraded", False)
        assert f"omi-edge models pull {NAME}" in part.advice
        told = (await daemon.status()).final
        assert told is not None
        assert (told.engine, told.waiting, told.working, told.why) == (NAME, 0, None, "")
        assert f"omi-edge models pull {NAME}" in told.trouble
        assert await daemon.db.read(notices.active) == []
        place.with_name("away").rename(place)
        await clock.advance(20.0)
        (part,) = [part for part in (await daemon.health()).parts if part.name == "final pass"]
        assert (part.state, part.advice) == ("ok", "")


@pytest.mark.usefixtures("stand_ins")
async def test_partial_text_is_asked_of_the_live_one_alone(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    found = chosen(clock, shelf, closing)
    said: list[str] = []
    assert (await found.recognize_live(_blocks(), said.append)).engine == "whisper partials=True"
    heard = await found.recognize(SECOND)
    assert heard.engine == "whisper partials=False"
    assert heard.rejected == (Rejected(0, 9, "too-fast"),)
    assert said == ["so far"]


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("harm", "short"),
    [
        ("rm", "not installed"),
        ("unlink", "a file is missing"),
        ("truncate", "truncated"),
        ("alter", "altered"),
    ],
)
async def test_files_that_cannot_be_used_give_way_and_come_back(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines], harm: str, short: str
) -> None:
    found = chosen(clock, shelf, closing)
    place = shelf.place(NAME)
    weights = place / "model.bin"
    content = weights.read_bytes()
    if harm == "rm":
        place.rename(place.with_name("away"))
    elif harm == "unlink":
        weights.unlink()
    elif harm == "truncate":
        os.truncate(weights, 100)
    else:
        weights.write_bytes(content[:-1] + b"x")
    heard = await found.recognize(SECOND)
    assert heard.engine == f"built-in 1 (instead of {NAME}: {short})"
    assert heard.words
    mends = f"omi-edge models pull {NAME}" if harm == "rm" else f"omi-edge models import FOLDER --as {NAME}"
    assert mends in await found.check()
    for name in ("live recogniser", "batch recogniser"):
        assert found.tiers[name].engine == f"pocketsphinx (instead of {NAME}: {short})"
        assert mends in found.tiers[name].trouble
    assert (await found.recognize_live(_blocks(), lambda _: None)).engine == heard.engine
    if harm == "rm":
        place.with_name("away").rename(place)
    else:
        weights.write_bytes(content)
    assert (await found.recognize(SECOND)).engine == "whisper partials=False"
    assert await found.check() == ""
    assert found.tiers["live recogniser"].trouble == ""


@pytest.mark.usefixtures("stand_ins")
async def test_a_model_that_cannot_be_loaded_gives_way_at_once_and_is_tried_again_later(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    found = chosen(clock, shelf, closing, "no")
    assert (await found.recognize(SECOND)).engine == f"built-in 1 (instead of {NAME}: failed)"
    assert "listen.compute_type" in await found.check()
    with pytest.raises(EnginePermanent):
        await clock.advance(AGAIN_SECONDS + 1)
        await found.recognize_live(_blocks(), lambda _: None)
    assert (await found.recognize_live(_blocks(), lambda _: None)).engine.startswith("built-in 1")


@pytest.mark.usefixtures("stand_ins")
async def test_a_process_that_dies_again_and_again_gives_way_within_one_jobs_tries(
    clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]
) -> None:
    found = chosen(clock, shelf, closing, "die")
    with pytest.raises(EngineTransient):
        await found.recognize(SECOND)
    assert (await found.recognize(SECOND)).engine == f"built-in 1 (instead of {NAME}: failed)"


@pytest.mark.usefixtures("stand_ins")
async def test_one_death_alone_does_not(clock: DrivenClock, shelf: Shelf, closing: list[ChosenEngines]) -> None:
    found = chosen(clock, shelf, closing)
    for _ in range(3):
        await found.recognize(SECOND)
        with pytest.raises(EngineTransient):
            await found.recognize(DEADLY)
    assert await found.check() == ""


@pytest.mark.parametrize(
    ("model", "named"), [("whisper-smal", "did you mean whisper-small"), ("qwen2.5-1.5b", "omi-edge models list")]
)
def test_a_model_that_is_none_for_speech(clock: DrivenClock, tmp_path: Path, model: str, named: str) -> None:
    config = Config(listen=ListenConfig(recognizer="whisper", model=model))
    with pytest.raises(ConfigError, match=f"listen.model.*{named}"):
        ChosenEngines(config, clock, tmp_path)
    ChosenEngines(Config(listen=ListenConfig(model=model)), clock, tmp_path)  # nobody asked for it


async def test_the_owner_is_told_and_told_no_more(folder: Path, clock: DrivenClock, shelf: Shelf) -> None:
    config = Config(
        listen=ListenConfig(recognizer="whisper", model=NAME),
        models=ModelsConfig(folder=str(shelf.folder)),
        web=WebConfig(port=0),
    )
    place = shelf.place(NAME)
    place.rename(place.with_name("away"))
    async with Daemon(config, folder, PASSPHRASE, clock, serve_tcp=False) as daemon:
        await clock.advance(1.0)
        (notice,) = await daemon.db.read(notices.active)
        assert notice.code == "model-fallback"
        assert f"omi-edge models pull {NAME}" in notice.message
        parts = {part.name: part for part in (await daemon.health()).parts}
        assert parts["live recogniser"].state == "degraded"
        assert f"omi-edge models pull {NAME}" in parts["batch recogniser"].advice
        assert f"instead of {NAME}: not installed" in (await daemon.status()).speeds[0].engine
        await clock.advance(60.0)
        assert (await daemon.db.read(notices.active))[0].count == 1
        place.with_name("away").rename(place)
        await clock.advance(20.0)
        assert await daemon.db.read(notices.active) == []
        parts = {part.name: part for part in (await daemon.health()).parts}
        assert parts["live recogniser"].state == "ok"
        assert (await daemon.status()).speeds[0].engine == NAME
