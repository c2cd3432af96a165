"""The built-in diarizer: who speaks when in one conversation, for clear voices.

Speech is cut into pieces at its pauses; a piece is described by its median pitch and mean cepstra; pieces are merged
from the bottom up until the nearest two groups are further apart than one voice ever is from itself. How many people
speak is not told, it is found. A piece that lies between two voices, or is too short to judge, has no speaker.
"""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import numpy.typing as npt

from omi_edge.domain import Turn
from omi_edge.listen.features import CEPSTRA, HOP, VOICED, frames

Vectors = npt.NDArray[np.float64]

SPREAD = np.array([2.0, 0.99, 1.01, 1.34, 0.70, 0.77, 0.72, 0.52, 0.51, 0.40, 0.34, 0.33, 0.29])
"""Standard deviation within one voice of a piece's pitch (semitones) and cepstra. The cepstra were measured on nine
synthetic voices after the pendant's codec; the pitch was 0.8 there and is widened, since people speak less evenly."""
APART = 1.75
"""Mean distance in spreads at which two groups are two voices."""
ALONE_SECONDS = 2.0
"""A voice whose voiced sound in a whole conversation is less than this is not a voice of its own."""
PAUSE_FRAMES = 12
"""Pauses of 120 ms part two pieces: people take turns at pauses."""
PIECE_FRAMES = 200
"""A piece without a pause is cut after two seconds, in case somebody broke in."""
JUDGED_FRAMES = 25
"""A quarter of a second of voiced sound is needed to judge a piece."""
QUIET_DB = 30.0
"""What is this far below the loudest of the segment is a pause."""
UNITS_LIMIT = 1500
"""Pieces that are clustered; of more, the longest decide and the others join the nearest voice."""
MAXIMUM_SPEAKERS = 8
STRANGER = 1.4 * APART
"""A piece further than this from every voice has no speaker. Measured on the shipped recording after the pendant's
codec: pieces lie within 1.82 of their own voice and beyond 2.52 of the other."""
MARGIN = 1.10
"""The second nearest voice must be this many times as far as the nearest for a piece to have a speaker."""


class _Piece(msgspec.Struct):
    start_us: int
    end_us: int
    voiced: int
    """Voiced frames."""


class BuiltinDiarizer:
    """Implements ``engine.Diarizer``. Keeps 13 numbers for each piece of speech: an hour takes less than 1 MB."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._vectors: list[Vectors] = []

    def start(self) -> None:
        """See Diarizer."""
        self._pieces = []
        self._vectors = []

    def add(self, start_us: int, pcm: bytes) -> None:
        """See Diarizer."""
        cepstra, pitch, voicing, level = frames(np.frombuffer(pcm, np.int16))
        if not len(level):
            return
        loud = level > level.max() - QUIET_DB
        for first, last in _pieces(loud):
            inside = slice(first, last)
            voiced = loud[inside] & (voicing[inside] > VOICED)
            vector = np.full(1 + CEPSTRA, np.nan)
            if voiced.any():
                vector[0] = np.median(pitch[inside][voiced])
                vector[1:] = cepstra[inside][voiced].mean(axis=0)
            hop_us = HOP * 1_000_000 // 16_000
            self._pieces.append(_Piece(start_us + first * hop_us, start_us + last * hop_us, int(voiced.sum())))
            self._vectors.append(vector / SPREAD)

    def finish(self) -> list[Turn]:
        """See Diarizer."""
        judged = [index for index, piece in enumerate(self._pieces) if piece.voiced >= JUDGED_FRAMES]
        if not judged:
            return [Turn(piece.start_us, piece.end_us, None, 0.0) for piece in self._pieces]
        weights = np.array([self._pieces[index].voiced for index in judged], np.float64)
        vectors = np.stack([self._vectors[index] for index in judged])
        centres = _centres(vectors, weights)
        return self._turns(centres)

    def _turns(self, centres: Vectors) -> list[Turn]:
        turns: list[Turn] = []
        names: dict[int, str] = {}
        for piece, vector in zip(self._pieces, self._vectors, strict=True):
            speaker, confidence = _nearest(vector, centres) if piece.voiced >= JUDGED_FRAMES // 2 else (None, 0.0)
            label = None
            if speaker is not None:
                label = names.setdefault(speaker, f"SPEAKER_{len(names):02d}")
            last = turns[-1] if turns else None
            if last is not None and last.speaker == label and piece.start_us - last.end_us < 1_000_000:
                share = (last.end_us - last.start_us) / max(1, piece.end_us - last.start_us)
                turns[-1] = Turn(last.start_us, piece.end_us, label, last.confidence * share + confidence * (1 - share))
            else:
                turns.append(Turn(piece.start_us, piece.end_us, label, confidence))
        return turns


def _pieces(loud: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return [first, last) of each stretch between pauses, the long ones cut evenly."""
    heard = np.flatnonzero(loud)
    if not len(heard):
        return []
    breaks = np.flatnonzero(np.diff(heard) > PAUSE_FRAMES)
    firsts = heard[np.concatenate([[0], breaks + 1])]
    lasts = heard[np.concatenate([breaks, [len(heard) - 1]])] + 1
    out = []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        parts = max(1, round((last - first) / PIECE_FRAMES))
        edges = np.linspace(first, last, parts + 1).round().astype(int).tolist()
        out += list(itertools.pairwise(edges))
    return out


