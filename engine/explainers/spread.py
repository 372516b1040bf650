"""A sequence of coalition pairs that is good to stop after any number of them.

Each next pair is the one whose value, together with those before, most reduces the variance that
the prior of `engine.explainers.odd_process` leaves of the Shapley values (Bayesian quadrature,
greedily). It takes single features first, then coalitions of half the features that are as
unlike each other as can be, then small ones. Only the number of features matters, never their
values, so that the order is computed once a process; the seed decides which feature has which
place.

The arithmetic is elementwise, in a fixed order: every machine computes the same sequence, to the
last bit, where the sums of a linear algebra library would break ties by its version.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from engine.explainers.coalitions import distinct, everything, of_size, uniform_subsets
from engine.seeds import generator
from engine.types import BoolCF

Floats = npt.NDArray[np.float64]

REACH = 4.0
"""λ·F of the prior. On a real model's games the errors are alike from 1.5 to 4: what counts is that
the coalitions are unlike each other."""

WHITE = 1e-2
"""Share of a value's prior variance that no other value tells of."""

POOL = 2048
"""About how many pairs each next one is chosen among; all of up to 12 features."""

CHOSEN = 10
"""Chosen pairs a feature. Beyond, pairs are drawn: choosing costs the square of their number and
wins little."""

NODES = 24
"""Of an integral over λ, which has to be about right only."""

MOST_CHOSEN = 256
"""But never fewer than one pair a feature."""


def spread_pairs(seed: int, n_features: int, n_pairs: int) -> BoolCF:
    """Return the first pairs of the sequence, one coalition of each, all distinct.

    Those of a smaller number are the first of a larger one's.

    Args:
        seed: Of the features' places and of the drawn pairs.
        n_features: F ≥ 1.
        n_pairs: At most 2^(F−1) − 1.

    Returns:
        [P, F].
    """
    random = generator("spread", seed, n_features)
    places = random.permutation(n_features)
    chosen = _halves(_sequence(n_features)[:n_pairs][:, places])
    if len(chosen) == n_pairs:
        return chosen
    return _draw_on(random, chosen, n_pairs)


