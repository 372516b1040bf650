from __future__ import annotations

import numpy as np
import pytest

from engine.control_variate import (
    MOST_GAIN,
    Controlled,
    answer_correlation,
    control_gain,
    unexplained,
    with_control,
)
from engine.explainers import build, solve
from engine.explainers.coalitions import everything
from engine.pool import CoalitionPool
from engine.types import Attribution, ValueFunction

F = 10
WEIGHTS = np.random.default_rng(3).normal(size=(F, 6))
LINEAR = np.random.default_rng(4).normal(size=F)


def _first(z: np.ndarray) -> np.ndarray:
    return np.tanh((z - 0.4) @ WEIGHTS).sum(axis=1)


def _controlled(
    second: ValueFunction, budget: int, known: Attribution, seed: int = 0, **params: object
) -> Controlled:
    explainer = build("kernel_shap", num_samples=budget, seed=seed, **params)
    of_a, of_b = CoalitionPool(F), CoalitionPool(F)
    every, few = everything(F), explainer.ask(CoalitionPool(F))
    of_a.tell(every, _first(every))
    of_b.tell(few, second(few))
    return with_control(explainer, of_b, of_a, known)


@pytest.fixture(scope="module")
def known() -> Attribution:
    return solve(build("exact"), _first, F)


@pytest.mark.parametrize("params", [{}, {"surrogate": "gaussian_process"}])
def test_a_multiple_and_a_linear_game_are_exact_from_few(known: Attribution, params: dict) -> None:
    def second(z: np.ndarray) -> np.ndarray:
        return 2.5 * _first(z) + z @ LINEAR + 1

    found = _controlled(second, 50, known, **params)
    exact = solve(build("exact"), second, F)
    assert found.slope[0] == pytest.approx(2.5)
    assert found.correlation[0] == pytest.approx(1)
    np.testing.assert_allclose(
        found.attribution.values, exact.values, atol=2e-2 if params else 1e-9
    )
    assert found.attribution.base[0] == pytest.approx(exact.base[0])
    assert found.attribution.residual[0] == pytest.approx(0, abs=1e-9)


def test_the_variance_falls_by_one_minus_the_squared_correlation(known: Attribution) -> None:
    other = np.random.default_rng(5).normal(size=(F, 6))

    def second(z: np.ndarray) -> np.ndarray:
        return _first(z) + 0.4 * np.tanh((z - 0.4) @ other).sum(axis=1)

    exact = solve(build("exact"), second, F).values[0]
    squares, claimed, rho = [], [], []
    for seed in range(60):
        alone = solve(build("kernel_shap", num_samples=100, seed=seed), second, F)
        found = _controlled(second, 100, known, seed)
        squares.append(
            [
                ((alone.values[0] - exact) ** 2).sum(),
                ((found.attribution.values[0] - exact) ** 2).sum(),
            ]
        )
        claimed.append((found.attribution.std_error[0] ** 2).sum())
        rho.append(found.correlation[0])
    plain, controlled = np.mean(squares, axis=0)
    assert 0.5 < np.mean(rho) < 0.99
    assert controlled / plain == pytest.approx(1 - np.mean(np.square(rho)), abs=0.1)
    assert np.sqrt(np.mean(claimed) / controlled) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_correlation_and_gain_of_a_linear_relation_with_noise(noise: float) -> None:
    every = everything(F)
    a_CL = unexplained(every, _first(every)[:, None])
    error = np.random.default_rng(8).normal(size=a_CL.shape) * noise * a_CL.std()
    b_CL = unexplained(every, -3 * (_first(every)[:, None] + error) + every @ LINEAR[:, None] + 5)
    rho = answer_correlation(b_CL, a_CL)
    assert rho[0] == pytest.approx(-1 / np.sqrt(1 + noise**2), abs=0.02)
    assert control_gain(rho)[0] == pytest.approx(1 + 1 / noise**2, rel=0.1)


def test_the_gain_is_bounded() -> None:
    assert control_gain(np.array([0.0, 0.6, -1.0])).tolist() == [1.0, 1.5625, MOST_GAIN]


def test_an_unlike_model_does_no_harm(known: Attribution) -> None:
    other = np.random.default_rng(6).normal(size=(F, 6))

    def second(z: np.ndarray) -> np.ndarray:
        return np.tanh((z - 0.4) @ other).sum(axis=1)

    exact = solve(build("exact"), second, F).values
    ratios = []
    for seed in range(20):
        alone = solve(build("kernel_shap", num_samples=150, seed=seed), second, F).values
        found = _controlled(second, 150, known, seed).attribution.values
        ratios.append(np.linalg.norm(found - exact) / np.linalg.norm(alone - exact))
    assert np.median(ratios) < 1.15


def test_the_error_of_the_first_model_counts(known: Attribution) -> None:
    vague = Attribution(known.values, known.base, 9, np.full((1, F), 0.5), known.residual)
    found = _controlled(_first, 60, vague)
    np.testing.assert_allclose(found.attribution.std_error, 0.5, rtol=1e-6)


def test_a_constant_first_model_tells_nothing() -> None:
    constant = Attribution(np.zeros((1, F)), np.zeros(1), 9, np.zeros((1, F)))
    explainer = build("lime", num_samples=80)
    of_a, of_b = CoalitionPool(F), CoalitionPool(F)
    few = explainer.ask(CoalitionPool(F))
    of_a.tell(few, np.zeros(len(few)))
    of_b.tell(few, _first(few))
    found = with_control(explainer, of_b, of_a, constant)
    np.testing.assert_allclose(found.attribution.values, explainer.fit(of_b).values, atol=1e-9)
    assert found.slope[0] == found.correlation[0] == 0
