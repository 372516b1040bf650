"""Order of features by attribution, with ties that give nobody credit for a feature's position.

`settle`, `average_ranks` and `top_share` take one attribution [F] or many of one length [..., F].
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.errors import ExampleError
from engine.seeds import generator
from engine.types import FloatF, IntF

FloatXF: TypeAlias = npt.NDArray[np.float64]
"""Attributions [..., F]."""

_DIGITS = 12


def settle(scores_F: FloatXF) -> FloatXF:
    """Return scores [..., F] over their largest magnitude, rounded: equal ones compare equal.

    A fit by least squares gives features of equal merit values that differ in the last bits, and
    those bits follow the position and the machine.

    Raises:
        ExampleError: A score is not finite.
    """
    scores = np.asarray(scores_F, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ExampleError(
            "attribution_not_finite",
            "an attribution is NaN or infinite and can't be ranked: check the explained values",
        )
    top = np.abs(scores).max(axis=-1, initial=0.0, keepdims=True)
    # the sum turns −0.0 into 0.0
    return np.round(scores / np.where(top > 0, top, 1.0), _DIGITS) + 0.0


def order(scores_F: FloatF, seed: int) -> IntF:
    """Return features by descending signed score [F], ties in a seeded random order."""
    ties = generator("ties", seed).permutation(len(scores_F))
    return np.lexsort((ties, -settle(scores_F))).astype(np.int64)


def average_ranks(scores_F: FloatXF) -> FloatXF:
    """Return ranks 1..F in ascending order [..., F]; equal scores share their mean rank."""
    scores = settle(scores_F)
    n = scores.shape[-1]
    rank = np.argsort(scores, axis=-1, kind="stable")
    ordered = np.take_along_axis(scores, rank, axis=-1)
    step = ordered[..., 1:] != ordered[..., :-1]
    edge = np.ones((*scores.shape[:-1], min(n, 1)), dtype=bool)
    places = np.arange(n)
    first = np.maximum.accumulate(
        np.where(np.concatenate([edge, step], axis=-1), places, 0), axis=-1
    )
    ends = np.where(np.concatenate([step, edge], axis=-1), places, n)
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty_like(scores)
    np.put_along_axis(ranks, rank, (first + last) / 2 + 1, axis=-1)
    return ranks


def top_k(n_features: int) -> int:
    """Return how many features count as the top ones: 5, or half of them in a short text."""
    return min(5, max(1, n_features // 2))


def top_share(scores_F: FloatXF, k: int) -> FloatXF:
    """Return how much each feature belongs to the top k by signed score [..., F].

    1 above the k-th score, 0 below it; features that tie for the last places share them evenly, so
    that an attribution's shares sum to min(k, F).
    """
    scores = settle(scores_F)
    n = scores.shape[-1]
    if k >= n:
        return np.ones_like(scores)
    threshold = np.sort(scores, axis=-1)[..., n - k : n - k + 1]
    above, tied = scores > threshold, scores == threshold
    left = k - above.sum(axis=-1, keepdims=True)
    return above + tied * (left / tied.sum(axis=-1, keepdims=True))
