"""The training: what is to be learnt, in which order, and how far it has come."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scripts.test_model import batches
from scripts.test_model.batches import END, FIRST_TIME, FULL, LONG, MIDDLE, NO_TIMES, SHORT, START, Batch, Recipe
from scripts.test_model.data import features
from scripts.test_model.network import FRAMES, MELS, Network, Shape
from scripts.test_model.speech import Spoken
from scripts.test_model.vocabulary import tokenizer

SEED = 20
STEPS = 3200
STAGES: tuple[tuple[float, tuple[tuple[Recipe, float], ...]], ...] = (
    (0.45, ((SHORT, 1.0),)),
    (0.85, ((SHORT, 0.35), (MIDDLE, 0.35), (FULL, 0.2), (LONG, 0.1))),
    (1.0, ((SHORT, 0.1), (MIDDLE, 0.2), (FULL, 0.4), (LONG, 0.3))),
)
"""Up to which share of the steps, and how often each kind of batch: from cheap and easy to what is wanted."""
SHORTEST_FIRST = 400
"""Steps until all lengths of sentence are drawn from."""
LEARNING_RATE, WARM_UP, LAST_RATE = 3e-3, 150, 0.02
WEIGHTS = {
    "token": 1.0, "phone": 0.2, "word": 0.5, "previous": 0.4, "look0": 0.3, "look1": 0.2, "look2": 0.4,
}  # fmt: skip
"""The decoder's loss, and what makes it listen: the readers of the encoder, and where each decoder layer looks."""
GUIDED_HEADS = 2
"""Of each decoder layer; those of the last one give the word times (`alignment_heads`)."""
TIME_SPREAD = np.exp(-0.5 * (np.arange(-4, 5) / 1.3) ** 2)
"""A time may be missed by a step or two of 20 ms."""


def shape() -> Shape:
    return Shape(len(batches.TOKENS), FIRST_TIME, len(batches.PHONES), len(batches.WORD_NUMBERS) + 1)


def recipe(step: int, steps: int) -> tuple[Recipe, float]:
    """Return the kind of batch ``step`` and the share of the corpus, shortest first, that it is drawn from."""
    mix = next(mix for until, mix in STAGES if step < until * steps or until == 1.0)
    at = math.modf((step + 1) * (math.sqrt(5) - 1) / 2)[0]  # spreads the kinds evenly
    for kind, share in mix:
        at -= share
        if at < 0:
            return kind, min(1.0, 0.15 + 0.85 * step / SHORTEST_FIRST)
    return mix[-1][0], 1.0


def losses(network: Network, batch: Batch) -> dict[str, Tensor]:
    """Return each loss, unweighted."""
    tokens, labels, look = (torch.from_numpy(part) for part in (batch.tokens, batch.labels, batch.look))
    heard, early = network.encoder(torch.from_numpy(batch.features), torch.from_numpy(batch.offsets))
    found, where = network.decoder(tokens, heard)
    # the first layer finds the token before, the others the one to come
    before = functional.pad(look[:, :-1], (0, 0, 1, 0)) * (labels >= 0)[..., None]
    return {
        "token": _token_loss(network.decoder.scores(found[labels >= 0]), labels[labels >= 0]),
        "phone": _named(network.reads_phone(early), batch.phones),
        "word": _named(network.reads_word(heard), batch.words),
        "previous": _named(network.reads_previous(heard), batch.previous),
        **{f"look{n}": _look_loss(where[n], before if n == 0 else look) for n in range(len(where))},
    }


def _token_loss(scores: Tensor, labels: Tensor) -> Tensor:
    chances = scores.log_softmax(-1)
    times = labels >= FIRST_TIME
    total = -chances[~times].gather(1, labels[~times, None]).sum()
    if times.any():
        spread = torch.from_numpy(TIME_SPREAD / TIME_SPREAD.sum()).float()
        near = labels[times, None] + torch.arange(-4, 5)
        near = near.clamp(FIRST_TIME, FIRST_TIME + FRAMES)
        total = total - (chances[times].gather(1, near) * spread).sum()
    return total / len(labels)


