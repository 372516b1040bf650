from __future__ import annotations

import numpy as np
import pytest

from analysis.bootstrap import (
    Estimate,
    Statistic,
    estimates,
    group_codes,
    mean,
    mean_over_seeds,
    median,
    of_some,
    ratio,
)

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


# ---- several seeds on the same examples


def test_seeds_are_averaged_and_one_alone_is_as_without() -> None:
    values = np.random.default_rng(6).normal(size=(3, 20))
    found = mean(values, alone(20), KEY)
    assert found.value == pytest.approx(values.mean())
    assert (found.n, found.groups) == (20, 20)
    assert mean(values[:1], alone(20), KEY) == mean(values[0], alone(20), KEY)
    assert median(values, alone(20), KEY).value == pytest.approx(np.median(values, axis=1).mean())
    # equal seeds add nothing: the same groups are drawn as for one
    equal = mean(np.repeat(values[:1], 3, axis=0), alone(20), KEY)
    assert equal == pytest.approx(mean(values[0], alone(20), KEY))


def test_what_differs_between_seeds_widens_the_interval() -> None:
    examples = np.random.default_rng(7).normal(size=200)
    far = mean(np.stack([examples - 1, examples + 1]), alone(200), KEY)
    assert far.ci_low == pytest.approx(examples.mean() - 1, abs=0.2)
    assert far.ci_high == pytest.approx(examples.mean() + 1, abs=0.2)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_the_variance_over_seeds_is_not_understated(n_seeds: int) -> None:
    """S − 1 of S seeds are drawn: the variance of their mean is s² / S, s² with S − 1."""
    seeds = np.random.default_rng(n_seeds).normal(size=n_seeds)
    draws = []
    for i in range(300):  # an interval of one resample is that resample

        def constant(value: float) -> Statistic:
            return lambda weights: np.full((len(weights), 1), value)

        statistics = [constant(value) for value in seeds]
        (found,) = mean_over_seeds(statistics, alone(2), (str(i),), resamples=1)
        assert found.value == pytest.approx(seeds.mean())
        draws.append(found.ci_low)
    assert np.mean(draws) == pytest.approx(seeds.mean(), abs=0.2)
    assert np.var(draws) == pytest.approx(seeds.var(ddof=1) / n_seeds, rel=0.2)


def test_intervals_are_of_new_seeds_too() -> None:
    rng = np.random.default_rng(8)
    hits, narrow = 0, 0
    for i in range(150):
        values = rng.normal(size=(6, 1)) + rng.normal(size=25) + 0.3 * rng.normal(size=(6, 25))
        found = mean(values, alone(25), (str(i),))
        hits += found.ci_low <= 0 <= found.ci_high
        fixed = mean(values.mean(axis=0), alone(25), (str(i),))
        narrow += fixed.ci_low <= 0 <= fixed.ci_high
    assert hits / 150 >= 0.85
    assert narrow < hits - 20


def test_values_that_some_seeds_lack() -> None:
    nan = np.nan
    found = mean(np.array([[1.0, nan, 3.0, nan], [5.0, 7.0, nan, nan]]), alone(4), KEY)
    assert (found.value, found.n, found.groups) == (4.0, 3, 3)  # (2 + 6) / 2
    assert found.ci_low is not None
    assert 1.0 <= found.ci_low <= found.ci_high <= 7.0
    # a seed without any value is none
    lacking = mean(np.array([[1.0, 2.0], [nan, nan]]), alone(2), KEY)
    assert lacking == mean(np.array([1.0, 2.0]), alone(2), KEY)
    assert mean(np.full((2, 3), nan), alone(3), KEY) == (None, 0, None, None, 0)


def test_a_statistic_of_some_examples_is_undefined_without_them() -> None:
    def total(weights: np.ndarray) -> np.ndarray:
        return weights.sum(axis=1, keepdims=True)

    narrowed = of_some(np.array([True, False, True]), total)
    weights = np.array([[1.0, 5.0, 2.0], [0.0, 3.0, 0.0]])
    assert narrowed(weights)[0, 0] == 3.0
    assert np.isnan(narrowed(weights)[1, 0])
