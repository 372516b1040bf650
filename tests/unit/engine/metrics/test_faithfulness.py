from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import comb

import numpy as np
import numpy.typing as npt
import pytest

from engine.errors import ExampleError
from engine.explainers.pool_design import pool_design
from engine.metrics.faithfulness import Baseline, Faithfulness, MetricRow
from engine.pool import CoalitionPool, keys
from engine.types import BoolCF

Array = npt.NDArray[np.float64]
Game = Callable[[BoolCF], Array]


def linear(weights: Array, base: float = 0.1) -> Game:
    """Probabilities of two labels, the second one additive in the features."""

    def value(coalitions: BoolCF) -> Array:
        p = base + coalitions @ weights
        return np.stack([1 - p, p], axis=1)

    return value


def crossed(coalitions: BoolCF) -> Array:
    """A game of four features with interactions."""
    z = coalitions.astype(float)
    p = 0.1 + 0.4 * z[:, 0] * z[:, 1] + 0.3 * np.maximum(z[:, 2], z[:, 3]) - 0.05 * z[:, 0]
    return np.stack([1 - p, p], axis=1)


def run(metric: Faithfulness, value: Game, scores: Array, label: int = 1) -> list[MetricRow]:
    pool = CoalitionPool(len(scores))
    while len(coalitions := metric.ask(pool, scores)):
        pool.tell(coalitions, value(coalitions))
    return metric.fit(pool, scores, label)


def find(rows: list[MetricRow], metric: str, size: int | None = None) -> MetricRow:
    (row,) = [r for r in rows if r.metric == metric and r.n_removed == size]
    return row


def test_closed_forms_on_a_linear_game() -> None:
    weights = np.array([0.05, 0.3, 0.02, 0.2, 0.03])
    rows = run(Faithfulness(fractions=(0.2, 0.4)), linear(weights), weights)
    assert find(rows, "comprehensiveness_at_k", 1).value == pytest.approx(0.3)
    assert find(rows, "comprehensiveness_at_k", 2).value == pytest.approx(0.5)
    assert find(rows, "comprehensiveness").value == pytest.approx(0.4)
    assert find(rows, "sufficiency_at_k", 1).value == pytest.approx(0.3)
    assert find(rows, "sufficiency_at_k", 2).value == pytest.approx(0.1)
    assert find(rows, "sufficiency").value == pytest.approx(0.2)
    curve = 0.7 - np.cumsum([0.0, 0.3, 0.2, 0.05, 0.03, 0.02])
    area = np.trapezoid(curve, np.arange(6) / 5)
    assert find(rows, "deletion_auc").value == pytest.approx(area)
    assert find(rows, "deletion_gain").value == pytest.approx((0.4 - area) / 0.4)
    assert find(rows, "deletion_gain").random == 0.0


def test_a_random_order_of_an_additive_game_has_its_analytic_values() -> None:
    weights = np.array([0.05, 0.2, 0.02, 0.1, 0.03, 0.1])
    total, base = weights.sum(), 0.1
    rows = run(Faithfulness(fractions=(0.01, 0.5), random_orders=6), linear(weights), weights)
    # sizes 1 and 5 have 6 subsets each, all of them taken: exact
    assert find(rows, "comprehensiveness_at_k", 1).random == pytest.approx(total / 6)
    assert find(rows, "sufficiency_at_k", 1).random == pytest.approx(total * 5 / 6)
    # an order and its reverse together remove every feature at its mean time
    assert find(rows, "deletion_auc").random == pytest.approx(base + total / 2)
    middle = find(rows, "comprehensiveness_at_k", 3), find(rows, "sufficiency_at_k", 3)
    assert middle[0].random + middle[1].random == pytest.approx(total)


def test_random_values_of_a_longer_additive_game_are_close_to_analytic() -> None:
    rng = np.random.default_rng(3)
    weights = rng.dirichlet(np.ones(30)) * 0.8
    rows = run(Faithfulness(random_orders=400), linear(weights), weights)
    for size in (1, 2, 3, 6, 15):
        row = find(rows, "comprehensiveness_at_k", size)
        assert row.random == pytest.approx(0.8 * size / 30, rel=0.15)
        row = find(rows, "sufficiency_at_k", size)
        assert row.random == pytest.approx(0.8 * (1 - size / 30), rel=0.05)
    assert find(rows, "deletion_auc").random == pytest.approx(0.1 + 0.4)


def test_the_mean_over_all_orders_is_the_random_expectation() -> None:
    # six orders cover every size of four features, since none has more than six subsets
    metric = Faithfulness(fractions=(0.25, 0.5, 0.75), random_orders=6)
    rows = run(metric, crossed, np.array([4.0, 3.0, 2.0, 1.0]))
    every: dict[tuple[str, int | None], list[float]] = {}
    for ranks in permutations(range(4)):
        for row in run(metric, crossed, np.array(ranks, dtype=float)):
            if row.metric != "deletion_gain":
                every.setdefault((row.metric, row.n_removed), []).append(row.value or 0.0)
    assert len(every) == 3 + 2 * 3
    for (name, size), values in every.items():
        assert len(values) == 24
        assert find(rows, name, size).random == pytest.approx(np.mean(values))


