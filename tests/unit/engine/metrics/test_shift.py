from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.errors import ExampleError
from engine.metrics import agreement, complexity
from engine.metrics.shift import BETWEEN, LEVEL, between, level
from engine.types import FloatF

numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, allow_subnormal=False))
pairs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(numbers, min_size=n, max_size=n).map(np.array)] * 2)
)


def one(a: object, b: object) -> dict[str, float]:
    rows = (np.array([side], dtype=float) for side in (a, b))
    return {name: float(values[0]) for name, values in between(*rows).items()}


def of(scores: object) -> dict[str, float]:
    row = np.array([scores], dtype=float)
    return {name: float(values[0]) for name, values in level(row).items()}


def same(found: float, expected: float | None) -> bool:
    return math.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-9)


def test_names_are_those_that_are_returned() -> None:
    assert tuple(one([1.0], [2.0])) == BETWEEN
    assert tuple(of([1.0])) == LEVEL


@given(pairs)
def test_equal_to_the_definitions_for_one_example(sides: tuple[FloatF, FloatF]) -> None:
    a, b = sides
    found = one(a, b)
    assert same(found["spearman"], agreement.spearman(a, b))
    assert same(found["cosine"], agreement.cosine(a, b))
    assert same(found["abs_cosine"], agreement.cosine(np.abs(a), np.abs(b)))
    assert same(of(a)["gini"], complexity.gini(a))
    assert same(of(a)["entropy"], complexity.entropy(a))


def test_correlations_equal_scipys() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(-4, 5, size=(30, 9)).astype(float)
    b = rng.normal(size=(30, 9))
    found = between(a, b)
    for i in range(30):
        assert found["spearman"][i] == pytest.approx(stats.spearmanr(a[i], b[i]).statistic)
        assert found["pearson"][i] == pytest.approx(stats.pearsonr(a[i], b[i]).statistic)


@given(pairs)
def test_the_null_is_the_mean_over_all_permutations(sides: tuple[FloatF, FloatF]) -> None:
    a, b = (side[:5] for side in sides)
    if len(a) < 2 or not np.abs(a).max() > 1e-6 or not np.abs(b).max() > 1e-6:
        return
    every = [one(a, b[list(order)])["abs_cosine"] for order in permutations(range(len(b)))]
    found = one(a, b)
    assert found["abs_cosine_null"] == pytest.approx(np.mean(every))
    assert found["abs_cosine_gain"] == pytest.approx(found["abs_cosine"] - np.mean(every))


def test_an_attribution_is_like_itself_and_flips_against_its_negative() -> None:
    scores = np.array([0.5, -2.0, 1.0, 0.0, 3.0, -0.1])
    equal, against = one(scores, 7 * scores), one(scores, -scores)
    for name in ("spearman", "pearson", "cosine", "abs_cosine"):
        assert equal[name] == pytest.approx(1.0)
    for name in ("spearman", "pearson", "cosine"):
        assert against[name] == pytest.approx(-1.0)
    assert (equal["sign_flips"], equal["sign_flip_ratio"]) == (0.0, 0.0)
    assert (against["sign_flips"], against["sign_flip_ratio"]) == (5.0, 1.0)  # 0 has no sign
    # the top sets go by magnitude, so a changed sign alone leaves them
    for name in ("top1_overlap", "top3_overlap", "top3_jaccard", "top5_overlap", "top5_jaccard"):
        assert equal[name] == against[name] == 1.0
    assert equal["mass_ratio"] == pytest.approx(7.0)


def test_top_sets() -> None:
    found = one([9, 8, 7, 1, 2, 3, 0], [0, 8, 9, 7, -1, -2, 3])
    assert found["top1_overlap"] == 0.0
    assert found["top3_overlap"] == pytest.approx(2 / 3)
    assert found["top3_jaccard"] == pytest.approx(2 / 4)
    assert found["top5_overlap"] == pytest.approx(3 / 5)
    assert found["top5_jaccard"] == pytest.approx(3 / 7)
    assert math.isnan(found["top10_overlap"])  # of seven features all are in both
    many = one([*range(12, 0, -1)], [-12, 11, *range(1, 11)])  # each lacks two of the other's
    assert many["top10_overlap"] == pytest.approx(8 / 10)
    assert many["top10_jaccard"] == pytest.approx(8 / 12)
    assert math.isnan(one([*range(10)], [*range(10)])["top10_jaccard"])


def test_ties_for_the_last_places_count_in_part() -> None:
    # nothing tells four features apart: each belongs to the top one by a quarter
    assert one([1, 1, 1, 1], [1, 0, 0, 0])["top1_overlap"] == pytest.approx(0.25)


def test_what_is_not_defined_is_nan_and_never_zero() -> None:
    flat = one([2, 2, 2], [1, 2, 3])
    assert math.isnan(flat["spearman"])
    assert math.isnan(flat["pearson"])
    assert flat["cosine"] > 0
    empty = one([0, 0, 0, 0], [1, 2, 3, 4])
    for name in ("cosine", "abs_cosine", "abs_cosine_null", "sign_flip_ratio", "mass_ratio"):
        assert math.isnan(empty[name]), name
    assert math.isnan(one([1, 2, 3, 4], [0, 0, 0, 0])["mass_ratio"])
    short = one([1, 2, 3], [3, 2, 1])
    assert math.isnan(short["top3_overlap"])  # all three are in both
    assert math.isnan(short["top5_jaccard"])
    assert not math.isnan(short["top1_overlap"])
    single = one([1], [2])
    assert math.isnan(single["abs_cosine_gain"])
    assert math.isnan(of([1])["gini"])
    assert of([0, 0])["mass"] == 0.0
    assert math.isnan(of([0, 0])["entropy"])


@pytest.mark.parametrize("by", [1e-200, 1e-3, 1e150])
def test_likeness_does_not_depend_on_the_scale(by: float) -> None:
    a, b = np.random.default_rng(2).integers(-4, 5, size=(2, 40, 7)).astype(float)
    before, after = between(a, b), between(a, b * by)
    for name in set(BETWEEN) - {"mass_ratio"}:
        assert after[name] == pytest.approx(before[name], nan_ok=True), name


def test_rows_do_not_depend_on_each_other() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 20, 12))
    together = between(a, b) | level(a)
    for i in range(20):
        alone = between(a[i : i + 1], b[i : i + 1]) | level(a[i : i + 1])
        assert {name: values[0] for name, values in alone.items()} == {
            name: values[i] for name, values in together.items()
        }


def test_magnitudes() -> None:
    found = of([1, -2, 3, 0])
    assert (found["mass"], found["mean_magnitude"]) == (6.0, 1.5)


def test_other_shapes_and_broken_values_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        between(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ExampleError, match="NaN or infinite"):
        between(np.array([[1.0, np.inf]]), np.ones((1, 2)))
