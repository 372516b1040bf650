from __future__ import annotations

import numpy as np
import pytest

from analysis.bootstrap import Estimate, estimates, group_codes, mean, median, ratio

KEY = ("data", "model")


def alone(n: int) -> np.ndarray:
    return np.arange(n)


def test_rows_of_a_group_or_of_an_example_are_resampled_as_one() -> None:
    codes = group_codes(["a", "b", "c", "a", "d"], ["g", None, "g", None, "b"])
    assert codes.tolist() == [0, 1, 0, 2, 3]


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(loc=3.0, size=400)
    found = mean(values, alone(400), KEY)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.ci_low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.ci_high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert (found.n, found.groups) == (400, 400)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(200):
        found = mean(rng.normal(size=40), alone(40), (str(i),))
        hits += found.ci_low <= 0 <= found.ci_high
    assert 0.87 <= hits / 200 <= 0.99


def test_duplicated_rows_widen_the_interval_only_when_they_are_grouped() -> None:
    values = np.random.default_rng(2).normal(size=50)
    single = mean(values, alone(50), KEY)
    repeated = np.repeat(values, 8)
    naive = mean(repeated, alone(400), KEY)
    grouped = mean(repeated, np.repeat(alone(50), 8), KEY)

    def width(found: Estimate) -> float:
        return found.ci_high - found.ci_low

    assert width(naive) < 0.5 * width(single)
    assert width(grouped) == pytest.approx(width(single), rel=1e-9)
    assert (grouped.n, grouped.groups) == (400, 50)


def test_the_same_key_gives_the_same_interval_and_another_key_another() -> None:
    values = np.random.default_rng(3).normal(size=30)
    assert mean(values, alone(30), KEY) == mean(values, alone(30), KEY)
    assert mean(values, alone(30), KEY).ci_low != mean(values, alone(30), ("other",)).ci_low


def test_missing_values_are_left_out() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = mean(values, alone(4), KEY)
    assert (found.value, found.n, found.groups) == (2.0, 2, 2)
    assert mean(np.array([np.nan]), alone(1), KEY) == (None, 0, None, None, 0)


def test_one_group_has_no_interval() -> None:
    assert mean(np.array([1.0, 2.0]), np.zeros(2, dtype=int), KEY) == (1.5, 2, None, None, 1)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_the_median_equals_numpys_on_every_resample(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert median(values, alone(n), KEY).value == pytest.approx(np.median(values))


def test_the_interval_of_a_median_follows_resampled_medians() -> None:
    values = np.random.default_rng(5).exponential(size=61)
    found = median(values, alone(61), KEY)
    rng = np.random.default_rng(0)
    draws = np.median(values[rng.integers(0, 61, size=(4000, 61))], axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.ci_low == pytest.approx(low, rel=0.1)
    assert found.ci_high == pytest.approx(high, rel=0.1)


def test_a_ratio_is_of_the_sums() -> None:
    found = ratio(np.array([1.0, 0.0]), np.array([1.0, 3.0]), alone(2), KEY)
    assert found.value == 0.25
    assert (found.ci_low, found.ci_high) == (0.0, 1.0)
    assert ratio(np.zeros(2), np.zeros(2), alone(2), KEY).value is None


def test_resamples_that_leave_a_statistic_undefined_do_not_count() -> None:
    def first_if_drawn(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, :1] > 0, 5.0, np.nan)

    (found,) = estimates(first_if_drawn, alone(3), KEY)
    assert (found.value, found.ci_low, found.ci_high) == (5.0, 5.0, 5.0)


def test_large_samples_run_in_chunks_and_keep_whole_groups() -> None:
    totals = []

    def statistic(weights: np.ndarray) -> np.ndarray:
        totals.extend(weights.sum(axis=1).tolist())
        assert (weights[:, ::2] == weights[:, 1::2]).all()
        return weights[:, :1]

    estimates(statistic, np.repeat(np.arange(15_000), 2), KEY, resamples=400)
    assert len(totals) == 401
    assert set(totals) == {30_000.0}
