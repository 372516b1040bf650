"""Order of features by attribution, with ties that give nobody credit for a feature's position."""

from __future__ import annotations

import numpy as np

from engine.errors import ExampleError
from engine.seeds import generator
from engine.types import FloatF, IntF

_DIGITS = 12


def settle(scores_F: FloatF) -> FloatF:
    """Return scores over their largest magnitude, rounded, so that equal ones compare equal.

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
    top = np.abs(scores).max(initial=0.0)
    # the sum turns −0.0 into 0.0
    return np.round(scores / top, _DIGITS) + 0.0 if top > 0 else np.zeros_like(scores)


def order(scores_F: FloatF, seed: int) -> IntF:
    """Return features by descending signed score [F], ties in a seeded random order."""
    ties = generator("ties", seed).permutation(len(scores_F))
    return np.lexsort((ties, -settle(scores_F))).astype(np.int64)


def average_ranks(scores_F: FloatF) -> FloatF:
    """Return ranks 1..F in ascending order [F]; equal scores share their mean rank."""
    _, inverse, counts = np.unique(settle(scores_F), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def top_k(n_features: int) -> int:
    """Return how many features count as the top ones: 5, or half of them in a short text."""
    return min(5, max(1, n_features // 2))


def top_share(scores_F: FloatF, k: int) -> FloatF:
    """Return how much each feature belongs to the top k by signed score [F], summing to min(k, F).

    1 above the k-th score, 0 below it; features that tie for the last places share them evenly.
    """
    scores = settle(scores_F)
    if k >= len(scores):
        return np.ones(len(scores))
    threshold = np.sort(scores)[len(scores) - k]
    above, tied = scores > threshold, scores == threshold
    return above + tied * ((k - above.sum()) / tied.sum())
