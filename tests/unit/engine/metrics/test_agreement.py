from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from engine.metrics.agreement import cosine, spearman, top_k_overlap


def test_overlap_by_hand() -> None:
    a = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 0, 0, 0, 0, 0])
    b = np.array([9.0, 8.0, 7.0, 0, 0, 6.0, 5.0, 0, 0, 0])
    assert top_k_overlap(a, b) == pytest.approx(3 / 5)
    assert top_k_overlap(a, a) == 1.0
    assert top_k_overlap(a, -a) == 0.0


def test_overlap_is_by_signed_value() -> None:
    assert top_k_overlap(np.array([1.0, -5.0]), np.array([1.0, 5.0])) == 0.0


def test_a_constant_attribution_overlaps_at_chance_level() -> None:
    sharp = np.arange(20.0)
    assert top_k_overlap(np.zeros(20), sharp) == pytest.approx(5 / 20)
    assert top_k_overlap(sharp, np.zeros(20)) == pytest.approx(5 / 20)
    assert top_k_overlap(np.zeros(20), np.zeros(20)) == pytest.approx(1.0)


def test_spearman_equals_scipys_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30).astype(float), rng.normal(size=30)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(a, 3 * a + 1) == pytest.approx(1.0)


def test_cosine() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(np.sqrt(0.5))
    assert cosine(np.array([1e-300, 2e-300]), np.array([2.0, 4.0])) == pytest.approx(1.0)
    assert cosine(np.array([1.0, 2.0]), np.array([-1.0, -2.0])) == pytest.approx(-1.0)


def test_undefined_cases_are_none() -> None:
    assert spearman(np.ones(4), np.arange(4.0)) is None
    assert cosine(np.zeros(4), np.arange(4.0)) is None
    one, none = np.ones(1), np.zeros(0)
    assert top_k_overlap(one, one) is None
    assert [f(none, none) for f in (top_k_overlap, spearman, cosine)] == [None] * 3


def test_attributions_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and of 3"):
        cosine(np.ones(2), np.ones(3))
