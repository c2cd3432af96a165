"""Which recogniser hears now: the chosen one, or the built-in one in its place, and why."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from omi_edge.clock import Clock, held
from omi_edge.config import Config
from omi_edge.engine import EngineSpec
from omi_edge.errors import (
    BadInput,
    ConfigError,
    EngineError,
    EnginePermanent,
    ModelAltered,
    ModelMissing,
    ModelTruncated,
    OmiEdgeError,
)
from omi_edge.models.manifest import Manifest
from omi_edge.models.shelf import Shelf

BUILT_IN = "pocketsphinx"
WHISPER = "whisper"
WYOMING = "wyoming"
FAILURES = 2
"""Segments in a row that may fail for passing reasons before the built-in recogniser takes over; fewer than a job's
three tries, so that none is lost. A choice."""
AGAIN_SECONDS = 600.0
"""After which a model that failed is tried again. A choice."""
SOON_SECONDS = 10.0
"""After which a server that failed is tried again; twice as long after each time, up to ``AGAIN_SECONDS``. A choice:
one that is started anew is back within seconds."""
_SHORT: dict[type[OmiEdgeError], str] = {ModelTruncated: "truncated", ModelAltered: "altered"}


WHISPER_LANGUAGES = tuple(
    (
        "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy "
        "id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru "
        "sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh"
    ).split()
)
"""Of models that know more than English: faster-whisper's tokenizer."""


class SpeechModel(msgspec.Struct, frozen=True):
    """What hears, as others are told."""

    name: str
    maker: str
    url: str
    languages: tuple[str, ...]
    """ISO 639-1 codes."""


class Trouble(msgspec.Struct, frozen=True):
    """Why the chosen recogniser is not used."""

    short: str
    """For the record of each result."""
    sentence: str
    """Cause and cure."""


class Chosen(msgspec.Struct, frozen=True):
    """A recogniser for one segment. ``instead_of`` names the chosen one and why it is not this, "" when it is."""

    spec: EngineSpec
    instead_of: str = ""


