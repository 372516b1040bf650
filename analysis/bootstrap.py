"""Percentile bootstrap over examples, whole groups at a time, the same bytes on every machine.

What was measured under several seeds of a training is averaged over them, and the seeds are drawn
too: two levels, crossed, for every seed has the same examples.

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
FloatSN: TypeAlias = npt.NDArray[np.float64]
FloatBN: TypeAlias = npt.NDArray[np.float64]
FloatBS: TypeAlias = npt.NDArray[np.float64]
FloatBM: TypeAlias = npt.NDArray[np.float64]
IntN: TypeAlias = npt.NDArray[np.int64]
BoolN: TypeAlias = npt.NDArray[np.bool_]
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
    return mean_over_seeds([statistic], codes_N, key, resamples)


def mean_over_seeds(
    statistics: Sequence[Statistic],
    codes_N: IntN,
    key: Sequence[str],
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """Return M statistics averaged over the seeds that they were measured under.

    A resample draws groups of examples, the same ones for all of the S seeds, and S − 1 seeds with
    replacement: so many give the mean over seeds its variance s² / S, which S drawn ones would
    understate by a third if there are three (McCarthy & Snowden 1985). A seed for which a statistic
    is not defined has no part in its mean.

    Args:
        statistics: For each seed a function of the examples' weights, all of M statistics.
        codes_N: Group of each example, from `group_codes`.
        key: As in `estimates`; the groups that are drawn are the same as there.
        resamples: Number of resamples.
    """
    n, n_groups, n_seeds = len(codes_N), len(np.unique(codes_N)), len(statistics)
    every = np.ones((1, n))
    values = _average([s(every) for s in statistics], np.ones((1, n_seeds)))[0] if n else []
    if n_groups < 2:
        return [Estimate(_number(v), n, groups=n_groups) for v in values]
    seeds, draws, start = _seed_weights(n_seeds, tuple(key), resamples), [], 0
    for weights in _weights(codes_N, tuple(key), resamples):
        own = seeds[start : start + len(weights)]
        draws.append(_average([s(weights) for s in statistics], own))
        start += len(weights)
    each = np.concatenate(draws)
    return [
        Estimate(_number(v), n, *_interval(each[:, m], v), n_groups) for m, v in enumerate(values)
    ]


def of_some(own_N: BoolN, statistic: Statistic) -> Statistic:
    """Return a statistic of some of the examples, NaN for resamples that have none of these."""
    if own_N.all():
        return statistic

    def narrowed(weights: FloatBN) -> FloatBM:
        own = weights[:, own_N]
        none = own.sum(axis=1, keepdims=True) == 0
        return np.where(none, np.nan, statistic(np.where(none, 1.0, own)))

    return narrowed


def mean(values_SN: FloatN | FloatSN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return the mean of values [N] with its interval; NaN values are left out.

    Of values [S, N] of S seeds it is the average of their means, as in `mean_over_seeds`; `n`
    counts the examples that have a value under any of them.
    """

    def of(values: FloatN) -> Statistic:
        return lambda w: (w * values).sum(axis=1, keepdims=True) / w.sum(axis=1, keepdims=True)

    return _of_defined(of, values_SN, codes_N, key)


def ratio(over_N: FloatN, under_N: FloatN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return Σ over / Σ under with its interval; undefined where the denominator is 0."""

    def statistic(weights: FloatBN) -> FloatN:
        under = (weights * under_N).sum(axis=1)
        safe = np.where(under > 0, under, 1.0)
        return np.where(under > 0, (weights * over_N).sum(axis=1) / safe, np.nan)

    if not len(codes_N):
        return Estimate(None, 0)
    return estimates(lambda weights: statistic(weights)[:, None], codes_N, key)[0]


def median(values_SN: FloatN | FloatSN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    """Return the median of values [N] with its interval; NaN values are left out.

    Of values [S, N] of S seeds it is the average of their medians, as in `mean`.
    """

    def of(values: FloatN) -> Statistic:
        rank = np.argsort(values, kind="stable")
        ordered = values[rank]

        def statistic(weights: FloatBN) -> FloatBM:
            below = np.cumsum(weights[:, rank], axis=1)
            last = below[:, -1:] - 1
            low = (below > np.floor(last / 2)).argmax(axis=1)
            high = (below > np.ceil(last / 2)).argmax(axis=1)
            return ((ordered[low] + ordered[high]) / 2)[:, None]

        return statistic

    return _of_defined(of, values_SN, codes_N, key)


def _of_defined(
    of: Callable[[FloatN], Statistic],
    values_SN: FloatN | FloatSN,
    codes_N: IntN,
    key: Sequence[str],
) -> Estimate:
    """Return an estimate by the statistic that `of` makes of the defined values of each seed."""
    values = np.atleast_2d(values_SN)
    defined = ~np.isnan(values)
    keep = defined.any(axis=0)
    if not keep.any():
        return Estimate(None, 0)
    statistics = [
        of_some(own[keep], of(row[own]))
        for row, own in zip(values, defined, strict=True)
        if own.any()
    ]
    return mean_over_seeds(statistics, codes_N[keep], key)[0]


def _average(found: Sequence[FloatBM], seeds_BS: FloatBS) -> FloatBM:
    """Return the mean over seeds [B, M] of statistics, those that are NaN left out."""
    each = np.stack(found)
    defined = ~np.isnan(each)
    weights = seeds_BS.T[:, :, None] * defined
    total = weights.sum(axis=0)
    added = (weights * np.where(defined, each, 0.0)).sum(axis=0)
    return np.where(total > 0, added / np.where(total > 0, total, 1.0), np.nan)


def _seed_weights(n_seeds: int, key: tuple[str, ...], resamples: int) -> FloatBS:
    """Return how often each resample has each seed [B, S]."""
    if n_seeds < 2:
        return np.ones((resamples, n_seeds))
    rng = generator("bootstrap", "seeds", *key)
    drawn = rng.integers(0, n_seeds, size=(resamples, n_seeds - 1))
    return (drawn[:, :, None] == np.arange(n_seeds)).sum(axis=1).astype(np.float64)


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
