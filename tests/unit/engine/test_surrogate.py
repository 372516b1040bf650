from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from engine.surrogate import (
    constrained_least_squares,
    scatter,
    weighted_r2,
    weighted_ridge,
)

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def data() -> Data:
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (60, 5)).astype(float)
    y = random.normal(size=(60, 3)) + x @ random.normal(size=(5, 3))
    return x, y, random.uniform(0.1, 2, 60)


@pytest.mark.parametrize("penalty", [0.0, 0.04, 1.0, 50.0])
def test_weighted_ridge_equals_scikit_learn(data: Data, penalty: float) -> None:
    x, y, weights = data
    fit = weighted_ridge(x, y, weights, penalty)
    for label in range(3):
        peer = Ridge(alpha=penalty).fit(x, y[:, label], sample_weight=weights)
        np.testing.assert_allclose(fit.coef[label], peer.coef_, atol=1e-10)
        assert fit.intercept[label] == pytest.approx(peer.intercept_, abs=1e-10)
        score = peer.score(x, y[:, label], sample_weight=weights)
        assert fit.r2[label] == pytest.approx(score, abs=1e-10)


def test_a_row_with_weight_m_is_m_rows(data: Data) -> None:
    x, y, _ = data
    counts = np.arange(60) % 4 + 1.0
    repeated = np.repeat(np.arange(60), counts.astype(int))
    whole = weighted_ridge(x, y, counts, 1.0, counts)
    rows = weighted_ridge(x[repeated], y[repeated], np.ones(len(repeated)), 1.0)
    np.testing.assert_allclose(whole.coef, rows.coef, atol=1e-12)
    np.testing.assert_allclose(
        scatter(whole.influence, whole.residuals, counts),
        scatter(rows.influence, rows.residuals, np.ones(len(repeated))),
        rtol=1e-9,
    )


def test_residuals_are_those_of_leaving_the_row_out(data: Data) -> None:
    x, y, weights = data
    fit = weighted_ridge(x, y, weights, 0.0)
    for row in (0, 17):
        rest = np.delete(np.arange(60), row)
        peer = LinearRegression().fit(x[rest], y[rest], sample_weight=weights[rest])
        np.testing.assert_allclose(fit.residuals[row], y[row] - peer.predict(x[[row]])[0])


def test_constrained_least_squares_solves_the_kkt_system(data: Data) -> None:
    x, y, weights = data
    total = np.array([1.0, -2.0, 0.0])
    fit = constrained_least_squares(x, y, weights, total)
    gram, ones = x.T @ (weights[:, None] * x), np.ones((5, 1))
    system = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])
    expected = np.linalg.solve(system, np.vstack([x.T @ (weights[:, None] * y), total]))[:5]
    np.testing.assert_allclose(fit.coef, expected.T, atol=1e-12)
    np.testing.assert_allclose(fit.coef.sum(axis=1), total, atol=1e-12)


def test_constrained_influence_is_the_derivative_by_the_target(data: Data) -> None:
    x, y, weights = data
    total = np.zeros(3)
    fit = constrained_least_squares(x, y, weights, total)
    moved = y.copy()
    moved[7] += 1.0
    difference = constrained_least_squares(x, moved, weights, total).coef - fit.coef
    np.testing.assert_allclose(difference, np.tile(fit.influence[7], (3, 1)), atol=1e-12)


def test_one_coefficient_takes_the_whole_total() -> None:
    fit = constrained_least_squares(np.zeros((0, 1)), np.zeros((0, 2)), np.zeros(0), np.ones(2))
    assert fit.coef.tolist() == [[1.0], [1.0]]


def test_singular_equations_have_a_finite_solution_with_the_right_total() -> None:
    x = np.array([[1.0, 0, 0, 0], [0, 1.0, 1.0, 1.0]])
    fit = constrained_least_squares(x, np.array([[1.0], [2.0]]), np.ones(2), np.array([3.0]))
    assert np.isfinite(fit.coef).all()
    assert fit.coef.sum() == pytest.approx(3.0)
    np.testing.assert_allclose(x @ fit.coef[0], [1.0, 2.0], atol=1e-12)
    unpenalised = weighted_ridge(x, np.array([[1.0], [2.0]]), np.ones(2), 0.0)
    np.testing.assert_allclose(x @ unpenalised.coef[0] + unpenalised.intercept, [1.0, 2.0])


def test_r2_of_a_constant_is_one() -> None:
    y = np.full((4, 2), 0.1 + 0.2)
    assert weighted_r2(y, np.zeros((4, 2)), np.full(4, 0.3)).tolist() == [1.0, 1.0]
    assert weighted_r2(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)).tolist() == [1.0, 1.0]


def test_sandwich_of_a_mean_is_its_squared_standard_error() -> None:
    y = np.array([[1.0], [2.0], [4.0], [9.0]])
    influence = np.full((4, 1), 1 / 4)
    variance = scatter(influence, y - y.mean(), np.ones(4))
    assert variance[0, 0] == pytest.approx(y.var(ddof=1) / 4)
    assert scatter(influence[:1], y[3:], np.ones(1))[0, 0] == pytest.approx((9 / 4) ** 2)