class RecognizerChoice:
    """The recogniser that the configuration names. Raises ConfigError for a model that is none for speech."""

    def __init__(self, spec: EngineSpec, built_in: EngineSpec, config: Config, models: Path, clock: Clock) -> None:
        self._clock = clock
        self._built_in = built_in
        self._spec = spec
        self._config = config
        self._models = models
        self._shelf: Shelf | None = None
        self.name = config.listen.recognizer
        self._files: Trouble | None = None
        self._failed: Trouble | None = None
        self._failures = 0
        self._again_us = 0
        self._wait_seconds = 0.0
        if self.name == WHISPER:
            self._model = config.listen.model
            self._shelf = Shelf(models)
            _check_kind(self._shelf.manifest, self._model)
            self.name = self._model
            self._spec = self._with_model(spec, self._model)

    @property
    def trouble(self) -> Trouble | None:
        """Why the built-in recogniser takes the place of the chosen one; None when it does not."""
        return self._files or self._failed

    @property
    def engine(self) -> str:
        """What hears now, in words."""
        return self.name if self.trouble is None else f"{BUILT_IN} (instead of {self.name}: {self.trouble.short})"

    @property
    def speech_model(self) -> SpeechModel:
        """What hears now, for those who ask over Wyoming."""
        language = self._config.listen.language
        if self._shelf is not None and self.trouble is None:
            model = self._shelf.manifest.find(self.name)
            languages = ("en",) if self.name.endswith(".en") else (language,) if language else WHISPER_LANGUAGES
            maker = model.repository.split("/")[0]
            return SpeechModel(self.name, maker, f"https://huggingface.co/{model.repository}", languages)
        if self.name == WYOMING and self.trouble is None:
            return SpeechModel(WYOMING, "a Wyoming server", "", (language or "en",))
        return SpeechModel(BUILT_IN, "Carnegie Mellon University", "https://github.com/cmusphinx/pocketsphinx", ("en",))

    def named(self, name: str, known: Mapping[str, EngineSpec]) -> EngineSpec:
        """Return one of the ``known`` recognisers, or Whisper with the model of this name.

        Raises BadInput that names the nearest, ModelMissing for a model whose files are not here.
        """
        if name == WYOMING and not self._config.wyoming.uri:
            raise BadInput("no Wyoming server is named; set wyoming.uri to its address.", "engine")
        if name in known and name != WHISPER:
            return known[name]
        model = self._config.listen.model if name == WHISPER else name
        shelf = self._shelf or Shelf(self._models)
        if model not in _for_speech(shelf.manifest):
            near = difflib.get_close_matches(name, [*known, *_for_speech(shelf.manifest)], 1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}, or a model."
            raise BadInput(f"there is no recogniser or model {name[:80]!r}; {hint}", "engine")
        if not shelf.installed(model):
            raise ModelMissing(f"the model {model} is not here; fetch it with: omi-edge models pull {model}")
        return self._with_model(known[WHISPER], model)

    def checked(self, name: str, known: Mapping[str, EngineSpec]) -> EngineSpec:
        """Return what ``named`` does, its files looked at. Raises ModelError too for files that are not as they were.

        Blocks while files that changed are hashed.
        """
        spec = self.named(name, known)
        if "model" in spec.options:
            (self._shelf or Shelf(self._models)).locate(spec.options["model"])
        return spec

    def check_final(self, name: str, known: Mapping[str, EngineSpec]) -> None:
        """Raise ConfigError when ``listen.final`` names neither a recogniser nor a model for speech.

        Its files may come later.
        """
        models = _for_speech((self._shelf or Shelf(self._models)).manifest)
        if name in known or name in models:
            return
        near = difflib.get_close_matches(name, [*known, *models], 1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}, or a model."
        raise ConfigError(f"listen.final: there is no recogniser or model {name[:80]!r}; {hint}")

    def _with_model(self, spec: EngineSpec, model: str) -> EngineSpec:
        settings = self._config.listen
        options = {
            "folder": str(self._models),
            "model": model,
            "compute_type": settings.compute_type,
            "beam_size": settings.beam,
            "language": settings.language,
            "threads": self._config.engine.threads,
        }
        return EngineSpec(spec.factory, spec.options | options)

    async def check(self) -> None:
        """Look whether the model's files are what they should be; reads them only when they changed."""
        if self._shelf is not None:
            with held(self._clock):
                self._files = await asyncio.to_thread(self._look, self._shelf)

    async def now(self, *, live: bool) -> Chosen:
        """Return what is to hear the next segment; ``live``: with partial text."""
        await self.check()
        if self._files is not None or (self._failed is not None and self._clock.boot_us() < self._again_us):
            assert self.trouble is not None
            return Chosen(self._built_in, f"{self.name}: {self.trouble.short}")
        if self._shelf is None:
            return Chosen(self._spec)
        return Chosen(EngineSpec(self._spec.factory, self._spec.options | {"partials": live}))

    def worked(self, chosen: Chosen) -> None:
        """Note that a segment was heard."""
        if not chosen.instead_of:
            self._failures, self._failed, self._wait_seconds = 0, None, 0.0

    def gave_way(self, chosen: Chosen, error: EngineError) -> bool:
        """Note that a segment was not heard; return whether the built-in recogniser takes over now."""
        if self.name == BUILT_IN or chosen.instead_of:
            return False
        self._failures += 1
        if not isinstance(error, EnginePermanent) and self._failures < FAILURES:
            return False
        if self.name == WYOMING:
            self._failed = Trouble(
                "failed",
                f"{_sentence(error)} It is tried again, at first after {SOON_SECONDS:.0f} seconds; see that it runs "
                "and that wyoming.uri names it (docs/wyoming.md).",
            )
            self._wait_seconds = min(AGAIN_SECONDS, 2 * self._wait_seconds or SOON_SECONDS)
            self._again_us = self._clock.boot_us() + round(self._wait_seconds * 1e6)
            return True
        self._failed = Trouble(
            "failed",
            f"The model {self.name} cannot be run here ({str(error).rstrip('.')}). Check listen.compute_type, "
            "listen.language and the free memory, or take a smaller model; it is tried again every ten minutes.",
        )
        self._again_us = self._clock.boot_us() + round(AGAIN_SECONDS * 1e6)
        return True

    def _look(self, shelf: Shelf) -> Trouble | None:
        try:
            shelf.locate(self.name)
        except OmiEdgeError as error:
            short = _SHORT.get(type(error), "damaged")
            if isinstance(error, ModelMissing):
                short = "a file is missing" if shelf.installed(self.name) else "not installed"
            return Trouble(short, _sentence(error))
        return None


def _sentence(error: OmiEdgeError) -> str:
    return str(error)[0].upper() + str(error)[1:]


def _check_kind(manifest: Manifest, name: str) -> None:
    known = _for_speech(manifest)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else "they are listed by: omi-edge models list"
    raise ConfigError(f"listen.model: there is no model {name[:80]!r} for speech recognition; {hint}")


def _for_speech(manifest: Manifest) -> list[str]:
    return [model.name for model in manifest.model if model.kind == "asr" and model.format == "ctranslate2"]
