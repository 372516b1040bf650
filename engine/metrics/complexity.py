"""How concentrated an attribution is, from the magnitudes |φ|; None where it is not defined."""

from __future__ import annotations

import numpy as np

from engine.metrics.ranking import top_k
from engine.types import FloatF


def gini(scores_F: FloatF) -> float | None:
    """Return the Gini index of |φ| (Hurley & Rickard 2009, table I) times F/(F−1).

    0 where all features weigh the same, 1 where one has all the weight. None with fewer than two
    features or without any weight.
    """
    shares = _shares(scores_F)
    if shares is None or len(shares) < 2:
        return None
    n = len(shares)
    ranks = np.arange(1, n + 1)
    return float((2 * (ranks * np.sort(shares)).sum() - (n + 1)) / (n - 1))


def entropy(scores_F: FloatF) -> float | None:
    """Return the entropy of the shares of |φ| over ln F, 0..1.

    None with fewer than two features or without any weight.
    """
    shares = _shares(scores_F)
    if shares is None or len(shares) < 2:
        return None
    return _nats(shares) / float(np.log(len(shares)))


def effective_size(scores_F: FloatF) -> float | None:
    """Return exp(entropy in nats), 1..F: how many features carry the weight (Hill 1973)."""
    shares = _shares(scores_F)
    return None if shares is None else float(np.exp(_nats(shares)))


def top_k_mass(scores_F: FloatF) -> float | None:
    """Return the share of |φ| that the k largest hold, k = min(5, max(1, ⌊F/2⌋))."""
    shares = _shares(scores_F)
    if shares is None:
        return None
    return float(np.sort(shares)[len(shares) - top_k(len(shares)) :].sum())


def _shares(scores_F: FloatF) -> FloatF | None:
    magnitudes = np.abs(np.asarray(scores_F, dtype=np.float64))
    top = magnitudes.max(initial=0.0)
    if not (np.isfinite(top) and top > 0):
        return None
    # over the largest first: magnitudes near the smallest float would not sum to one
    magnitudes = magnitudes / top
    return magnitudes / magnitudes.sum()


def _nats(shares_F: FloatF) -> float:
    held = shares_F[shares_F > 0]
    return float(-(held * np.log(held)).sum()) + 0.0
