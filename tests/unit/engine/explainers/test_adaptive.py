from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.explainers import build, solve
from engine.explainers.adaptive import budgets, relative_error
from engine.pool import CoalitionPool
from engine.types import Attribution

WEIGHTS = np.random.default_rng(1).normal(size=(12, 8)) / 2

METHODS = [
    ("kernel_shap", {}),
    ("kernel_shap", {"sampling": "pool"}),
    ("kernel_shap", {"surrogate": "gaussian_process"}),
    ("kernel_shap", {"surrogate": "gaussian_process", "sampling": "pool"}),
    ("lime", {}),
    ("lime", {"sampling": "pool"}),
]


def _game(z: np.ndarray) -> np.ndarray:
    return np.tanh(((z - 0.5) @ WEIGHTS[: z.shape[1]]) * 1.5 + 0.3).sum(axis=1)


def test_budgets_grow_to_the_most() -> None:
    assert budgets(40, 200) == [40, 60, 90, 135, 200]
    assert budgets(40, 40) == [40]
    assert budgets(40, 30) == [30]


def test_relative_error_is_that_of_the_worst_label() -> None:
    values = np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    errors = np.array([[0.3, 0.4], [0.2, 0.0], [0.0, 0.0]])
    assert relative_error(Attribution(values, np.zeros(3), 9, errors)) == pytest.approx(0.2)
    assert relative_error(Attribution(values, np.zeros(3), 9)) == np.inf
    errors[2, 0] = 1e-9
    assert relative_error(Attribution(values, np.zeros(3), 9, errors)) == np.inf


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_stops_at_the_tolerance_and_says_so(name: str, params: dict) -> None:
    found = solve(build(name, relative_error=0.2, seed=1, **params), _game, 12)
    facts = found.diagnostics
    assert facts["stopped"] == "tolerance"
    assert facts["relative_error"] <= 0.2
    assert facts["relative_error"] == pytest.approx(relative_error(found))
    assert found.evaluations < 2**12
    again = solve(build(name, relative_error=0.2, seed=1, **params), _game, 12)
    np.testing.assert_array_equal(found.values, again.values)
    tight = solve(build(name, relative_error=0.1, seed=1, **params), _game, 12)
    assert tight.evaluations > found.evaluations
    assert tight.diagnostics["rounds"] > facts["rounds"]


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_stops_at_the_budget_with_a_forecast(name: str, params: dict) -> None:
    found = solve(build(name, num_samples=110, relative_error=0.01, **params), _game, 12)
    assert found.diagnostics["stopped"] == "budget"
    assert found.diagnostics["relative_error"] > 0.01
    assert found.evaluations <= 110
    ratio = found.diagnostics["relative_error"] / 0.01
    assert found.diagnostics["forecast"] == min(np.ceil(found.evaluations * ratio**2), 2**12)


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_rounds_waste_next_to_nothing(name: str, params: dict) -> None:
    explainer = build(name, relative_error=0.06, seed=2, **params)
    pool = CoalitionPool(12)
    while len(rows := explainer.ask(pool)):
        pool.tell(rows, _game(rows))
    found = explainer.fit(pool)
    assert found.diagnostics["rounds"] >= 3
    assert len(pool) <= 1.05 * found.evaluations
    used = explainer.used(pool)
    assert len(used) == len(pool)
    pool.lookup(used)


def test_a_fixed_budget_uses_what_it_asks() -> None:
    explainer = build("kernel_shap", num_samples=60)
    pool = CoalitionPool(12)
    rows = explainer.ask(pool)
    pool.tell(rows, _game(rows))
    np.testing.assert_array_equal(explainer.used(pool), rows)


@pytest.mark.parametrize(("name", "params"), METHODS[:5])
def test_intervals_cover_after_stopping(name: str, params: dict) -> None:
    everything = {"num_samples": 2**10} if name == "lime" else {}
    exact = solve(build(name if everything else "exact", **everything), _game, 10).values[0]
    inside = []
    for seed in range(40):
        found = solve(build(name, relative_error=0.15, seed=seed, **params), _game, 10)
        low, high = found.interval()
        inside.append(((low[0] <= exact) & (exact <= high[0])).mean())
    assert 0.87 < np.mean(inside) <= 1


@pytest.mark.parametrize("n_features", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("name", "params"), METHODS)
def test_few_features(name: str, params: dict, n_features: int) -> None:
    explainer = build(name, relative_error=0.05, **params)
    found = solve(explainer, lambda z: z @ np.arange(1.0, n_features + 1), n_features)
    if name == "kernel_shap":
        np.testing.assert_allclose(found.values[0], np.arange(1.0, n_features + 1), atol=1e-9)
    pool = CoalitionPool(n_features)
    while len(rows := explainer.ask(pool)):
        pool.tell(rows, np.zeros(len(rows)))
    assert len(explainer.used(pool)) == len(pool)


@pytest.mark.parametrize("name", ["kernel_shap", "lime"])
def test_more_features_than_floats_have_powers_of_two(name: str) -> None:
    n_features = 1030
    weights = np.random.default_rng(3).normal(size=n_features)
    explainer = build(name, num_samples=4 * n_features + 8, relative_error=1e-3)
    found = solve(explainer, lambda z: np.tanh(z @ weights), n_features)
    assert found.diagnostics["stopped"] == "budget"
    ratio = found.diagnostics["relative_error"] / 1e-3
    assert found.diagnostics["forecast"] == pytest.approx(found.evaluations * ratio**2, rel=1e-3)


def test_a_constant_needs_one_round() -> None:
    found = solve(build("kernel_shap", relative_error=0.05), lambda z: np.zeros(len(z)), 12)
    assert found.diagnostics["rounds"] == 1
    assert (found.values == 0).all()


@pytest.mark.parametrize("value", [0, 1, -0.1, "5%", True])
def test_impossible_tolerances_are_refused(value: object) -> None:
    for name in ("kernel_shap", "lime"):
        with pytest.raises(ConfigError, match=f"{name}: relative_error must be a number between"):
            build(name, relative_error=value)


def test_compat_profiles_keep_their_budget() -> None:
    with pytest.raises(ConfigError, match="relative_error belong"):
        build("kernel_shap", compat="shap", relative_error=0.1)
    with pytest.raises(ConfigError, match="relative_error belongs"):
        build("lime", compat="lime", relative_error=0.1)
