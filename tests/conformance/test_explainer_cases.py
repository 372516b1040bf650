"""Cases from the test suites of shap, captum, lime and shapiq, with analytic games.

The numbers T1…T22 are those of the project's list of conformance cases.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.explainers import build, solve
from engine.pool import keys
from engine.target import transform

Game = Callable[[np.ndarray], np.ndarray]

SHAPLEY = [
    ("exact", {}),
    ("kernel_shap", {}),
    ("kernel_shap", {"compat": "shap", "l1_reg": False}),
    ("permutation_shap", {}),
]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _interacting(n: int) -> Game:
    weights = np.array([(-1) ** i * (i + 1) / n for i in range(n)])
    return lambda z: _sigmoid(
        z @ weights + 1.5 * z[:, 0] * z[:, 1] - 0.7 * z[:, 2] * z[:, 3] * z[:, 4]
    )


@pytest.mark.parametrize(("name", "params"), [*SHAPLEY, ("lime", {}), ("occlusion", {})])
def test_t1_a_constant_model_has_no_attribution(name: str, params: dict) -> None:
    result = solve(build(name, **params), lambda z: np.full(len(z), 0.3), 6)
    np.testing.assert_allclose(result.values, 0, atol=1e-10)


@pytest.mark.parametrize(("name", "params"), [*SHAPLEY, ("occlusion", {})])
def test_t2_a_linear_model_has_its_own_terms(name: str, params: dict) -> None:
    random = np.random.default_rng(0)
    x, mean, weights = random.normal(size=(3, 10))
    linear = lambda z: np.where(z, x, mean) @ weights + 2.0  # noqa: E731
    result = solve(build(name, **params), linear, 10)
    np.testing.assert_allclose(result.values[0], (x - mean) * weights, atol=1e-6)


@pytest.mark.parametrize(("name", "params"), SHAPLEY)
def test_t3_values_and_base_sum_to_the_output_of_every_class(name: str, params: dict) -> None:
    weights = np.random.default_rng(1).normal(size=(9, 4))

    def softmax(z: np.ndarray) -> np.ndarray:
        scores = np.exp(z @ weights)
        return scores / scores.sum(axis=1, keepdims=True)

    result = solve(build(name, **params), softmax, 9)
    total = result.base + result.values.sum(axis=1)
    np.testing.assert_allclose(total, softmax(np.ones((1, 9)))[0], atol=1e-9)
    np.testing.assert_allclose(result.residual, 0, atol=1e-9)


@pytest.mark.parametrize(("name", "params"), [*SHAPLEY, ("lime", {}), ("occlusion", {})])
def test_t4_probabilities_of_zero_and_one_stay_finite_as_log_odds(name: str, params: dict) -> None:
    def certain(z: np.ndarray) -> np.ndarray:
        positive = z[:, 0] | z[:, 3]
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.stack([~positive, positive], axis=1).astype(float))
        return transform(log_probs, "log_odds")

    result = solve(build(name, **params), certain, 5)
    assert np.isfinite(result.values).all()
    assert np.isfinite(result.base).all()
    if name != "occlusion":  # one of the two is enough, so leaving one out loses nothing
        assert result.values[1, 0] > 0 > result.values[0, 0]


def test_t6_one_order_and_its_reverse_are_exact_for_pairwise_interactions() -> None:
    def second_order(z: np.ndarray) -> np.ndarray:
        return 1.0 * z[:, 0] * z[:, 2] + z[:, 1] + z[:, 2] + z[:, 2] * z[:, 3]

    for seed in range(5):
        result = solve(build("permutation_shap", num_samples=8, seed=seed), second_order, 4)
        assert result.evaluations == 8
        assert result.diagnostics["permutations"] == 2
        np.testing.assert_allclose(result.values, [[0.5, 1.0, 2.0, 0.5]], atol=1e-10)


def _captum_model(x: np.ndarray) -> np.ndarray:
    hidden = x.sum(axis=1, keepdims=True) + np.array([-10.0, 1.0, 1.0, 1.0])
    return np.maximum(hidden, 0).sum(axis=1) - 1


@pytest.mark.parametrize(("name", "params"), SHAPLEY)
@pytest.mark.parametrize(
    ("x", "baseline", "groups", "expected"),
    [
        ([20, 50, 30], [0, 0, 0], [0, 1, 2], [76.66667, 196.66667, 116.66667]),
        ([20, 50, 30], [10, 20, 10], [0, 1, 2], [40, 120, 80]),
        ([20, 50, 30], [0, 0, 0], [0, 0, 1], [275, 275, 115]),
        ([20, 50, 30], [4, 4, 4], [0, 0, 1], [248, 248, 104]),
        ([2, 10, 3], [0, 0, 0], [0, 1, 2], [7, 32.5, 10.5]),
    ],
)
def test_t9_captum(
    name: str, params: dict, x: list, baseline: list, groups: list, expected: list
) -> None:
    game = lambda z: _captum_model(np.where(z[:, groups], x, baseline))  # noqa: E731
    result = solve(build(name, **params), game, max(groups) + 1)
    np.testing.assert_allclose(result.values[0, groups], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("lime", {"num_samples": 60}),
        ("lime", {"num_samples": 60, "compat": "lime"}),
        ("kernel_shap", {"num_samples": 60}),
        ("kernel_shap", {"num_samples": 60, "compat": "shap"}),
        ("permutation_shap", {"num_samples": 60}),
        ("random", {}),
    ],
)
def test_t14_the_same_seed_gives_the_same_values_and_another_does_not(
    name: str, params: dict
) -> None:
    game = _interacting(10)
    first, again, other = (solve(build(name, seed=s, **params), game, 10) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.values, again.values)
    assert np.abs(first.values - other.values).max() > 1e-3


@pytest.mark.parametrize(("name", "params"), SHAPLEY)
def test_t16_dummy_game(name: str, params: dict) -> None:
    game = lambda z: z.sum(axis=1) / 7 + 1.0 * z[:, 1] * z[:, 2]  # noqa: E731
    result = solve(build(name, **params), game, 7)
    expected = np.full(7, 1 / 7)
    expected[[1, 2]] += 0.5
    np.testing.assert_allclose(result.values[0], expected, atol=1e-10)
    assert result.values.sum() == pytest.approx(2.0, abs=1e-10)


@pytest.mark.parametrize("name", ["kernel_shap", "permutation_shap", "lime"])
@pytest.mark.parametrize("n_features", [2, 5, 11, 24])
def test_t17_the_budget_is_never_exceeded(name: str, n_features: int) -> None:
    for budget in range(2 * n_features + 2, 2 * n_features + 300, 13):
        asked: set[bytes] = set()

        def game(z: np.ndarray, asked: set[bytes] = asked) -> np.ndarray:
            asked.update(keys(z))
            return z.sum(axis=1) ** 2.0

        result = solve(build(name, num_samples=budget), game, n_features)
        assert len(asked) == result.evaluations <= budget


def test_t19_and_t20_shap_leaks_the_even_part_of_an_even_number_of_features_and_we_do_not() -> None:
    weights = np.random.default_rng(2).normal(size=(12, 4))
    even = lambda z: np.cos((z - 0.5) @ weights).sum(axis=1)  # noqa: E731
    ours = solve(build("kernel_shap", num_samples=200), even, 12)
    np.testing.assert_allclose(ours.values, 0, atol=1e-8)
    theirs = solve(build("kernel_shap", num_samples=200, compat="shap", l1_reg=False), even, 12)
    assert np.abs(theirs.values).max() > 1e-3


@pytest.mark.parametrize("name", ["exact", "kernel_shap"])
@pytest.mark.parametrize(
    ("n", "golden"),
    [
        (5, [0.197065, 0.058573, 0.076444, -0.186817, 0.156918]),
        (8, [0.18542, 0.106102, 0.030042, -0.151209, 0.083459, -0.157856, 0.187712, -0.209226]),
    ],
)
def test_golden_exact_values(name: str, n: int, golden: list[float]) -> None:
    result = solve(build(name), _interacting(n), n)
    np.testing.assert_allclose(result.values[0], golden, atol=1e-6)
    if n == 5:
        assert result.values.sum() == pytest.approx(0.302184, abs=1e-6)


def test_golden_kernel_shap_of_100_evaluations() -> None:
    explainer = build("kernel_shap", num_samples=100, seed=0, compat="shap", l1_reg=False)
    result = solve(explainer, _interacting(8), 8)
    golden = [0.198358, 0.102243, 0.020971, -0.1474, 0.081459, -0.171522, 0.191651, -0.201317]
    np.testing.assert_allclose(result.values[0], golden, atol=1e-6)
    assert result.values.sum() == pytest.approx(0.074443, abs=1e-6)


@pytest.mark.parametrize(("n", "error"), [(20, 0.50), (40, 1.28), (60, 2.53)])
def test_the_ten_features_of_shap_are_off_where_all_features_are_exact(
    n: int, error: float
) -> None:
    truth = np.arange(1, n + 1) / n
    game = lambda z: z @ truth  # noqa: E731
    ours = solve(build("kernel_shap"), game, n)
    np.testing.assert_allclose(ours.values[0], truth, atol=1e-10)
    theirs = solve(build("kernel_shap", compat="shap"), game, n)
    assert np.count_nonzero(theirs.values) == 10
    assert np.abs(theirs.values[0] - truth).max() == pytest.approx(error, abs=0.02)
