"""How attributions of a text and class differ between two models, many texts of F features a call.

`between` compares two attributions, `level` describes one. All are computed for M examples of one
length at once; NaN stands where a statistic is not defined. Ranks and top sets count features of
equal merit alike (`engine.metrics.ranking`), and no statistic but those of magnitude depends on the
scale of either side, for models differ in how large their values are.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.metrics.ranking import average_ranks, settle, top_share

FloatMF: TypeAlias = npt.NDArray[np.float64]
FloatM: TypeAlias = npt.NDArray[np.float64]

SIZES = (1, 3, 5, 10)
"""k of the top sets."""
BETWEEN = (
    "spearman",
    "pearson",
    "cosine",
    "abs_cosine",
    "abs_cosine_null",
    "abs_cosine_gain",
    "top1_overlap",
    "top3_overlap",
    "top3_jaccard",
    "top5_overlap",
    "top5_jaccard",
    "top10_overlap",
    "top10_jaccard",
    "sign_flips",
    "sign_flip_ratio",
    "mass_ratio",
)
"""What `between` returns, in order."""
LEVEL = ("mass", "mean_magnitude", "gini", "entropy")
"""What `level` returns, in order."""


def between(a_MF: FloatMF, b_MF: FloatMF) -> dict[str, FloatM]:
    """Return statistics [M] of how alike the attributions of a row are.

    - `spearman`, `pearson`: correlation of average ranks and of values; undefined if either side is
      constant.
    - `cosine`: of the signed values, `abs_cosine` of their magnitudes; undefined if either is all
      zero. Magnitudes are never negative, so that their cosine is high by construction:
      `abs_cosine_null` is its mean over all permutations of one side's words,
      (Σ|a|·Σ|b| / F) / (‖a‖‖b‖) exactly (Hoeffding 1951), and `abs_cosine_gain` the difference;
      both undefined for one feature.
    - `top{k}_overlap`: |A ∩ B| / k, `top{k}_jaccard`: |A ∩ B| / |A ∪ B|, of the k features of the
      largest magnitude, features tied for the last places counted in part. Undefined with k
      features or fewer, of which all are in both.
    - `sign_flips`: features whose sign is the opposite, `sign_flip_ratio`: their share of those
      that are zero on neither side; undefined where there is none.
    - `mass_ratio`: Σ|b| / Σ|a|; undefined if either is 0.

    Args:
        a_MF: Attributions of the reference [M, F], finite.
        b_MF: Of the other [M, F].

    Raises:
        ValueError: The shapes differ.
        ExampleError: A value is not finite.
    """
    if a_MF.shape != b_MF.shape:
        raise ValueError(f"attributions of shape {a_MF.shape} and of {b_MF.shape}")
    a, b = settle(a_MF), settle(b_MF)  # no magnitude is lost in a square
    size_a, size_b = np.abs(a), np.abs(b)
    n = a.shape[1]
    found = {
        "spearman": _correlation(average_ranks(a), average_ranks(b)),
        "pearson": _correlation(a, b),
        "cosine": _cosine(a, b),
        "abs_cosine": _cosine(size_a, size_b),
    }
    chance = size_a.sum(axis=1) * size_b.sum(axis=1) / max(n, 1)
    found["abs_cosine_null"] = _over(chance, _norms(a, b)) if n > 1 else np.full(len(a), np.nan)
    found["abs_cosine_gain"] = found["abs_cosine"] - found["abs_cosine_null"]
    for k in SIZES:
        common = np.minimum(top_share(size_a, k), top_share(size_b, k)).sum(axis=1)
        common = common if n > k else np.full(len(a), np.nan)
        found[f"top{k}_overlap"] = common / k
        if k > 1:  # of one feature both are the same
            found[f"top{k}_jaccard"] = common / (2 * k - common)
    signs = np.sign(a) * np.sign(b)
    flips = (signs < 0).sum(axis=1).astype(np.float64)
    found["sign_flips"] = flips
    found["sign_flip_ratio"] = _over(flips, (signs != 0).sum(axis=1).astype(np.float64))
    mass_a, mass_b = np.abs(a_MF).sum(axis=1), np.abs(b_MF).sum(axis=1)
    found["mass_ratio"] = np.where(mass_b > 0, _over(mass_b, mass_a), np.nan)
    return found


def level(scores_MF: FloatMF) -> dict[str, FloatM]:
    """Return statistics [M] of the attributions of one side.

    - `mass`: Σ|φ|, `mean_magnitude`: Σ|φ| / F, both in units of the target.
    - `gini`, `entropy`: as `engine.metrics.complexity` defines them, the one times F/(F−1), the
      other over ln F; undefined without weight or with fewer than two features.

    Args:
        scores_MF: Attributions [M, F], F ≥ 1, finite.
    """
    n = scores_MF.shape[1]
    mass = np.abs(scores_MF).sum(axis=1)
    sizes = np.abs(settle(scores_MF))
    shares = np.sort(sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1.0), axis=1)
    weighed = (mass > 0) & (n > 1)
    places = np.arange(1, n + 1)
    gini = (2 * (places * shares).sum(axis=1) - (n + 1)) / max(n - 1, 1)
    nats = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1) + 0.0
    return {
        "mass": mass,
        "mean_magnitude": mass / n,
        "gini": np.where(weighed, gini, np.nan),
        "entropy": np.where(weighed, nats / np.log(max(n, 2)), np.nan),
    }


def _correlation(a_MF: FloatMF, b_MF: FloatMF) -> FloatM:
    def centred(values: FloatMF) -> FloatMF:
        # the mean of equal numbers may differ from them in the last bit
        equal = (values == values[:, :1]).all(axis=1, keepdims=True)
        return np.where(equal, 0.0, values - values.mean(axis=1, keepdims=True))

    if not a_MF.shape[1]:
        return np.full(len(a_MF), np.nan)
    return _cosine(centred(a_MF), centred(b_MF))


def _cosine(a_MF: FloatMF, b_MF: FloatMF) -> FloatM:
    return np.clip(_over((a_MF * b_MF).sum(axis=1), _norms(a_MF, b_MF)), -1.0, 1.0)


def _norms(a_MF: FloatMF, b_MF: FloatMF) -> FloatM:
    return np.asarray(np.sqrt((a_MF**2).sum(axis=1) * (b_MF**2).sum(axis=1)))


def _over(over_M: FloatM, under_M: FloatM) -> FloatM:
    return np.where(under_M > 0, over_M / np.where(under_M > 0, under_M, 1.0), np.nan)
