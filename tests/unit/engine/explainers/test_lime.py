from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from engine.errors import ExampleError
from engine.explainers import build, solve
from engine.explainers.coalitions import everything
from engine.explainers.lime import kernel
from engine.pool import CoalitionPool, keys

WEIGHTS = np.random.default_rng(5).normal(size=(10, 6))


def _game(z: np.ndarray) -> np.ndarray:
    return np.tanh((z - 0.4) @ WEIGHTS).sum(axis=1)


def test_kernel_equals_the_published_weights() -> None:
    coalitions = np.tril(np.ones((9, 9), dtype=bool))[::-1]
    expected = [1, 0.974173, 0.894448, 0.763847, 0.595265, 0.411112, 0.239533, 0.106959, 0.028566]
    np.testing.assert_allclose(kernel(coalitions, 25.0), expected, atol=1e-6)
    assert kernel(np.zeros((1, 9), dtype=bool), 25.0)[0] == pytest.approx(0.000335, abs=1e-6)


@pytest.mark.parametrize("num_samples", [1024, 5000, 40_000])
def test_enumerated_is_the_stated_regression(num_samples: int) -> None:
    z = everything(10)
    removed = 10 - z.sum(axis=1)
    law = np.array([1 / (10 * math.comb(10, int(r))) for r in removed]) * (1 - 1 / 5000)
    law[-1] = 1 / 5000
    weights = law * kernel(z, 25.0)
    peer = Ridge(alpha=1 / 5000).fit(z, _game(z), sample_weight=weights)
    result = solve(build("lime", num_samples=num_samples), _game, 10)
    np.testing.assert_allclose(result.values[0], peer.coef_, atol=1e-10)
    assert result.base[0] == pytest.approx(peer.intercept_, abs=1e-10)
    assert result.r2[0] == pytest.approx(peer.score(z, _game(z), sample_weight=weights), abs=1e-10)
    assert result.evaluations == 1024
    assert result.diagnostics["exact"]
    assert result.diagnostics["ridge"] == num_samples / 5000
    assert (result.std_error == 0).all()
    assert result.residual is None


def test_sampled_converges_to_enumerated_as_one_over_root_n() -> None:
    truth = solve(build("lime", num_samples=1024), _game, 10).values[0]
    budgets = np.array([100, 180, 320, 570, 1000])
    seeds = range(30)
    errors = []
    for budget in budgets.tolist():
        runs = [solve(build("lime", num_samples=budget, seed=s), _game, 10) for s in seeds]
        assert all(not run.diagnostics["exact"] for run in runs)
        errors.append(np.sqrt(np.mean([(run.values[0] - truth) ** 2 for run in runs])))
    slope = np.polyfit(np.log(budgets), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)


def test_standard_error_is_that_of_many_seeds() -> None:
    truth = solve(build("lime", num_samples=1024), _game, 10).values[0]
    runs = [solve(build("lime", num_samples=300, seed=s), _game, 10) for s in range(120)]
    errors = np.array([run.values[0] - truth for run in runs])
    claimed = np.array([run.std_error[0] for run in runs])
    assert np.sqrt((claimed**2).mean() / (errors**2).mean()) == pytest.approx(1, abs=0.1)
    assert (np.abs(errors) < 1.96 * claimed).mean() == pytest.approx(0.95, abs=0.03)


def test_repeated_draws_keep_their_weight() -> None:
    # 60 rows over 64 coalitions: many repeats; the regression on all rows is the reference
    small = lambda z: _game(np.pad(z, ((0, 0), (0, 4))))  # noqa: E731
    explainer = build("lime", num_samples=60, seed=2)
    result = solve(explainer, small, 6)
    design = explainer._design(6)
    assert result.evaluations == len(design.coalitions) == len(set(keys(design.coalitions))) < 60
    drawn = np.repeat(design.coalitions[1:], design.draws[1:].astype(int), axis=0)
    assert len(drawn) == 59
    rows = np.concatenate([design.coalitions[:1], drawn])
    weights = np.full(60, _kernel_by_removed(6).mean() * 60 * (1 - 1 / 5000) / 59)
    weights[0] = 60 / 5000
    peer = Ridge(alpha=60 / 5000).fit(rows, small(rows), sample_weight=weights)
    np.testing.assert_allclose(result.values[0], peer.coef_, atol=1e-10)


