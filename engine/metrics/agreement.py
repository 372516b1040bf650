"""How alike two attributions of the same game are; None where that is not defined."""

from __future__ import annotations

import numpy as np

from engine.metrics.ranking import average_ranks, settle, top_k, top_share
from engine.types import FloatF


def top_k_overlap(a_F: FloatF, b_F: FloatF) -> float | None:
    """Return |top_k(a) ∩ top_k(b)| / k by signed value (Krishna et al. 2022, feature agreement).

    k = min(5, max(1, ⌊F/2⌋)). Features tied for the last places belong to the top in part, the
    overlap being the sum of the smaller parts: a constant attribution scores the chance level k/F.
    None with fewer than two features.
    """
    n = _same_length(a_F, b_F)
    if n < 2:
        return None
    k = top_k(n)
    return float(np.minimum(top_share(a_F, k), top_share(b_F, k)).sum() / k)


def spearman(a_F: FloatF, b_F: FloatF) -> float | None:
    """Return the correlation of the average ranks; None if either is constant."""
    _same_length(a_F, b_F)
    a, b = average_ranks(a_F), average_ranks(b_F)
    return _cosine(a - a.mean(), b - b.mean()) if len(a) else None


def cosine(a_F: FloatF, b_F: FloatF) -> float | None:
    """Return the cosine of the angle between two attributions; None if either is all zero."""
    _same_length(a_F, b_F)
    # scaling changes no angle, and keeps tiny values from vanishing in the squares
    return _cosine(settle(a_F), settle(b_F))


def _cosine(a_F: FloatF, b_F: FloatF) -> float | None:
    norm = float(np.sqrt((a_F**2).sum() * (b_F**2).sum()))
    return float(np.clip((a_F * b_F).sum() / norm, -1.0, 1.0)) if norm > 0 else None


def _same_length(a_F: FloatF, b_F: FloatF) -> int:
    if len(a_F) != len(b_F):
        raise ValueError(f"attributions of {len(a_F)} and of {len(b_F)} features")
    return len(a_F)
