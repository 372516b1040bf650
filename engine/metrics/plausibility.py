"""Does an attribution point at the evidence a person marked? Over positions, never strings.

The rationale is a set of features; each function gives None where it is empty or has all features,
since every attribution then scores the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.metrics.ranking import settle, top_share
from engine.types import FloatF, Span

BoolF = npt.NDArray[np.bool_]


def rationale_mask(features: Sequence[Sequence[Span]], rationale: Sequence[Span]) -> BoolF:
    """Return which features [F] share at least one character with the rationale.

    Args:
        features: Spans of each feature.
        rationale: Spans of the evidence, of the same input fields.
    """
    hits = [any(_overlap(a, b) for a in spans for b in rationale) for spans in features]
    return np.array(hits, dtype=bool)


def iou(scores_F: FloatF, rationale_F: BoolF) -> float | None:
    """Return |top_k ∩ rationale| / |top_k ∪ rationale|, k = number of rationale features.

    The top k by signed value, features tied for the last places counted in part. The original
    (DeYoung et al. 2020) takes k from the data set's mean rationale; the example's own k asks no
    more of a long rationale than of a short one.
    """
    hits = _hits(scores_F, rationale_F)
    return None if hits is None else hits / (2 * int(rationale_F.sum()) - hits)


def token_f1(scores_F: FloatF, rationale_F: BoolF) -> float | None:
    """Return the F1 of the top k features against the rationale, k = number of its features.

    Precision, recall and F1 are the same, for both sets have k features.
    """
    hits = _hits(scores_F, rationale_F)
    return None if hits is None else hits / int(rationale_F.sum())


def auprc(scores_F: FloatF, rationale_F: BoolF) -> float | None:
    """Return the average precision of signed scores against the rationale.

    Σ_n (R_n − R_{n−1})·P_n over the distinct scores in descending order, without interpolation.
    """
    if _trivial(scores_F, rationale_F):
        return None
    scores = settle(scores_F)
    ranked = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[scores[ranked][1:] != scores[ranked][:-1], True])
    hits = np.cumsum(rationale_F[ranked])[last]
    precision = hits / (last + 1)
    return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])


def _hits(scores_F: FloatF, rationale_F: BoolF) -> float | None:
    if _trivial(scores_F, rationale_F):
        return None
    return float(top_share(scores_F, int(rationale_F.sum()))[rationale_F].sum())


def _trivial(scores_F: FloatF, rationale_F: BoolF) -> bool:
    if len(scores_F) != len(rationale_F):
        raise ValueError(f"{len(scores_F)} scores but a rationale over {len(rationale_F)} features")
    return not rationale_F.any() or bool(rationale_F.all())


def _overlap(a: Span, b: Span) -> bool:
    return a.field == b.field and a.start < b.end and b.start < a.end
