from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ExampleError
from engine.explainers import build, solve
from engine.pool import CoalitionPool


def _third_order(z: np.ndarray) -> np.ndarray:
    return (
        z @ np.linspace(-1, 1, 12) + 2.0 * z[:, [0, 5, 7]].all(axis=1) - 3.0 * z[:, 1:5].all(axis=1)
    )


def test_standard_error_is_that_of_many_seeds() -> None:
    truth = solve(build("exact"), _third_order, 12).values[0]
    runs = [
        solve(build("permutation_shap", num_samples=2 + 22 * 10, seed=seed), _third_order, 12)
        for seed in range(150)
    ]
    errors = np.array([run.values[0] - truth for run in runs])
    claimed = np.array([run.std_error[0] for run in runs])
    assert np.abs(errors.mean(axis=0)).max() < 4 * errors.std() / np.sqrt(150)
    assert np.sqrt((claimed**2).mean() / (errors**2).mean()) == pytest.approx(1, abs=0.1)


def test_one_pair_has_no_standard_error() -> None:
    assert solve(build("permutation_shap", num_samples=24), _third_order, 12).std_error is None
    two = solve(build("permutation_shap", num_samples=2 + 44), _third_order, 12)
    assert two.diagnostics["permutations"] == 4
    assert two.std_error.shape == (1, 12)


def test_a_larger_budget_adds_to_the_orders_of_a_smaller_one() -> None:
    asked = [build("permutation_shap", num_samples=n).ask(CoalitionPool(12)) for n in (90, 200)]
    known = {row.tobytes() for row in asked[1]}
    assert all(row.tobytes() in known for row in asked[0])


def test_exact_where_the_budget_covers_all() -> None:
    small = lambda z: _third_order(np.pad(z, ((0, 0), (0, 4))))  # noqa: E731
    result = solve(build("permutation_shap", num_samples=256), small, 8)
    np.testing.assert_allclose(result.values, solve(build("exact"), small, 8).values, atol=1e-12)
    assert result.diagnostics["exact"]


def test_too_small_a_budget_is_refused() -> None:
    with pytest.raises(ExampleError, match="smallest that works is 24"):
        build("permutation_shap", num_samples=23).ask(CoalitionPool(12))