def test_the_best_order_cannot_be_beaten_and_random_lies_between() -> None:
    weights = np.array([0.3, 0.2, 0.1, 0.05, 0.02])
    best = run(Faithfulness(), linear(weights), weights)
    worst = run(Faithfulness(), linear(weights), -weights)
    for metric in ("comprehensiveness", "deletion_gain"):
        assert find(best, metric).value > find(best, metric).random > find(worst, metric).value
    for metric in ("sufficiency", "deletion_auc"):
        assert find(best, metric).value < find(best, metric).random < find(worst, metric).value


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [1]),
        (4, [1, 2]),
        (10, [1, 2, 5]),
        (30, [1, 2, 3, 6, 15]),
        (100, [1, 5, 10, 20, 50]),
        (0, []),
    ],
)
def test_equal_sets_count_once(n: int, sizes: list[int]) -> None:
    assert Faithfulness().set_sizes(n) == sizes


def test_sizes_are_not_pushed_up_by_floating_point() -> None:
    assert Faithfulness(fractions=(0.07,)).set_sizes(100) == [7]


def test_aopc_is_the_mean_over_distinct_sizes() -> None:
    weights = np.array([0.3, 0.2, 0.1, 0.05])
    rows = run(Faithfulness(), linear(weights), weights)
    assert [r.n_removed for r in rows if r.metric == "comprehensiveness_at_k"] == [1, 2]
    assert find(rows, "comprehensiveness").value == pytest.approx((0.3 + 0.5) / 2)


def test_long_texts_are_removed_on_an_even_grid() -> None:
    metric = Faithfulness(curve_points=20)
    assert metric.curve_sizes(20) == list(range(21))
    grid = metric.curve_sizes(50)
    assert len(grid) == 21
    assert (grid[0], grid[-1]) == (0, 50)
    assert set(np.diff(grid).tolist()) == {2, 3}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 25])
def test_ask_never_repeats_and_ends(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    metric = Faithfulness(seed=n)
    pool = CoalitionPool(n)
    asked = metric.ask(pool, scores)
    assert len(set(keys(asked))) == len(asked)
    pool.tell(asked, np.full((len(asked), 2), 0.5))
    assert len(metric.ask(pool, scores)) == 0


def test_explanations_of_one_example_share_the_random_orders() -> None:
    metric = Faithfulness(seed=11)
    rng = np.random.default_rng(0)
    pool = CoalitionPool(20)
    first = metric.ask(pool, rng.normal(size=20))
    pool.tell(first, np.zeros(len(first)))
    second = metric.ask(pool, rng.normal(size=20))
    ranked = len(metric.ranked_coalitions(rng.normal(size=20)))
    assert len(second) <= ranked < len(first)
    assert not len(pool.missing(metric.random_coalitions(20)))


def test_random_orders_come_with_their_reverses() -> None:
    metric = Faithfulness(random_orders=4, fractions=(0.5,), seed=2)
    coalitions = metric.random_coalitions(12)
    halves = coalitions[coalitions.sum(axis=1) == 6]
    found = set(keys(halves))
    assert len(halves) == 4
    assert set(keys(~halves)) == found


def test_few_evaluations_are_asked_for() -> None:
    metric = Faithfulness()
    n = 20
    distinct = len(CoalitionPool(n).missing(metric.random_coalitions(n)))
    assert distinct <= 10 * (n - 1) + 2
    assert comb(4, 2) <= 10
    assert len(CoalitionPool(4).missing(metric.random_coalitions(4))) == 16


def test_a_constant_attribution_gets_no_credit_for_positions() -> None:
    # all the weight lies on the first word
    weights = np.array([0.6, 0.0, 0.0, 0.0, 0.0])
    gains = []
    for seed in range(200):
        row = find(run(Faithfulness(seed=seed), linear(weights), np.zeros(5)), "comprehensiveness")
        gains.append(row.value - row.random)
    assert abs(np.mean(gains)) < 0.05


def test_one_feature() -> None:
    rows = run(Faithfulness(), linear(np.array([0.4])), np.array([1.0]))
    assert find(rows, "comprehensiveness") == (
        "comprehensiveness",
        None,
        pytest.approx(0.4),
        pytest.approx(0.4),
    )
    assert find(rows, "sufficiency_at_k", 1).value == pytest.approx(0.0)
    assert find(rows, "deletion_auc").value == pytest.approx(0.3)
    assert find(rows, "deletion_gain").value == pytest.approx(0.0)


def test_without_features_every_value_is_none_and_nothing_is_asked() -> None:
    metric, pool, nothing = Faithfulness(), CoalitionPool(0), np.zeros(0)
    assert metric.ask(pool, nothing).shape == (0, 0)
    rows = metric.fit(pool, nothing, 0)
    assert {row.metric for row in rows} == {
        "comprehensiveness",
        "sufficiency",
        "deletion_auc",
        "deletion_gain",
    }
    assert all(row.value is None and row.random is None for row in rows)


def test_no_gain_where_a_random_order_leaves_no_area() -> None:
    rows = run(Faithfulness(), lambda z: np.zeros((len(z), 2)), np.array([1.0, 2.0, 3.0]))
    assert find(rows, "deletion_gain").value is None
    assert find(rows, "deletion_auc").value == 0.0


def test_the_explained_label_is_the_one_measured() -> None:
    weights = np.array([0.3, 0.1])
    metric = Faithfulness(fractions=(0.5,))
    ours = run(metric, linear(weights), weights, label=1)
    other = run(metric, linear(weights), weights, label=0)
    assert find(other, "comprehensiveness").value == pytest.approx(
        -find(ours, "comprehensiveness").value
    )


def test_rows_carry_the_version_of_their_definition() -> None:
    rows = run(Faithfulness(), linear(np.array([0.3, 0.1])), np.array([1.0, 2.0]))
    assert {row.definition_version for row in rows} == {1}


def test_bad_settings_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="fractions"):
        Faithfulness(fractions=(0.0,))
    with pytest.raises(ValueError, match="at least 1"):
        Faithfulness(random_orders=0)
    with pytest.raises(ExampleError):
        Faithfulness().ask(CoalitionPool(2), np.array([np.nan, 1.0]))