def _kernel_by_removed(n_features: int) -> np.ndarray:
    rows = np.tril(np.ones((n_features, n_features), dtype=bool), -1)[::-1]
    return kernel(rows, 25.0)


def test_number_of_removed_features_goes_by_the_kernel() -> None:
    design = build("lime", num_samples=20_001, seed=1)._design(26)
    removed = 26 - design.coalitions[1:].sum(axis=1)
    counts = np.bincount(removed, weights=design.draws[1:], minlength=27)
    assert counts[0] == 0
    law = _kernel_by_removed(26)
    expected = 20_000 * law / law.sum()
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 60  # 99.99 % of χ² with 25 degrees
    assert design.coalitions[0].all()


def test_draws_by_the_kernel_need_fewer_than_even_ones() -> None:
    truth = solve(build("lime", num_samples=1024), _game, 10).values[0]
    ours, even = [], []
    for seed in range(60):
        found = solve(build("lime", num_samples=120, seed=seed), _game, 10)
        ours.append(((found.values[0] - truth) ** 2).sum())
        random = np.random.default_rng(seed)
        rows = np.ones((120, 10), dtype=bool)
        for row in rows[1:]:
            row[random.permutation(10)[: random.integers(1, 11)]] = False
        weights = kernel(rows, 25.0)
        weights[0] *= 120 / 5000
        weights[1:] *= 120 * (1 - 1 / 5000) / 119
        peer = Ridge(alpha=120 / 5000).fit(rows, _game(rows), sample_weight=weights)
        even.append(((peer.coef_ - truth) ** 2).sum())
    assert np.mean(ours) < 0.8 * np.mean(even)


def test_a_larger_budget_adds_to_the_draws_of_a_smaller_one() -> None:
    small, large = (build("lime", num_samples=n, seed=3).ask(CoalitionPool(15)) for n in (80, 300))
    np.testing.assert_array_equal(large[: len(small)], small)


def test_all_labels_in_one_solve_equal_one_by_one() -> None:
    both = lambda z: np.stack([_game(z), -2 * _game(z) + 1], axis=1)  # noqa: E731
    result = solve(build("lime", num_samples=200), both, 10)
    single = solve(build("lime", num_samples=200), _game, 10)
    np.testing.assert_allclose(result.values[0], single.values[0], atol=1e-12)
    np.testing.assert_allclose(result.values[1], -2 * single.values[0], atol=1e-12)
    assert result.base[1] == pytest.approx(1 - 2 * single.base[0])
    np.testing.assert_allclose(result.std_error[1], 2 * single.std_error[0], rtol=1e-9)


def test_too_small_a_budget_is_refused() -> None:
    with pytest.raises(ExampleError, match=r"num_samples = 10 .* 10 features; .* is 11"):
        build("lime", num_samples=10).ask(CoalitionPool(10))
    with pytest.raises(ExampleError, match="smallest that works is 2"):
        build("lime", num_samples=1, compat="lime").ask(CoalitionPool(10))
    near = solve(build("lime", num_samples=11), _game, 10)
    assert np.isfinite(near.values).all()
    assert near.std_error is None


def test_compat_keeps_ten_features_and_a_penalty_of_one() -> None:
    game = lambda z: z @ np.arange(1.0, 16)  # noqa: E731
    result = solve(build("lime", num_samples=300, compat="lime"), game, 15)
    assert (result.values[0] != 0).tolist() == [False] * 5 + [True] * 10
    assert result.diagnostics["ridge"] == 1
    every = build("lime", num_samples=300, compat="lime", feature_selection="none")
    assert (solve(every, game, 15).values != 0).all()


def test_compat_of_a_constant_is_zero_for_every_selection() -> None:
    for selection in ("auto", "highest_weights", "forward_selection", "lasso_path", "none"):
        explainer = build(
            "lime", num_samples=30, compat="lime", num_features=3, feature_selection=selection
        )
        result = solve(explainer, lambda z: np.full(len(z), 0.25), 6)
        np.testing.assert_allclose(result.values, 0, atol=1e-12)
        assert result.base[0] == pytest.approx(0.25)
        assert np.isfinite(result.r2).all()
