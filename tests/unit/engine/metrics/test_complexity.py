from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics.complexity import effective_size, entropy, gini, top_k_mass

ALL = (gini, entropy, effective_size, top_k_mass)
weights = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=20).map(np.array)


def test_one_heavy_feature() -> None:
    scores = np.array([0.0, 0.0, -3.0, 0.0])
    assert gini(scores) == pytest.approx(1.0)
    assert entropy(scores) == pytest.approx(0.0)
    assert effective_size(scores) == pytest.approx(1.0)
    assert top_k_mass(scores) == pytest.approx(1.0)


def test_equal_features_whatever_their_sign() -> None:
    scores = np.array([1.0, -1.0] * 10)
    assert gini(scores) == pytest.approx(0.0)
    assert entropy(scores) == pytest.approx(1.0)
    assert effective_size(scores) == pytest.approx(20.0)
    assert top_k_mass(scores) == pytest.approx(5 / 20)


def test_gini_by_hand() -> None:
    # mean absolute difference of 1, 2, 3 over twice the mean: 8/9 / 4 = 2/9; times 3/2
    assert gini(np.array([3.0, -1.0, 2.0])) == pytest.approx(1 / 3)


def test_entropy_by_hand() -> None:
    scores = np.array([0.5, 0.25, 0.25])
    assert entropy(scores) == pytest.approx(1.5 * np.log(2) / np.log(3))
    assert effective_size(scores) == pytest.approx(2**1.5)


def test_undefined_without_weight_or_features() -> None:
    assert [f(np.zeros(3)) for f in ALL] == [None] * 4
    assert [f(np.zeros(0)) for f in ALL] == [None] * 4
    assert [f(np.array([2.0])) for f in ALL] == [None, None, 1.0, 1.0]


@given(weights, st.floats(1, 100))
def test_scale_and_order_do_not_matter(scores: np.ndarray, factor: float) -> None:
    for define in ALL:
        value = define(scores)
        assert define(scores[::-1] * -factor) == (
            None if value is None else pytest.approx(value, abs=1e-9)
        )


@given(weights)
def test_ranges(scores: np.ndarray) -> None:
    if not np.abs(scores).any():
        return
    slack = 1e-9
    assert -slack <= gini(scores) <= 1 + slack
    assert -slack <= entropy(scores) <= 1 + slack
    assert 1 - slack <= effective_size(scores) <= len(scores) + slack
    assert 0 < top_k_mass(scores) <= 1 + slack