class TestBaselineFromThePool:
    def test_the_random_values_are_means_over_the_pool(self) -> None:
        weights = np.linspace(-0.02, 0.03, 20)
        metric = Faithfulness(baseline=Baseline(3, 512))
        rows = run(metric, linear(weights), weights)
        design = pool_design(3, 20, 512)
        value = linear(weights)
        full = value(np.ones((1, 20), dtype=bool))[0, 1]
        four = full - value(~design.coalitions[design.sizes == 4])[:, 1].mean()
        assert find(rows, "comprehensiveness_at_k", 4).random == pytest.approx(four)
        half = design.coalitions[design.sizes == 10]
        ten = full - value(np.concatenate([half, ~half]))[:, 1].mean()
        assert find(rows, "sufficiency_at_k", 10).random == pytest.approx(ten)
        # removing a set and its complement add up, so that the area is exact on a linear game
        area = find(rows, "deletion_auc").random
        assert area == pytest.approx(0.1 + weights.sum() / 2)

    def test_it_asks_only_for_the_ranked_sets_where_the_pool_suffices(self) -> None:
        scores = np.random.default_rng(0).normal(size=20)
        metric = Faithfulness(baseline=Baseline(3, 512))
        half = pool_design(3, 20, 512).coalitions
        pool = CoalitionPool(20)
        for coalitions in (
            np.ones((1, 20), dtype=bool),
            np.zeros((1, 20), dtype=bool),
            half,
            ~half,
        ):
            pool.tell(coalitions, np.zeros(len(coalitions)))
        asked = set(keys(metric.ask(pool, scores)))
        assert asked <= set(keys(metric.ranked_coalitions(scores)))
        assert set(keys(metric.asked(scores))) == set(keys(metric.ranked_coalitions(scores)))

    @pytest.mark.parametrize("budget", [42, 60, 90])
    def test_sizes_the_pool_is_short_of_are_filled_up(self, budget: int) -> None:
        scores = np.random.default_rng(0).normal(size=20)
        metric = Faithfulness(baseline=Baseline(3, budget), random_orders=6)
        coalitions = metric.random_coalitions(20)
        removed = 20 - coalitions.sum(axis=1)
        least = [1, 20, *[6] * 17, 20, 1]
        assert (np.bincount(removed, minlength=21) >= least).all()
        assert len(set(keys(coalitions))) == len(coalitions)
        half = pool_design(3, 20, budget).coalitions
        beyond = set(keys(coalitions)) - set(keys(half)) - set(keys(~half))
        asked = set(keys(metric.asked(scores)))
        assert asked == beyond | set(keys(metric.ranked_coalitions(scores)))

    def test_it_estimates_what_random_orders_do(self) -> None:
        scores = np.array([0.4, 0.1, 0.3, 0.2])
        metrics = (Faithfulness(random_orders=400), Faithfulness(baseline=Baseline(0, 16)))
        orders, pooled = (run(metric, crossed, scores) for metric in metrics)
        for one, other in zip(orders, pooled, strict=True):
            assert one.random == pytest.approx(other.random)
            assert one.value == pytest.approx(other.value)

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 25])
    def test_ask_never_repeats_and_ends(self, n: int) -> None:
        scores = np.random.default_rng(n).normal(size=n)
        metric = Faithfulness(seed=n, baseline=Baseline(1, 60))
        pool = CoalitionPool(n)
        asked = metric.ask(pool, scores)
        assert len(set(keys(asked))) == len(asked)
        pool.tell(asked, np.full((len(asked), 2), 0.5))
        assert len(metric.ask(pool, scores)) == 0
        assert len(metric.fit(pool, scores, 1)) > 4
