"""How well a model predicts: metrics of gold labels, predictions and probabilities.

Every function takes optional weights [B, N], one row a resample, and gives one value a row [B], so
that the bootstrap and the point estimate share a definition; without weights B is 1. NaN stands
where a metric is not defined.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.target import LOG_FLOOR

IntN: TypeAlias = npt.NDArray[np.int64]
FloatN: TypeAlias = npt.NDArray[np.float64]
FloatNL: TypeAlias = npt.NDArray[np.float64]
FloatB: TypeAlias = npt.NDArray[np.float64]
FloatBL: TypeAlias = npt.NDArray[np.float64]
FloatBN: TypeAlias = npt.NDArray[np.float64]

ECE_BINS = 15


class ClassCounts(NamedTuple):
    """Counts of every label [B, L]: predicted rightly, in gold, and predicted."""

    hits: FloatBL
    gold: FloatBL
    predicted: FloatBL

    @property
    def occurs(self) -> npt.NDArray[np.bool_]:
        """Whether a label is in gold or predicted at all [B, L]."""
        return (self.gold + self.predicted) > 0


def class_counts(
    gold_N: IntN, predicted_N: IntN, n_labels: int, weights_BN: FloatBN | None = None
) -> ClassCounts:
    """Return the counts that all metrics of a confusion matrix's margins and diagonal need."""
    weights = _weights(weights_BN, len(gold_N))
    hits = weights * (gold_N == predicted_N)
    return ClassCounts(
        _sum_by(gold_N, hits, n_labels),
        _sum_by(gold_N, weights, n_labels),
        _sum_by(predicted_N, weights, n_labels),
    )


def confusion_matrix(gold_N: IntN, predicted_N: IntN, n_labels: int) -> npt.NDArray[np.int64]:
    """Return counts [L, L], a row a gold label, a column a predicted one."""
    flat = np.bincount(gold_N * n_labels + predicted_N, minlength=n_labels * n_labels)
    return flat.reshape(n_labels, n_labels).astype(np.int64)


def accuracy(counts: ClassCounts) -> FloatB:
    """Return the share of right predictions [B]."""
    return _divide(counts.hits.sum(axis=1), counts.gold.sum(axis=1))


def majority_rate(counts: ClassCounts) -> FloatB:
    """Return the share of the commonest gold label [B]: the accuracy of always saying it."""
    return _divide(counts.gold.max(axis=1), counts.gold.sum(axis=1))


def precision(counts: ClassCounts) -> FloatBL:
    """Return hits / predicted [B, L]; 0 for a label in gold that is never predicted."""
    return _per_class(counts.hits, counts.predicted, counts)


def recall(counts: ClassCounts) -> FloatBL:
    """Return hits / gold [B, L]; 0 for a predicted label that is not in gold."""
    return _per_class(counts.hits, counts.gold, counts)


def f1(counts: ClassCounts) -> FloatBL:
    """Return 2·hits / (gold + predicted) [B, L], the harmonic mean of precision and recall."""
    return _per_class(2 * counts.hits, counts.gold + counts.predicted, counts)


def macro(per_class_BL: FloatBL) -> FloatB:
    """Return the mean over the labels that occur in gold or are predicted [B]."""
    defined = ~np.isnan(per_class_BL)
    return _divide(np.where(defined, per_class_BL, 0.0).sum(axis=1), defined.sum(axis=1))


def mcc(counts: ClassCounts) -> FloatB:
    """Return Matthews' correlation [B], R_K for more than two labels (Gorodkin 2004).

    0 where all gold labels or all predictions are the same.
    """
    total = counts.gold.sum(axis=1)
    covariance = counts.hits.sum(axis=1) * total - (counts.gold * counts.predicted).sum(axis=1)
    gold = total**2 - (counts.gold**2).sum(axis=1)
    predicted = total**2 - (counts.predicted**2).sum(axis=1)
    product = gold * predicted
    return np.where(product > 0, covariance / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)


