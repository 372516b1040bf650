from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from engine.errors import ExampleError
from engine.metrics.ranking import average_ranks, order, settle, top_k, top_share


def test_order_is_by_descending_signed_value() -> None:
    assert order(np.array([0.1, -3.0, 2.0, 0.0]), seed=1).tolist() == [2, 0, 3, 1]


def test_ties_are_broken_by_the_seed_and_not_by_position() -> None:
    firsts = [order(np.zeros(4), seed)[0] for seed in range(400)]
    assert np.bincount(firsts, minlength=4).min() > 60
    assert order(np.zeros(9), 3).tolist() == order(np.zeros(9), 3).tolist()


def test_differences_in_the_last_bits_are_ties() -> None:
    noisy = 0.3 + np.array([0.0, 1e-16, -1e-16, 2e-16])
    assert order(noisy, 5).tolist() == order(np.ones(4), 5).tolist()
    assert len(set(settle(noisy).tolist())) == 1


def test_settling_keeps_the_scale_out_of_it() -> None:
    scores = np.array([1.0, 0.5, -0.25])
    assert settle(scores * 1e-300).tolist() == scores.tolist()


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ExampleError, match="NaN or infinite"):
        settle(np.array([1.0, np.nan]))


def test_average_ranks_equal_scipys() -> None:
    scores = np.random.default_rng(0).integers(0, 5, size=40).astype(float)
    assert average_ranks(scores).tolist() == rankdata(scores).tolist()


def test_top_k_is_five_or_half() -> None:
    assert [top_k(n) for n in (1, 2, 3, 4, 9, 10, 50)] == [1, 1, 1, 2, 4, 5, 5]


def test_features_tied_for_the_last_places_share_them() -> None:
    assert top_share(np.array([3.0, 1.0, 1.0, 1.0, 0.0]), 2).tolist() == pytest.approx(
        [1, 1 / 3, 1 / 3, 1 / 3, 0]
    )
    assert top_share(np.array([3.0, 2.0, 1.0]), 2).tolist() == [1, 1, 0]
    assert top_share(np.array([3.0, 2.0]), 5).tolist() == [1, 1]


def test_many_attributions_at_once_are_one_by_one() -> None:
    rows = np.random.default_rng(3).integers(-2, 3, size=(50, 6)).astype(float)
    for define in (settle, average_ranks, lambda x: top_share(x, 2)):
        assert define(rows).tolist() == [define(row).tolist() for row in rows]
        assert define(rows.reshape(5, 10, 6)).tolist() == define(rows).reshape(5, 10, 6).tolist()
    assert average_ranks(np.zeros(0)).shape == (0,)
    assert settle(np.zeros((3, 0))).shape == (3, 0)
