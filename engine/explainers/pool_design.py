"""The one pool of coalitions that several explainers of an example are estimated from.

A fixed sequence of pairs of complementary coalitions; a budget takes a prefix of it. Which sizes
the prefix has follows from F alone, which coalitions of a size from the seed, so that every
inclusion probability is known: pairs drawn of a size over pairs there are. Stratified sampling
without replacement, in short, with pairs as units and sizes as strata (Cochran 1977, chapter 5).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.explainers.coalitions import distinct, uniform_subsets
from engine.explainers.pairs import Stratum, pair_sizes
from engine.seeds import generator
from engine.types import BoolCF

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PERMUTED = 2**14
"""Sizes with no more pairs than that are put in order by a permutation of their ranks; of larger
ones random pairs are drawn, those seen already left out, which gives a uniform order as well."""


class PoolDesign(NamedTuple):
    """A prefix of the sequence, without the pair of the empty and the full coalition.

    Sizes are those of the smaller coalition, 1..K with K = ⌊F/2⌋.

    Attributes:
        coalitions: The smaller coalition of each pair [P, F]; whole sizes first.
        sizes: Its size [P].
        drawn: How many pairs of each size are there [K].
        pairs: How many pairs each size has [K].
        enumerated: How many of the first rows belong to sizes that are there as a whole.
        strata: The other rows; sizes with a single pair form one stratum, the last.
    """

    coalitions: BoolCF
    sizes: Ints
    drawn: Ints
    pairs: tuple[int, ...]
    enumerated: int
    strata: tuple[Stratum, ...]

    @property
    def exact(self) -> bool:
        """Whether all pairs are there."""
        return bool((self.drawn == np.array(self.pairs)).all())

    def weights(self, mass_K: Floats) -> Floats:
        """Return the weight of each pair [P] of an estimand that has `mass_K` on each size.

        A size's mass is divided among its pairs: the estimand's weight over the inclusion
        probability, self-normalised within the size. The mass of a size without pairs goes to the
        nearest one that has some; only budgets below about 3F have such sizes.
        """
        present = np.flatnonzero(self.drawn)
        # the forced size 1 takes from others only where nothing else was drawn
        beyond = present[present > 0] if len(present) > 1 else present
        apart = np.abs(beyond[None, :] - np.arange(len(mass_K))[:, None])
        takers = beyond[apart.argmin(axis=1)] if len(beyond) else present
        takers[:1] = 0
        carried = np.bincount(takers, mass_K, minlength=len(mass_K))
        return (carried / np.maximum(self.drawn, 1))[self.sizes - 1]


def smallest(n_features: int) -> int:
    """Return the least coalitions a pool has: empty, full, each feature alone and left out."""
    return min(2 * n_features + 2, 2**n_features)


@lru_cache(maxsize=32)
def pool_design(seed: int, n_features: int, num_samples: int) -> PoolDesign:
    """Return the pool of at most `num_samples` coalitions; its arrays are read-only.

    Args:
        seed: Of the example and its space of features and operator.
        n_features: F ≥ 1.
        num_samples: With the empty and the full coalition; at least `smallest(n_features)`.
    """
    n_pairs = min(num_samples // 2, 2 ** (n_features - 1)) - 1
    pairs = pair_sizes(n_features).pairs
    drawn = _drawn(n_features, n_pairs)
    whole = [count == of for count, of in zip(drawn, pairs, strict=True)]
    order = np.lexsort((np.array(drawn) == 1, ~np.array(whole, dtype=bool)))
    blocks: list[BoolCF] = []
    strata: list[Stratum] = []
    start = enumerated = 0
    for k in order.tolist():
        count = drawn[k]
        blocks.append(size_sequence(seed, n_features, k + 1, count))
        if whole[k]:
            enumerated += count
        elif count > 1:
            strata.append(Stratum(slice(start, start + count), 1 - count / pairs[k]))
        start += count
    drawn_alone = start - (strata[-1].rows.stop if strata else enumerated)
    if drawn_alone:
        strata.append(Stratum(slice(start - drawn_alone, start), 1.0))
    coalitions = np.concatenate([np.zeros((0, n_features), dtype=bool), *blocks])
    sizes = np.repeat(order + 1, np.array(drawn, dtype=np.int64)[order])
    counts = np.array(drawn, dtype=np.int64)
    for array in (coalitions, sizes, counts):
        array.flags.writeable = False
    return PoolDesign(coalitions, sizes, counts, pairs, enumerated, tuple(strata))


@lru_cache(maxsize=64)
def _drawn(n_features: int, n_pairs: int) -> tuple[int, ...]:
    """Return how many of the first `n_pairs` pairs have each size.

    The first F pairs have size 1. Of the others, the j-th of a size comes at the time
    (j − 1 + δ)/rate. The rates make the coalitions of all sizes equally many: a pair of the middle
    size of an even F has two of the same, so its rate is a half. The δ of the sizes are spread
    over (0, 1), so that the first few pairs are of sizes far apart.
    """
    pairs = pair_sizes(n_features).pairs
    if n_pairs == sum(pairs):
        return pairs
    left = n_pairs - pairs[0]
    times: list[Floats] = [np.zeros(0)]
    sizes = [np.zeros(0, dtype=np.int64)]
    for k in range(1, len(pairs)):
        first = np.arange(min(pairs[k], left))
        times.append(
            (first.astype(np.float64) + _halves(k)) * (2 if 2 * (k + 1) == n_features else 1)
        )
        sizes.append(np.full(len(first), k))
    taken = np.concatenate(sizes)[np.argsort(np.concatenate(times), kind="stable")[:left]]
    counts = np.bincount(taken, minlength=len(pairs))
    counts[0] = pairs[0]
    return tuple(counts.tolist())


def _halves(index: int) -> float:
    """Return the `index`-th van der Corput number, from index 1 on 1/2, 1/4, 3/4, 1/8 and so on."""
    bits = f"{index:b}"
    return int(bits[::-1], 2) / 2 ** len(bits)


def size_sequence(seed: int, n_features: int, size: int, count: int) -> BoolCF:
    """Return the first `count` pairs of a size in the order of the seed, the smaller coalitions.

    Of a pair of the middle size of an even F it is the coalition with the first feature.

    Args:
        seed: Of the pool.
        n_features: F.
        size: 1..⌊F/2⌋.
        count: At most the number of pairs the size has.
    """
    if count == 0:
        return np.zeros((0, n_features), dtype=bool)
    random = generator("pool", seed, n_features, size)
    middle = 2 * size == n_features
    n_pairs = math.comb(n_features, size) // (2 if middle else 1)
    if n_pairs <= PERMUTED:
        # lexicographic: the coalitions with the first feature have the lower ranks
        return _of_ranks(n_features, size, random.permutation(n_pairs)[:count])
    found = np.zeros((0, n_features), dtype=bool)
    while len(found) < count:
        batch = uniform_subsets(random.random((count, n_features)), size)
        if middle:
            batch ^= ~batch[:, :1]
        found = distinct(np.concatenate([found, batch])).coalitions
    return found[:count]


def _of_ranks(n_features: int, size: int, ranks: Ints) -> BoolCF:
    """Return the subsets of `size` with these ranks in lexicographic order of their members."""
    subsets = np.zeros((len(ranks), n_features), dtype=bool)
    rest, missing = ranks.copy(), np.full(len(ranks), size)
    for feature in range(n_features):
        after = n_features - feature - 1
        having = np.array([0] + [math.comb(after, m - 1) for m in range(1, size + 1)])[missing]
        taken = rest < having
        subsets[:, feature] = taken
        rest -= np.where(taken, 0, having)
        missing -= taken
    return subsets
