"""Which pairs of complementary coalitions KernelSHAP values, and with what weight."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.explainers.coalitions import (
    distinct,
    everything,
    of_size,
    read_only,
    uniform_subsets,
)
from engine.seeds import generator
from engine.types import BoolCF, FloatC

Floats = npt.NDArray[np.float64]

LISTED = 2048
"""Sizes of so many pairs are listed and shuffled, larger ones drawn until there are enough."""


class Stratum(NamedTuple):
    """Drawn pairs that share their weight.

    Attributes:
        rows: Where they stand in the design.
        unseen: Share of the stratum's pairs that were not drawn; the variance of draws without
            repeats is that much smaller (Cochran 1977, section 2.6).
    """

    rows: slice
    unseen: float


class Pairs(NamedTuple):
    """A design of P pairs.

    Attributes:
        coalitions: One coalition of each pair [P, F], the smaller one.
        weights: Weight of each pair [P].
        enumerated: How many of the first rows belong to sizes that are there as a whole.
        strata: The drawn rest.
        exact: Whether all pairs are there.
    """

    coalitions: BoolCF
    weights: FloatC
    enumerated: int
    strata: tuple[Stratum, ...]
    exact: bool


class Sizes(NamedTuple):
    """The sizes 1..⌊F/2⌋: Shapley kernel mass of each with its complement, and number of pairs."""

    mass: Floats
    pairs: tuple[int, ...]


@lru_cache(maxsize=32)
def paired_design(seed: int, n_features: int, n_pairs: int) -> Pairs:
    """Return a design of at most `n_pairs` pairs.

    Sizes are enumerated from 1 up while the pairs left, spread by kernel mass, would suffice for
    all of the next size, as shap does; size 1 also where there are fewer than two pairs a feature.
    The other sizes share the rest in proportion to their mass, rounded at random by systematic
    sampling. A size that expects a pair or more has its whole mass divided among its pairs; in
    smaller ones a pair's weight is the mass over the expected number, right in expectation. Sizes
    with fewer than two pairs form one stratum.

    The pairs of a size come in an order that only the seed decides, so that of two designs the
    larger one has nearly all pairs of the smaller one.

    Args:
        seed: Of the draws.
        n_features: F ≥ 1.
        n_pairs: At least F, or all 2^(F−1) − 1.
    """
    if n_pairs == 2 ** (n_features - 1) - 1:
        return _all_pairs(n_features)
    sizes = pair_sizes(n_features)
    n_full, left = _border(sizes, n_pairs)
    border = [_all_of_size(n_features, size) for size in range(1, n_full + 1)]
    weights = [np.full(len(b), m / len(b)) for b, m in zip(border, sizes.mass, strict=False)]
    drawn = _draw_sizes(seed, n_features, sizes, n_full, left)
    strata = [
        Stratum(slice(s.rows.start + n_pairs - left, s.rows.stop + n_pairs - left), s.unseen)
        for s in drawn.strata
    ]
    found = Pairs(
        np.concatenate([*border, drawn.coalitions]),
        np.concatenate([*weights, drawn.weights]),
        n_pairs - left,
        tuple(strata),
        exact=False,
    )
    read_only(found.coalitions, found.weights)
    return found


def _draw_sizes(seed: int, n_features: int, sizes: Sizes, n_full: int, left: int) -> Pairs:
    """Return `left` pairs of the sizes above `n_full`, pooled sizes at the end."""
    random = generator("kernel_shap", seed, n_features)
    counts, expected = _allocate(random, left, sizes.mass[n_full:])
    blocks: list[BoolCF] = []
    weights: list[Floats] = []
    strata: list[Stratum] = []
    start = pooled = 0
    alone = (expected < 1) | (counts < 2)
    for k in np.argsort(alone, kind="stable").tolist():
        pairs = sizes.pairs[n_full + k]
        count = min(int(counts[k]), pairs)
        size = n_full + k + 1
        blocks.append(_draw(seed, n_features, size, count, pairs))
        among = max(count, 1) if expected[k] >= 1 else max(expected[k], 1e-9)
        weights.append(np.full(count, sizes.mass[n_full + k] / among))
        if not alone[k]:
            strata.append(Stratum(slice(start, start + count), 1 - count / pairs))
            pooled += count
        start += count
    if start > pooled:
        strata.append(Stratum(slice(pooled, start), 1.0))
    return Pairs(np.concatenate(blocks), np.concatenate(weights), 0, tuple(strata), exact=False)


def pair_sizes(n_features: int) -> Sizes:
    """Return the sizes of pairs; the mass sums to 1."""
    size = np.arange(1, n_features // 2 + 1)
    middle = 2 * size == n_features
    mass = np.where(middle, 1, 2) / (size * (n_features - size))
    pairs = [math.comb(n_features, s) // (2 if 2 * s == n_features else 1) for s in size.tolist()]
    return Sizes(mass / mass.sum(), tuple(pairs))


def _border(sizes: Sizes, n_pairs: int) -> tuple[int, int]:
    """Return how many sizes are enumerated, and the pairs left for the others."""
    left = n_pairs
    # below two pairs a feature, each feature alone and left out tells more than random pairs do
    forced = n_pairs < 2 * sizes.pairs[0]
    for n_full, cost in enumerate(sizes.pairs):
        mass = sizes.mass[n_full:]
        suffices = cost <= left and left * mass[0] / mass.sum() >= cost * (1 - 1e-8)
        if not suffices and not (forced and n_full == 0):
            return n_full, left
        left -= cost
    raise AssertionError("n_pairs covers all sizes")


def _all_pairs(n_features: int) -> Pairs:
    # rows of the first half lack the last feature, so their complements are the second half
    half = everything(n_features)[1 : 2 ** (n_features - 1)]
    size = half.sum(axis=1)
    subsets = np.array([math.comb(n_features, s) for s in range(n_features + 1)])[size]
    weights = 1 / (subsets * size * (n_features - size))
    return Pairs(half, weights / weights.sum(), len(half), (), exact=True)


def _all_of_size(n_features: int, size: int) -> BoolCF:
    coalitions = of_size(n_features, size)
    # of a pair of the middle size, keep the coalition with the first feature
    return coalitions[coalitions[:, 0]] if 2 * size == n_features else coalitions


def _allocate(random: np.random.Generator, left: int, mass: Floats) -> tuple[Floats, Floats]:
    """Return how many pairs each size receives, by systematic sampling, and the expectation."""
    expected = left * mass / mass.sum()
    ends = np.concatenate([[0.0], np.cumsum(expected)])
    ends[-1] = left
    return np.diff(np.floor(ends + random.random())), expected


def _draw(seed: int, n_features: int, size: int, count: int, pairs: int) -> BoolCF:
    """Return `count` pairs of one size, uniform and without repeats.

    Fewer pairs are the first of more, so that a larger budget finds them valued.
    """
    random = generator("kernel_shap", seed, n_features, size)
    if pairs <= max(LISTED, 2 * count):
        return _all_of_size(n_features, size)[random.permutation(pairs)[:count]]
    found = np.zeros((0, n_features), dtype=bool)
    while len(found) < count:
        batch = uniform_subsets(random.random((count, n_features)), size)
        if 2 * size == n_features:
            batch ^= ~batch[:, :1]
        found = distinct(np.concatenate([found, batch])).coalitions
    return found[:count]