def _centres(vectors: Vectors, weights: Vectors) -> Vectors:
    """Return the centre of each voice, shape (voices, 13): average linkage, then one round of reassignment."""
    chosen = np.sort(np.argsort(-weights, kind="stable")[:UNITS_LIMIT])
    points, mass = vectors[chosen], weights[chosen]
    groups = _merge(points, mass)
    enough = ALONE_SECONDS * 100
    large = [group for group in groups if mass[group].sum() >= enough]
    if not large:
        large = [max(groups, key=lambda group: float(mass[group].sum()))]
    large = sorted(large, key=lambda group: -float(mass[group].sum()))[:MAXIMUM_SPEAKERS]
    centres = np.stack([np.average(points[group], axis=0, weights=mass[group]) for group in large])
    distance = _distances(points, centres)
    nearest = np.where(distance.min(axis=1) <= STRANGER, distance.argmin(axis=1), -1)
    for index in range(len(centres)):
        own = nearest == index
        if own.any():
            centres[index] = np.average(points[own], axis=0, weights=mass[own])
    return centres


def _merge(points: Vectors, mass: Vectors) -> list[npt.NDArray[np.intp]]:
    """Agglomerate while the two nearest groups are less than ``APART`` (average linkage, Lance and Williams, 1967)."""
    count = len(points)
    distance = _distances(points, points)
    np.fill_diagonal(distance, np.inf)
    sizes = mass.copy()
    members: list[list[int]] = [[index] for index in range(count)]
    alive = np.ones(count, bool)
    for _ in range(count - 1):
        flat = int(np.argmin(distance))
        one, other = divmod(flat, count)
        if distance[one, other] > APART:
            break
        total = sizes[one] + sizes[other]
        row = (distance[one] * sizes[one] + distance[other] * sizes[other]) / total
        row[~alive] = np.inf
        row[one] = row[other] = np.inf
        distance[one], distance[:, one] = row, row
        distance[other] = np.inf
        distance[:, other] = np.inf
        alive[other] = False
        sizes[one] = total
        members[one] += members[other]
    return [np.array(sorted(members[index])) for index in np.flatnonzero(alive)]


def _distances(points: Vectors, centres: Vectors) -> Vectors:
    """Root mean square difference in spreads, shape (points, centres)."""
    squares = (points**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2 * points @ centres.T
    apart: Vectors = np.sqrt(np.maximum(squares, 0) / points.shape[1])
    return apart


def _nearest(vector: Vectors, centres: Vectors) -> tuple[int | None, float]:
    if np.isnan(vector).any():
        return None, 0.0
    distance = _distances(vector[None], centres)[0]
    order = np.argsort(distance)
    best = float(distance[order[0]])
    if best > STRANGER:  # like nobody who speaks here
        return None, 0.0
    if len(order) == 1:
        return 0, round(1 / (1 + best / APART), 3)
    second = float(distance[order[1]])
    if second < MARGIN * best:
        return None, round(1 - best / second, 3)
    return int(order[0]), round(1 - best / (best + second), 3)
