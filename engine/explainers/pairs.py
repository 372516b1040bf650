"""Which pairs of complementary coalitions KernelSHAP values, and with what weight."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.explainers.coalitions import distinct, everything, of_size, uniform_subsets
from engine.seeds import generator
from engine.types import BoolCF, FloatC

Floats = npt.NDArray[np.float64]


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


class _Sizes(NamedTuple):
    """The sizes 1..⌊F/2⌋: Shapley kernel mass of each with its complement, and number of pairs."""

    mass: Floats
    pairs: list[int]


def paired_design(seed: int, n_features: int, n_pairs: int) -> Pairs:
    """Return a design of at most `n_pairs` pairs.

    Sizes are enumerated from 1 up while the pairs left, spread by kernel mass, would suffice for
    all of the next size (as shap does), size 1 always. The other sizes share the rest: first the
    whole part of their expected numbers, then the fractions by systematic sampling. A size that
    expects a pair or more has its whole mass divided among its pairs; smaller ones have the weight
    that is right in expectation, and form one stratum.

    Args:
        seed: Of the draws.
        n_features: F ≥ 1.
        n_pairs: At least F, or all 2^(F−1) − 1.
    """
    if n_pairs == 2 ** (n_features - 1) - 1:
        return _all_pairs(n_features)
    mass, pairs = _sizes(n_features)
    blocks: list[BoolCF] = []
    weights: list[Floats] = []
    left, n_full = n_pairs, 0
    while n_full < len(pairs) and (n_full == 0 or _suffices(left, mass[n_full:], pairs[n_full])):
        blocks.append(_all_of_size(n_features, n_full + 1))
        weights.append(np.full(pairs[n_full], mass[n_full] / pairs[n_full]))
        left -= pairs[n_full]
        n_full += 1
    enumerated = n_pairs - left
    random = generator("kernel_shap", seed, n_features)
    counts, expected = _allocate(random, left, mass[n_full:])
    strata: list[Stratum] = []
    start = enumerated
    # sizes with an expected pair or more come first: the stratum of the others is one block
    for k in np.argsort(expected < 1, kind="stable"):
        size, count = n_full + int(k) + 1, min(int(counts[k]), pairs[n_full + int(k)])
        if count == 0:
            continue
        blocks.append(_draw(random, n_features, size, count, pairs[size - 1]))
        share = count if expected[k] >= 1 else expected[k]
        weights.append(np.full(count, mass[size - 1] / share))
        rows = slice(start, start + count)
        if expected[k] >= 1 and count > 1:
            strata.append(Stratum(rows, 1 - count / pairs[size - 1]))
        elif strata and strata[-1].unseen == 1:
            strata[-1] = Stratum(slice(strata[-1].rows.start, rows.stop), 1)
        else:
            strata.append(Stratum(rows, 1))
        start = rows.stop
    return Pairs(
        np.concatenate(blocks), np.concatenate(weights), enumerated, tuple(strata), exact=False
    )


def _sizes(n_features: int) -> _Sizes:
    size = np.arange(1, n_features // 2 + 1)
    middle = 2 * size == n_features
    mass = np.where(middle, 1, 2) / (size * (n_features - size))
    pairs = [math.comb(n_features, s) // (2 if 2 * s == n_features else 1) for s in size.tolist()]
    return _Sizes(mass / mass.sum(), pairs)


def _suffices(left: int, mass: Floats, pairs: int) -> bool:
    return pairs <= left and left * mass[0] / mass.sum() >= pairs * (1 - 1e-8)


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
    """Return how many pairs each size receives, and the expectation of it."""
    expected = left * mass / mass.sum()
    ends = np.concatenate([[0.0], np.cumsum(expected)])
    ends[-1] = left
    return np.diff(np.floor(ends + random.random())), expected


def _draw(
    random: np.random.Generator, n_features: int, size: int, count: int, pairs: int
) -> BoolCF:
    """Return `count` pairs of one size, uniform and without repeats."""
    if pairs <= 2 * count:
        return _all_of_size(n_features, size)[random.permutation(pairs)[:count]]
    found = np.zeros((0, n_features), dtype=bool)
    while len(found) < count:
        batch = uniform_subsets(random.random((count, n_features)), size)
        if 2 * size == n_features:
            batch ^= ~batch[:, :1]
        found = distinct(np.concatenate([found, batch])).coalitions
    return found[:count]