def _draw_on(random: np.random.Generator, chosen: BoolCF, n_pairs: int) -> BoolCF:
    """Add pairs drawn without repeats, their sizes in proportion to the Shapley kernel."""
    n_features = chosen.shape[1]
    sizes = np.arange(1, n_features // 2 + 1)
    mass = np.where(2 * sizes == n_features, 1, 2) / (sizes * (n_features - sizes))
    if n_features <= _small():
        rest = _halves(everything(n_features)[1 : 2 ** (n_features - 1)])
        pairs = np.array([_pairs(n_features, size) for size in sizes.tolist()])
        weight = (mass / pairs)[rest.sum(axis=1) - 1]
        # the order of exponential arrival times draws without repeats (Efraimidis & Spirakis 2006)
        order = (random.exponential(size=len(rest)) / weight).argsort()
        return distinct(np.concatenate([chosen, rest[order]])).coalitions[:n_pairs]
    ends = np.cumsum(mass) / mass.sum()
    found = chosen
    while len(found) < n_pairs:
        uniforms = random.random((256, n_features + 1))
        size = 1 + np.minimum(np.searchsorted(ends, uniforms[:, 0]), len(sizes) - 1)
        batch = _halves(uniform_subsets(uniforms[:, 1:], size))
        found = distinct(np.concatenate([found, batch])).coalitions
    return found[:n_pairs]


@functools.lru_cache(maxsize=64)
def _sequence(n_features: int) -> BoolCF:
    pool = _pool(n_features)
    n_chosen = min(len(pool), max(CHOSEN * n_features, 64), max(MOST_CHOSEN, n_features))
    lam = min(REACH / n_features, 0.6)
    covariance = _kernel(n_features, lam)
    effect = _effects(n_features, lam)
    members = pool.astype(np.int64)
    size = members.sum(axis=1)
    # the empty and the full coalition are valued before any pair
    row = covariance[n_features - size]
    shapley = np.where(pool, effect[size][:, None], -effect[n_features - size][:, None]).T.copy()
    step = row / math.sqrt(covariance[0])
    moves = effect[n_features] / math.sqrt(covariance[0])
    left = np.full(len(pool), covariance[0]) - step * step
    shapley -= moves * step
    steps = [step]
    white = WHITE * covariance[0]
    taken: list[int] = []
    for _ in range(n_chosen):
        gain = np.zeros(len(pool))
        for of_feature in shapley:
            gain += of_feature * of_feature
        gain /= left + white
        gain[taken] = -1
        new = int(gain.argmax())
        taken.append(new)
        common = (members * members[new]).sum(axis=1)
        row = covariance[size + size[new] - 2 * common]
        for step in steps:
            row = row - step[new] * step
        pivot = math.sqrt(left[new] + white)
        step = row / pivot
        left = np.maximum(left - step * step, 0)
        moves = shapley[:, new] / pivot
        for of_feature, move in zip(shapley, moves.tolist(), strict=True):
            of_feature -= move * step
        steps.append(step)
    chosen = pool[taken]
    chosen.flags.writeable = False
    return chosen


def _powers(base: float, most: int) -> list[float]:
    """Return the powers 0..`most`, by multiplication: a library's `pow` may round otherwise."""
    powers = [1.0]
    for _ in range(most):
        powers.append(powers[-1] * base)
    return powers


def _kernel(n_features: int, lam: float) -> Floats:
    """Return the prior covariance of the odd parts at Hamming distance 0..F."""
    powers = _powers((1 - lam) / (1 + lam), n_features)
    return np.array(powers) - np.array(powers[::-1])


def _effects(n_features: int, lam: float) -> Floats:
    """Return the covariance of a coalition's odd part with the Shapley value of a member.

    By size 0..F. The value is the integral over s of the derivative of the game's multilinear
    extension (Owen 1972), by the midpoint rule.
    """
    effects = [0.0] * (n_features + 1)
    for node in range(NODES):
        s = lam * (node + 0.5) / NODES
        up = _powers((1 + s) / (1 + lam), n_features)
        down = _powers((1 - s) / (1 + lam), n_features)
        for size in range(n_features + 1):
            kept = max(size - 1, 0)
            gone = n_features - 1 - kept
            effects[size] += up[kept] * down[gone] + up[gone] * down[kept]
    return np.array(effects) * (2 * lam / (1 + lam) / NODES)


def _pool(n_features: int) -> BoolCF:
    if n_features <= _small():
        return _halves(everything(n_features)[1 : 2 ** (n_features - 1)])
    random = generator("spread_pool", n_features)
    blocks = [of_size(n_features, 1)]
    for size in (2, 3):
        wanted = POOL // 8
        if math.comb(n_features, size) <= wanted:
            blocks.append(of_size(n_features, size))
        else:
            blocks.append(uniform_subsets(random.random((wanted, n_features)), size))
    blocks.append(_halves(random.random((POOL * 3 // 4, n_features)) < 0.5))
    pool = distinct(np.concatenate(blocks)).coalitions
    return pool[pool.any(axis=1)]


def _halves(coalitions: BoolCF) -> BoolCF:
    """Return the smaller coalition of each pair; of the middle size the one with feature 0."""
    n_features = coalitions.shape[1]
    size = coalitions.sum(axis=1)
    turn = (2 * size > n_features) | ((2 * size == n_features) & ~coalitions[:, 0])
    return coalitions ^ turn[:, None]


def _pairs(n_features: int, size: int) -> int:
    return math.comb(n_features, size) // (2 if 2 * size == n_features else 1)


def _small() -> int:
    """Return the most features of which all pairs are in the pool."""
    return int(math.log2(POOL)) + 1
