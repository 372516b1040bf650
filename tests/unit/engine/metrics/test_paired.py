from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.metrics.paired import EFFECT_SIZES, effect_sizes, mcnemar


def discordant(b: int, c: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, np.ndarray]:
    cells = [((True, False), b), ((False, True), c), ((True, True), both), ((False,) * 2, neither)]
    rows = np.array([pair for pair, n in cells for _ in range(n)], dtype=bool).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_p_is_the_binomial_test(b: int, c: int) -> None:
    test = mcnemar(*discordant(b, c))
    assert (test.b, test.c) == (b, c)
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert test.exact == pytest.approx(expected)
    assert test.mid <= test.exact
    assert test == mcnemar(*discordant(c, b))._replace(b=b, c=c)


def test_mid_p_of_the_published_example() -> None:
    # airway hyper-responsiveness of 21 children, Fagerland et al. 2013, table 1
    test = mcnemar(*discordant(1, 7, both=1, neither=12))
    assert test.exact == pytest.approx(0.0703, abs=5e-5)
    assert test.mid == pytest.approx(0.0391, abs=5e-5)


def test_equal_counts_and_none() -> None:
    half = stats.binom.pmf(5, 10, 0.5) / 2
    assert mcnemar(*discordant(5, 5))[2:] == (1.0, pytest.approx(1 - half))
    assert mcnemar(*discordant(0, 0))[2:] == (1.0, 1.0)


def test_many_discordant_examples_neither_overflow_nor_vanish() -> None:
    test = mcnemar(*discordant(4800, 5200))
    assert test.exact == pytest.approx(stats.binomtest(4800, 10_000, 0.5).pvalue)
    assert mcnemar(*discordant(0, 1000)).exact == pytest.approx(2.0**-999)


def test_effect_sizes_by_hand() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=25)
    b = a + 0.5 + 0.3 * rng.normal(size=25)
    d_z, g_av, d = effect_sizes(a, b, np.ones((1, 25)))[0]
    mean = (b - a).mean()
    assert d_z == pytest.approx(mean / (b - a).std(ddof=1))
    average = (a.std(ddof=1) + b.std(ddof=1)) / 2
    assert g_av == pytest.approx(mean / average * (1 - 3 / (4 * 24 - 1)))
    assert d == pytest.approx(mean / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    # a paired t is d_z·√n; the unpaired d sees little of a consistent difference
    assert d_z * 5 == pytest.approx(stats.ttest_rel(b, a).statistic)
    assert d < d_z / 2
    assert len(EFFECT_SIZES) == 3


def test_weights_are_copies() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 6))
    weights = np.array([[2.0, 0, 1, 3, 0, 1], [1, 1, 1, 1, 1, 1]])
    copies = np.repeat(np.arange(6), weights[0].astype(int))
    found = effect_sizes(a, b, weights)
    assert found[0] == pytest.approx(effect_sizes(a[copies], b[copies], np.ones((1, 7)))[0])
    assert found[1] == pytest.approx(effect_sizes(a, b, np.ones((1, 6)))[0])


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_without_spread_there_is_no_effect_size(shift: float) -> None:
    a = np.array([0.1, 0.7, 0.4])
    d_z, g_av, d = effect_sizes(a, a + shift, np.ones((1, 3)))[0]
    assert np.isnan(d_z)  # 0.1 added everywhere leaves a spread of rounding alone
    assert (g_av == 0) == (d == 0) == (shift == 0)
    assert np.isnan(effect_sizes(np.ones(3), np.ones(3), np.ones((1, 3)))).all()
    assert np.isnan(effect_sizes(a[:1], a[1:2], np.ones((1, 1)))).all()