def _named(scores: Tensor, numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), torch.from_numpy(numbers).flatten())


def _look_loss(where: Tensor, look: Tensor) -> Tensor:
    missed = -(where[:, :GUIDED_HEADS] * look[:, None]).sum(-1).mean(1)
    return missed[look.sum(-1) > 0].mean()


def train(corpus: Path, held_out: Sequence[Spoken], checkpoint: Path, steps: int = STEPS) -> Network:
    """Train from ``checkpoint`` on, or from nothing; print how it goes."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    network = Network(shape())
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    done, took = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, took = state["done"], state["took"]
    print(f"{sum(parameter.numel() for parameter in learnt)} parameters, {done} of {steps} steps done", flush=True)
    seen: Counter[str] = Counter()
    began = time.monotonic() - took
    for step, batch in _prepared(corpus, done, steps):
        optimizer.param_groups[0]["lr"] = (
            LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * max(LAST_RATE, 1 - step / steps)
        )
        parts = losses(network, batch)
        optimizer.zero_grad()
        torch.stack([WEIGHTS[name] * part for name, part in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        seen.update({name: part.item() for name, part in parts.items()})
        if (step + 1) % 50 == 0 or step + 1 == steps:
            told = " ".join(f"{name} {value / 50:.3f}" for name, value in seen.items())
            print(f"{step + 1} {(time.monotonic() - began) / 60:.1f} min {told}", flush=True)
            seen.clear()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _keep(checkpoint, network, optimizer, step + 1, time.monotonic() - began)
            wrong = wrong_words(network, held_out)
            print(f"{step + 1} wrong words in {len(held_out)} held-out sentences: {wrong:.3f}", flush=True)
    return network


def _keep(checkpoint: Path, network: Network, optimizer: torch.optim.Optimizer, done: int, took: float) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": done, "took": took}
    part = checkpoint.with_suffix(".part")
    torch.save(state, part)
    part.replace(checkpoint)


@torch.no_grad()
def wrong_words(network: Network, held_out: Sequence[Spoken]) -> float:
    """Return the share of words written wrong, by the plainest decoding: the likeliest token, no times."""
    texts = tokenizer()
    wrong = total = 0
    for spoken in held_out:
        found = features(spoken.samples)
        padded = torch.zeros(1, MELS, 2 * FRAMES)
        padded[0, :, : found.shape[1]] = torch.from_numpy(found)
        heard, _ = network.encoder(padded, torch.zeros(1, dtype=torch.long))
        tokens = [START, NO_TIMES]
        while tokens[-1] != END and len(tokens) < 24:
            following, _ = network.decoder(torch.tensor([tokens]), heard)
            tokens.append(int(network.decoder.scores(following[0, -1]).argmax()))
        written = texts.decode(tokens).replace(".", " ").split()
        wrong += distance(spoken.words, written)
        total += len(spoken.words)
    return wrong / total


def distance(said: Sequence[str], written: Sequence[str]) -> int:
    """Return Levenshtein's distance in words."""
    row = list(range(len(written) + 1))
    for number, word in enumerate(said, 1):
        above = row
        row = [number]
        for column, other in enumerate(written):
            row.append(min(above[column + 1] + 1, row[column] + 1, above[column] + (word != other)))
    return row[-1]


_corpus: list[Spoken] = []


def _load_corpus(path: Path) -> None:
    _corpus[:] = sorted(pickle.loads(path.read_bytes()), key=lambda spoken: len(spoken.samples))


def _prepare(step: int, steps: int) -> Batch:
    kind, share = recipe(step, steps)
    return batches.make(f"{SEED} {step}", _corpus, kind, share)


def _prepared(corpus: Path, first: int, steps: int) -> Iterator[tuple[int, Batch]]:
    """Have another process make the batches, two ahead."""
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_load_corpus, initargs=(corpus,)
    ) as pool:
        ahead = [pool.submit(_prepare, step, steps) for step in range(first, min(first + 2, steps))]
        for step in range(first, steps):
            batch = ahead.pop(0).result()
            if step + 2 < steps:
                ahead.append(pool.submit(_prepare, step + 2, steps))
            yield step, batch
