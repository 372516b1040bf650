"""Does the model rely on what an explainer names? Deletion metrics over a coalition pool.

Like the explainers, the metrics ask a pool for the coalitions they lack and are computed once it
has them. Deleting features keeps the others at their original positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations
from math import ceil, comb
from typing import NamedTuple

import numpy as np

from engine.explainers.coalitions import read_only
from engine.explainers.pool_design import pool_design, size_sequence
from engine.metrics.ranking import order
from engine.metrics.registry import info
from engine.pool import CoalitionPool
from engine.seeds import generator
from engine.types import BoolCF, FloatF, IntF

_NO_AREA = 1e-6


class MetricRow(NamedTuple):
    """One measured value of an explanation.

    Attributes:
        metric: A name of `engine.metrics.registry`.
        n_removed: Size of the set of a `*_at_k` metric, else None.
        value: None where the metric is not defined (no features).
        random: Its expected value under a random order, None where `value` is.
    """

    metric: str
    n_removed: int | None
    value: float | None
    random: float | None

    @property
    def definition_version(self) -> int:
        """The version of the metric's definition."""
        return info(self.metric).definition_version


class Baseline(NamedTuple):
    """The shared pool of an example's explainers (`engine.explainers.pool_design`).

    Attributes:
        seed: Of the pool.
        num_samples: How many coalitions its largest user takes.
    """

    seed: int
    num_samples: int


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Comprehensiveness, sufficiency (DeYoung et al. 2020) and the deletion curve.

    With p the explained label's probability, r_s the s features of the highest signed attribution:
    comprehensiveness_at_k = p(x) − p(x without r_s), sufficiency_at_k = p(x) − p(r_s alone), for
    the distinct sizes s = ⌈k·F⌉; `comprehensiveness` and `sufficiency` are their means over these
    sizes (AOPC; equal sets count once). `deletion_auc` is the area under p, by trapezoids, as
    features are removed in that order, over the removed fraction 0..1. `deletion_gain` is
    (AUC_random − AUC) / AUC_random, None where AUC_random is about 0.

    Attributes:
        fractions: Fractions k of the features.
        random_orders: Random orders the expected values are estimated with: permutations and their
            reverses. A size with no more subsets than that is enumerated instead.
        curve_points: Steps of the deletion curve; a text of more features is removed in that many
            steps of nearly equal size, a shorter one feature by feature.
        seed: From the example and the feature space only, so that all explainers of an example
            share the random orders' evaluations.
        baseline: The pool whose coalitions of a size, uniform given the size, stand for random
            sets: their mean estimates the same expected value for nothing. Sizes of which the pool
            has fewer than `random_orders` are filled up from the same sequence. None draws random
            orders.
    """

    fractions: tuple[float, ...] = (0.01, 0.05, 0.10, 0.20, 0.50)
    random_orders: int = 10
    curve_points: int = 20
    seed: int = 0
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < k <= 1 for k in self.fractions):
            raise ValueError(f"fractions must lie in (0, 1], got {self.fractions}")
        if self.random_orders < 1 or self.curve_points < 1:
            raise ValueError("random_orders and curve_points must be at least 1")

    def ask(self, pool: CoalitionPool, scores_F: FloatF) -> BoolCF:
        """Return the distinct coalitions [C, F] still to be valued; zero rows: `fit` may be called.

        Args:
            pool: Of the example, whatever its values are.
            scores_F: Signed attributions to the explained label (not an order).

        Raises:
            ExampleError: An attribution is not finite.
        """
        if pool.n_features == 0:
            return np.zeros((0, 0), dtype=bool)
        wanted = (self.random_coalitions(pool.n_features), self.ranked_coalitions(scores_F))
        return pool.missing(np.concatenate(wanted))

    def fit(self, pool: CoalitionPool, scores_F: FloatF, label: int) -> list[MetricRow]:
        """Return the metrics of one explanation.

        Args:
            pool: With *probabilities* over the label set as values [C, L].
            scores_F: Signed attributions to `label`, as given to `ask`.
            label: Index of the explained label.
        """
        n = pool.n_features
        if n == 0:
            names = ("comprehensiveness", "sufficiency", "deletion_auc", "deletion_gain")
            return [MetricRow(name, None, None, None) for name in names]
        by_rank = order(scores_F, self.seed)
        sizes = self.set_sizes(n)
        random = pool.lookup(self.random_coalitions(n))[:, label]
        levels = {size: random[rows].mean() for size, rows in _random_rows(self, n).items()}
        full = pool.lookup(np.ones((1, n), dtype=bool))[0, label]
        removed = full - pool.lookup(_without(by_rank, sizes))[:, label]
        kept = full - pool.lookup(~_without(by_rank, sizes))[:, label]
        # a random order's first n − s features taken away leave s features drawn at random
        rows = _sized("comprehensiveness", sizes, removed, [full - levels[s] for s in sizes])
        rows += _sized("sufficiency", sizes, kept, [full - levels[n - s] for s in sizes])
        grid = self.curve_sizes(n)
        curve = pool.lookup(_without(by_rank, grid))[:, label]
        area = _area(grid, curve)
        random_area = _area(grid, np.array([levels[s] for s in grid]))
        rows.append(MetricRow("deletion_auc", None, area, random_area))
        if random_area < _NO_AREA:
            return [*rows, MetricRow("deletion_gain", None, None, None)]
        return [*rows, MetricRow("deletion_gain", None, (random_area - area) / random_area, 0.0)]

    def set_sizes(self, n_features: int) -> list[int]:
        """Return the distinct sizes ⌈k·F⌉, ascending; none without features."""
        # 0.07 · 100 is 7.000000000000001 in floating point
        return sorted({ceil(k * n_features - 1e-9) for k in self.fractions} - {0})

    def curve_sizes(self, n_features: int) -> list[int]:
        """Return how many features are gone at each point of the deletion curve, from 0 to F."""
        steps = min(n_features, self.curve_points)
        return [round(i * n_features / steps) for i in range(steps + 1)] if steps else [0]

    def ranked_coalitions(self, scores_F: FloatF) -> BoolCF:
        """Return the coalitions [C, F] that one explanation needs besides the random ones."""
        n = len(scores_F)
        by_rank = order(scores_F, self.seed)
        sizes = self.set_sizes(n)
        curve = _without(by_rank, self.curve_sizes(n))
        return np.concatenate([curve, _without(by_rank, sizes), ~_without(by_rank, sizes)])

    def random_coalitions(self, n_features: int) -> BoolCF:
        """Return the coalitions [C, F] of the random orders, the same for every explanation."""
        return _random_coalitions(self, n_features)

    def asked(self, scores_F: FloatF) -> BoolCF:
        """Return the distinct coalitions [C, F] that the metrics add to what explainers asked.

        What one explanation needs, with the random sets but for those that the pool has anyway.
        """
        n = len(scores_F)
        if n == 0:
            return np.zeros((0, 0), dtype=bool)
        random = [self.random_coalitions(n)]
        if self.baseline is not None:
            random = [_members(*self._pairs(n, size), size) for size in self._random_sizes(n)]
        wanted = np.concatenate([*random, self.ranked_coalitions(scores_F)])
        return CoalitionPool(n).missing(wanted)

    def _random_sizes(self, n: int) -> list[int]:
        """Return how many features are removed in the sets a metric needs, ascending."""
        sizes = self.set_sizes(n)
        return sorted({*self.curve_sizes(n), *sizes, *(n - size for size in sizes)})

    def _pairs(self, n: int, size: int) -> tuple[BoolCF, int]:
        """Return the smaller coalitions of pairs with `size` removed, and how many the pool has."""
        assert self.baseline is not None
        smaller = min(size, n - size)
        if smaller == 0:
            return np.zeros((1, n), dtype=bool), 1
        design = pool_design(self.baseline.seed, n, self.baseline.num_samples)
        held = int(design.drawn[smaller - 1])
        least = ceil(self.random_orders / 2) if 2 * smaller == n else self.random_orders
        least = min(least, design.pairs[smaller - 1])
        if held < least:
            return size_sequence(self.baseline.seed, n, smaller, least), held
        return design.coalitions[design.sizes == smaller], held

    def _orders(self, n: int) -> list[IntF]:
        orders: list[IntF] = []
        for pair in range((self.random_orders + 1) // 2):
            row = generator("random_orders", self.seed, pair).permutation(n)
            orders += [row, row[::-1]]
        return orders[: self.random_orders]


@lru_cache(maxsize=32)
def _random_sets(metric: Faithfulness, n: int) -> dict[int, BoolCF]:
    """Return, for each size that a metric needs, coalitions [C, F] with that many removed.

    They are the same for all explanations of an example, which ask for them one after the other.
    """
    wanted = metric._random_sizes(n)
    if metric.baseline is not None:
        sets = {size: _members(metric._pairs(n, size)[0], 0, size) for size in wanted}
    else:
        orders = metric._orders(n)
        sets = {
            size: _all_without(n, size)
            if comb(n, size) <= metric.random_orders
            else np.concatenate([_without(row, [size]) for row in orders])
            for size in wanted
        }
    read_only(*sets.values())
    return sets


def _random_rows(metric: Faithfulness, n: int) -> dict[int, slice]:
    """Return where the sets of each size stand in `random_coalitions`."""
    sets = _random_sets(metric, n)
    ends = list(accumulate(map(len, sets.values())))
    starts = [0, *ends[:-1]]
    return {size: slice(*rows) for size, *rows in zip(sets, starts, ends, strict=True)}


@lru_cache(maxsize=32)
def _random_coalitions(metric: Faithfulness, n: int) -> BoolCF:
    coalitions = np.concatenate(list(_random_sets(metric, n).values()))
    read_only(coalitions)
    return coalitions


def _members(half: BoolCF, start: int, size: int) -> BoolCF:
    """Return the coalitions with `size` removed of the pairs from `start` on."""
    half = half[start:]
    n = half.shape[1]
    if 2 * size == n:
        return np.concatenate([half, ~half])
    return ~half if 2 * size < n else half


def _without(by_rank: IntF, sizes: list[int]) -> BoolCF:
    """Return coalitions [len(sizes), F]: all features but the first `size` of the order."""
    rank = np.empty(len(by_rank), dtype=np.int64)
    rank[by_rank] = np.arange(len(by_rank))
    return rank[None, :] >= np.array(sizes, dtype=np.int64)[:, None]


def _all_without(n: int, size: int) -> BoolCF:
    coalitions = np.ones((comb(n, size), n), dtype=bool)
    for row, gone in enumerate(combinations(range(n), size)):
        coalitions[row, list(gone)] = False
    return coalitions


def _sized(name: str, sizes: list[int], values: FloatF, random: list[float]) -> list[MetricRow]:
    """Return the mean over sizes, then one row a size."""
    mean = MetricRow(name, None, float(values.mean()), float(np.mean(random)))
    each = zip(sizes, values.tolist(), random, strict=True)
    return [mean, *(MetricRow(f"{name}_at_k", size, v, float(r)) for size, v, r in each)]


def _area(sizes: list[int], values: FloatF) -> float:
    return float(np.trapezoid(values, np.array(sizes) / sizes[-1]))
