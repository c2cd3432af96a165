"""Makes `tests/models/spoken/` and the sounds of its tests, from nothing but flite and a seed.

    scripts/make_test_model          # all of it, in an environment of its own; about an hour on two cores
    scripts/make_test_model STEP     # one step: speak, train, export, evaluate, sounds

What is in between is kept in build/test-model/: a training that was stopped goes on where it was.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.test_model import training
from scripts.test_model.evaluation import evaluate
from scripts.test_model.export import export
from scripts.test_model.held_out import corpus_orders, held_out_sets, write_sounds
from scripts.test_model.speech import Spoken, speak_all

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/test-model"
MODEL = ROOT / "tests/models/spoken"
CORPUS, HELD_OUT, CHECKPOINT = BUILD / "corpus.pickle", BUILD / "held-out.pickle", BUILD / "checkpoint.pt"


def speak() -> None:
    """Speak what is learnt and what is asked afterwards."""
    BUILD.mkdir(parents=True, exist_ok=True)
    sets = {name: speak_all(orders) for name, orders in held_out_sets(random.Random(training.SEED)).items()}
    HELD_OUT.write_bytes(pickle.dumps(sets))
    known = {spoken.words for spokens in sets.values() for spoken in spokens}
    corpus = speak_all(corpus_orders(random.Random(training.SEED + 1), known))
    CORPUS.write_bytes(pickle.dumps(corpus))
    print(f"{len(corpus)} sentences, {sum(len(spoken.samples) for spoken in corpus) / 16_000 / 60:.0f} minutes")


def train(steps: int = training.STEPS) -> None:
    """Learn."""
    training.train(CORPUS, _held_out()["voices"][:20], CHECKPOINT, steps)


def _held_out() -> dict[str, list[Spoken]]:
    found: dict[str, list[Spoken]] = pickle.loads(HELD_OUT.read_bytes())
    return found


STEPS: dict[str, Callable[[], None]] = {
    "speak": speak,
    "train": train,
    "export": lambda: export(CHECKPOINT, MODEL),
    "evaluate": lambda: evaluate(MODEL, _held_out(), MODEL / "figures.json"),
    "sounds": lambda: write_sounds(_held_out()["voices"], ROOT / "tests/models/held_out"),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or STEPS:
        STEPS[name]()