def auroc(gold_N: IntN, probabilities_NL: FloatNL, weights_BN: FloatBN | None = None) -> FloatB:
    """Return the area under the ROC curve [B]; tied probabilities count half.

    Two labels: of the probability of label 1. More: the mean of one-vs-rest over the labels with
    at least one example inside and one outside. NaN where no label has both, or L is 1.
    """
    weights = _weights(weights_BN, len(gold_N))
    n_labels = probabilities_NL.shape[1]
    if n_labels < 2:
        return np.full(len(weights), np.nan)
    labels = [1] if n_labels == 2 else np.unique(gold_N).tolist()
    total, defined = np.zeros(len(weights)), np.zeros(len(weights))
    for label in labels:
        area = _binary_auroc(probabilities_NL[:, label], gold_N == label, weights)
        total += np.nan_to_num(area)
        defined += ~np.isnan(area)
    return _divide(total, defined)


def nll(gold_N: IntN, probabilities_NL: FloatNL) -> FloatN:
    """Return −log p(gold) of each example [N], in nats; p is clipped at exp(−80)."""
    chosen = probabilities_NL[np.arange(len(gold_N)), gold_N]
    return -np.log(np.maximum(chosen, np.exp(LOG_FLOOR)))


def brier(gold_N: IntN, probabilities_NL: FloatNL) -> FloatN:
    """Return Σ_l (p_l − [l = gold])² of each example [N]; half of it for two labels (0..1)."""
    off = probabilities_NL.copy()
    off[np.arange(len(gold_N)), gold_N] -= 1.0
    squares = (off**2).sum(axis=1)
    return squares / 2 if probabilities_NL.shape[1] == 2 else squares


def ece(
    correct_N: npt.NDArray[np.bool_], confidence_N: FloatN, weights_BN: FloatBN | None = None
) -> FloatB:
    """Return the expected calibration error [B] (Guo et al. 2017, equation 3).

    Confidence is the probability of the predicted label; 15 bins of equal width, (low, high].
    """
    weights = _weights(weights_BN, len(correct_N))
    bins = np.clip(np.ceil(confidence_N * ECE_BINS) - 1, 0, ECE_BINS - 1).astype(np.int64)
    gaps = _sum_by(bins, weights * (correct_N - confidence_N), ECE_BINS)
    return _divide(np.abs(gaps).sum(axis=1), weights.sum(axis=1))


def _binary_auroc(
    scores_N: FloatN, positive_N: npt.NDArray[np.bool_], weights_BN: FloatBN
) -> FloatB:
    if not len(scores_N):
        return np.full(len(weights_BN), np.nan)
    rank = np.argsort(scores_N, kind="stable")
    ordered = scores_N[rank]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = weights_BN[:, rank]
    positive = np.add.reduceat(weights * positive_N[rank], starts, axis=1)
    negative = np.add.reduceat(weights * ~positive_N[rank], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + negative / 2)).sum(axis=1)
    return _divide(wins, positive.sum(axis=1) * negative.sum(axis=1))


def _weights(weights_BN: FloatBN | None, n: int) -> FloatBN:
    return np.ones((1, n)) if weights_BN is None else weights_BN


def _sum_by(codes_N: IntN, values_BN: FloatBN, n_codes: int) -> FloatBL:
    rows = len(values_BN)
    # the sums run in the order of the rows, whatever the number of threads
    flat = (codes_N[None, :] + n_codes * np.arange(rows)[:, None]).ravel()
    summed = np.bincount(flat, weights=values_BN.ravel(), minlength=rows * n_codes)
    return np.asarray(summed, dtype=np.float64).reshape(rows, n_codes)


def _per_class(numerator: FloatBL, denominator: FloatBL, counts: ClassCounts) -> FloatBL:
    values = numerator / np.where(denominator > 0, denominator, 1.0)
    return np.where(counts.occurs, values, np.nan)


def _divide(numerator: FloatB, denominator: npt.NDArray[np.number]) -> FloatB:
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.nan)
