"""The small Whisper that really hears: 84 words in four voices of flite, made by `scripts/make_test_model`."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from omi_edge.capture.replay import Recording
from omi_edge.engine import EngineSpec
from omi_edge.models.archive import take_folder
from omi_edge.models.shelf import Shelf
from omi_edge.virtual.script import Line, Script, load_script
from tests.listen.sound import Samples, cut

NAME = "tiny-spoken"
MODEL = Path(os.environ.get("OMI_EDGE_TEST_MODEL") or Path(__file__).parents[1] / "models/spoken")
"""Another may be tried: OMI_EDGE_TEST_MODEL=/folder pytest tests/listen"""
HELD_OUT = Path(__file__).parents[1] / "models/held_out.ogg"
"""Sixteen sentences that it did not learn: twelve alone (conversation 0), four quickly one after another (1)."""
FILES = ("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json")
MANIFEST = "\n".join(
    [
        f'[[model]]\nname = "{NAME}"\nkind = "asr"\nformat = "ctranslate2"\nrepository = "own/{NAME}"',
        'good_for = "Tests that check words."\nlicence = "MIT"',
        *(f'[[model.files]]\nname = "{name}"' for name in FILES),
    ]
)
THERE = (MODEL / "model.bin").is_file()
needed = pytest.mark.skipif(not THERE, reason="scripts/make_test_model has not been run")


def shelved(folder: Path) -> Shelf:
    """Install the model in a new models folder, as `omi-edge models import --as` does."""
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text(MANIFEST, encoding="utf-8")
    shelf = Shelf(folder)
    take_folder(shelf, NAME, MODEL)
    return shelf


def spec(shelf: Shelf, **options: object) -> EngineSpec:
    """The recogniser with this model, for an engine process."""
    return EngineSpec(
        "omi_edge.listen.whisper:WhisperRecognizer",
        {"folder": str(shelf.folder), "model": NAME, "threads": 1, **options},
    )


@functools.cache
def held_out() -> Script:
    """What is said in HELD_OUT."""
    return load_script(HELD_OUT)


@functools.cache
def samples() -> Samples:
    """HELD_OUT as it is: it was through the pendant's kind of codec already."""
    return np.concatenate(list(Recording(HELD_OUT).read()))


def sound_of(first: Line, last: Line | None = None) -> Samples:
    """The sound from one line to another, with 0.3 s around."""
    return cut(samples(), first.start - 0.3, (last or first).end + 0.3)
