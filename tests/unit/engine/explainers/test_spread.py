from __future__ import annotations

import numpy as np
import pytest

from engine.explainers.coalitions import everything
from engine.explainers.spread import _sequence, spread_pairs
from engine.pool import keys


@pytest.mark.parametrize(
    ("n_features", "n_pairs"), [(5, 15), (8, 120), (12, 300), (14, 700), (30, 400)]
)
def test_a_smaller_number_is_the_beginning_of_a_larger_one(n_features: int, n_pairs: int) -> None:
    large = spread_pairs(7, n_features, n_pairs)
    assert large.shape == (n_pairs, n_features)
    assert len(set(keys(large)) | set(keys(~large))) == 2 * n_pairs
    assert not large.all(axis=1).any()
    assert large.any(axis=1).all()
    for few in (1, n_features, n_pairs // 2):
        np.testing.assert_array_equal(spread_pairs(7, n_features, few), large[:few])


@pytest.mark.parametrize("n_features", [4, 8, 9])
def test_all_pairs_come_in_the_end(n_features: int) -> None:
    pairs = spread_pairs(0, n_features, 2 ** (n_features - 1) - 1)
    found = set(keys(pairs)) | set(keys(~pairs))
    assert found == set(keys(everything(n_features)[1:-1]))


def test_single_features_come_first_then_halves_unlike_each_other() -> None:
    pairs = spread_pairs(1, 12, 40)
    assert (pairs[:12].sum(axis=1) == 1).all()
    assert (pairs[12:].sum(axis=1) >= 5).all()
    signs = np.where(pairs[12:], 1, -1)
    alike = np.abs(signs @ signs.T - 12 * np.eye(28))
    drawn = np.where(np.random.default_rng(0).random((28, 12)).argsort(axis=1) < 6, 1, -1)
    assert (alike**2).mean() < 0.8 * (np.abs(drawn @ drawn.T - 12 * np.eye(28)) ** 2).mean()


def test_the_seed_gives_features_their_places() -> None:
    first, other = spread_pairs(0, 10, 30), spread_pairs(1, 10, 30)
    assert (first != other).any()
    np.testing.assert_array_equal(first.sum(axis=1), other.sum(axis=1))


@pytest.mark.parametrize("n_features", [1, 2, 3])
def test_few_features(n_features: int) -> None:
    n_pairs = 2 ** (n_features - 1) - 1
    assert spread_pairs(0, n_features, n_pairs).shape == (n_pairs, n_features)


def test_the_sequence_is_the_same_everywhere() -> None:
    # a change of these digits changes every explanation with a surrogate
    chosen = _sequence(8)
    assert len(chosen) == 80
    places = 1 << np.arange(8)
    assert (chosen[10:16] @ places).tolist() == [153, 43, 77, 83, 135, 75]
