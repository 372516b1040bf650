"""Percentile bootstrap over examples, whole groups at a time, the same bytes on every machine.

Sums run in numpy over rows in a fixed order and never through BLAS or a parallel group-by, so that
neither the number of threads nor the order of the files changes a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.seeds import generator

RESAMPLES = 1000
"""Resamples of an interval."""
LEVEL = 0.95
"""Coverage of an interval."""

_CHUNK = 2_000_000
"""Weights in memory at a time."""
_CACHED = 10_000_000
"""Weights kept for the next metric on the same examples."""

FloatN: TypeAlias = npt.NDArray[np.float64]
FloatBN: TypeAlias = npt.NDArray[np.float64]
FloatBM: TypeAlias = npt.NDArray[np.float64]
IntN: TypeAlias = npt.NDArray[np.int64]
Statistic: TypeAlias = Callable[[FloatBN], FloatBM]
"""Weights of the examples [B, N], one row a resample -> M statistics of each [B, M], NaN where one
is not defined."""


class Estimate(NamedTuple):
    """A statistic with its interval.

    Attributes:
        value: None where it isn't defined.
        n: Number of examples it stands on.
        ci_low: Lower end of the 95 % interval; None with fewer than two groups.
        ci_high: Upper end.
        groups: Number of independent groups of examples.
    """

    value: float | None
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    groups: int = 0


def group_codes(examples: Sequence[str], groups: Sequence[str | None]) -> IntN:
    """Return a number 0..G−1 for the group of each row [N], in order of first appearance.

    A row without a group is one with the other rows of its example.
    """
    codes: dict[tuple[str, str], int] = {}
    return np.array(
        [
            codes.setdefault(("example", e) if g is None else ("group", g), len(codes))
            for e, g in zip(examples, groups, strict=True)
        ],
        dtype=np.int64,
    )


def estimates(
    statistic: Statistic, codes_N: IntN, key: Sequence[str], resamples: int = RESAMPLES
) -> list[Estimate]:
    """Return M statistics with percentile intervals from one set of resamples.

    Args:
        statistic: A function of the examples' weights.
        codes_N: Group of each example, from `group_codes`.
        key: What the random numbers depend on, besides the number of groups: the factors of the
            row, so that rows of the same examples share their resamples.
        resamples: Number of resamples.
    """
    n, n_groups = len(codes_N), len(np.unique(codes_N))
    values = statistic(np.ones((1, n)))[0] if n else np.array([])
    if n_groups < 2:
        return [Estimate(_number(v), n, groups=n_groups) for v in values]
    draws = np.concatenate([statistic(w) for w in _weights(codes_N, tuple(key), resamples)])
    return [
        Estimate(_number(v), n, *_interval(draws[:, m], v), n_groups) for m, v in enumerate(values)
    ]


def mean(values_N: FloatN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return the mean of values [N] with its interval; NaN values are left out."""
    values, codes = _defined(values_N, codes_N)
    return _one(lambda w: (w * values).sum(axis=1) / w.sum(axis=1), codes, key)


def ratio(over_N: FloatN, under_N: FloatN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return Σ over / Σ under with its interval; undefined where the denominator is 0."""

    def statistic(weights: FloatBN) -> FloatN:
        under = (weights * under_N).sum(axis=1)
        safe = np.where(under > 0, under, 1.0)
        return np.where(under > 0, (weights * over_N).sum(axis=1) / safe, np.nan)

    return _one(statistic, codes_N, key)


def median(values_N: FloatN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return the median of values [N] with its interval; NaN values are left out."""
    values, codes = _defined(values_N, codes_N)
    rank = np.argsort(values, kind="stable")
    ordered = values[rank]

    def statistic(weights: FloatBN) -> FloatN:
        below = np.cumsum(weights[:, rank], axis=1)
        last = below[:, -1:] - 1
        low = (below > np.floor(last / 2)).argmax(axis=1)
        high = (below > np.ceil(last / 2)).argmax(axis=1)
        return (ordered[low] + ordered[high]) / 2

    return _one(statistic, codes, key)


def _one(statistic: Callable[[FloatBN], FloatN], codes_N: IntN, key: Sequence[str]) -> Estimate:
    if not len(codes_N):
        return Estimate(None, 0)
    return estimates(lambda weights: statistic(weights)[:, None], codes_N, key)[0]


def _defined(values_N: FloatN, codes_N: IntN) -> tuple[FloatN, IntN]:
    keep = ~np.isnan(values_N)
    return values_N[keep], codes_N[keep]


def _weights(codes_N: IntN, key: tuple[str, ...], resamples: int) -> Iterator[FloatBN]:
    """Yield how often each resample has each example, in chunks [B, N]."""
    dense = np.unique(codes_N, return_inverse=True)[1].astype(np.int64)
    chunks: Iterator[npt.NDArray[np.uint16]] | tuple[npt.NDArray[np.uint16], ...]
    if len(dense) * resamples <= _CACHED:
        chunks = _cached_draws(dense.tobytes(), key, resamples)
    else:
        chunks = _draws(dense, key, resamples)
    for chunk in chunks:
        yield chunk.astype(np.float64)


@lru_cache(maxsize=4)
def _cached_draws(
    codes: bytes, key: tuple[str, ...], resamples: int
) -> tuple[npt.NDArray[np.uint16], ...]:
    return tuple(_draws(np.frombuffer(codes, dtype=np.int64), key, resamples))


def _draws(codes_N: IntN, key: tuple[str, ...], resamples: int) -> Iterator[npt.NDArray[np.uint16]]:
    n_groups = int(codes_N.max()) + 1
    rng = generator("bootstrap", *key)
    size = max(1, _CHUNK // len(codes_N))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, n_groups, size=(rows, n_groups))
        flat = (drawn + n_groups * np.arange(rows)[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows * n_groups).reshape(rows, n_groups)
        yield counts[:, codes_N].astype(np.uint16)


def _interval(draws_B: FloatN, value: float) -> tuple[float | None, float | None]:
    """Return the percentiles of the resamples on which the statistic is defined."""
    defined = draws_B[~np.isnan(draws_B)]
    if np.isnan(value) or not len(defined):
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
