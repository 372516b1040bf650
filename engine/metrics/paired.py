"""Two models on the same examples: McNemar's test, and effect sizes of paired differences."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatN: TypeAlias = npt.NDArray[np.float64]
FloatBN: TypeAlias = npt.NDArray[np.float64]
FloatB3: TypeAlias = npt.NDArray[np.float64]

EFFECT_SIZES = ("d_z", "g_av", "cohens_d")
"""Columns of `effect_sizes`."""
_FLAT = 1e-9


class McNemar(NamedTuple):
    """Examples on which two models disagree about being right, and how likely that is by chance.

    Attributes:
        b: Only the reference is right.
        c: Only the other is right.
        exact: Two-sided p of the exact test.
        mid: Two-sided mid-p, which keeps the level better than the exact test, which is
            conservative.
    """

    b: int
    c: int
    exact: float
    mid: float


def mcnemar(reference_N: npt.NDArray[np.bool_], other_N: npt.NDArray[np.bool_]) -> McNemar:
    """Return McNemar's test (1947) of two models' being right on the same independent examples.

    If both are right equally often, the discordant examples fall on either side like fair coins.
    With m = min(b, c) and X ~ Binomial(b + c, ½): exact p = min(1, 2·P(X ≤ m)), mid-p =
    2·P(X ≤ m) − P(X = m), or 1 − P(X = m) / 2 if b = c (Fagerland et al. 2013). Both are 1 where
    none disagrees. Computed in whole numbers, so without any approximation.

    Args:
        reference_N: Whether the reference is right on each example.
        other_N: Whether the other is.
    """
    b = int((reference_N & ~other_N).sum())
    c = int((~reference_N & other_N).sum())
    n, smaller = b + c, min(b, c)
    ways, below = 1, 0
    for i in range(smaller):
        below += ways
        ways = ways * (n - i) // (i + 1)
    every = 1 << n
    if b == c:
        return McNemar(b, c, 1.0, 1.0 - ways / (2 * every) if n else 1.0)
    return McNemar(b, c, 2 * (below + ways) / every, (2 * below + ways) / every)


def effect_sizes(a_N: FloatN, b_N: FloatN, weights_BN: FloatBN) -> FloatB3:
    """Return how far b lies above a in standard deviations [B, 3], NaN where there is no spread.

    - `d_z` = mean(b − a) / sd(b − a): how consistent the difference is (Lakens 2013, equation 6).
    - `g_av` = J · mean(b − a) / ((sd(a) + sd(b)) / 2): how large it is on the scale of the
      examples, J = 1 − 3 / (4·(n − 1) − 1) for the bias of few (Hedges 1981; Cumming 2012).
    - `cohens_d` = mean(b − a) / √((sd²(a) + sd²(b)) / 2), as if the examples were not the same: for
      comparison with systems that report it.

    All sd with n − 1. In whole copies of the examples, as the bootstrap draws them, n is their
    number.

    Args:
        a_N: Of the reference.
        b_N: Of the other, on the same examples.
        weights_BN: How often each resample has each example.
    """
    n = weights_BN.sum(axis=1)
    difference = (weights_BN * (b_N - a_N)).sum(axis=1) / n
    of_difference, of_a, of_b = (_spread(x, weights_BN) for x in (b_N - a_N, a_N, b_N))
    few = np.where(n > 2, 1 - 3 / (4 * np.maximum(n, 3) - 5), np.nan)
    pooled = np.sqrt((of_a**2 + of_b**2) / 2)
    sizes = (
        _over(difference, of_difference),
        few * _over(difference, (of_a + of_b) / 2),
        _over(difference, pooled),
    )
    return np.stack(sizes, axis=1)


def _spread(values_N: FloatN, weights_BN: FloatBN) -> npt.NDArray[np.float64]:
    """Return the standard deviation with n − 1 [B], exactly 0 where rounding alone makes one."""
    n = weights_BN.sum(axis=1)
    mean = (weights_BN * values_N).sum(axis=1) / n
    squares = (weights_BN * (values_N - mean[:, None]) ** 2).sum(axis=1)
    spread = np.sqrt(squares / np.maximum(n - 1, 1))
    return np.where(spread > _FLAT * np.abs(values_N).max(initial=0.0), spread, 0.0)


def _over(
    over_B: npt.NDArray[np.float64], under_B: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.where(under_B > 0, over_B / np.where(under_B > 0, under_B, 1.0), np.nan)
