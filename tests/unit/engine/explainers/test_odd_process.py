from __future__ import annotations

import itertools
from decimal import Decimal
from math import comb

import numpy as np
import pytest

from engine.explainers import build, solve
from engine.explainers.coalitions import everything
from engine.explainers.odd_process import Posterior, _part, odd_process
from engine.explainers.spread import spread_pairs
from engine.types import ValueFunction


def odd_terms(n_features: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Return the sets T of odd size and the products of signs [2^F, T] of all coalitions."""
    sets = [
        t
        for size in range(1, n_features + 1, 2)
        for t in itertools.combinations(range(n_features), size)
    ]
    signs = np.where(everything(n_features), 1.0, -1.0)
    return sets, np.stack([signs[:, t].prod(axis=1) for t in map(list, sets)], axis=1)


def drawn_game(seed: int, n_features: int, lam: float) -> np.ndarray:
    """Return the values [2^F] of a game drawn from the prior."""
    sets, products = odd_terms(n_features)
    spread = np.sqrt([lam ** len(t) for t in sets])
    return products @ (spread * np.random.default_rng(seed).normal(size=len(sets)))


def posterior(values: np.ndarray, half: np.ndarray) -> Posterior:
    places = 1 << np.arange(half.shape[1])
    odd = (values[half @ places] - values[~half @ places]) / 2
    columns = odd[:, None] if odd.ndim == 1 else odd
    return odd_process(half, columns, np.atleast_1d(values[-1] - values[0]))


def shapley(values: np.ndarray, n_features: int) -> np.ndarray:
    return solve(build("exact"), game_of(values), n_features).values


def game_of(values: np.ndarray) -> ValueFunction:
    return lambda z: values[z @ (1 << np.arange(z.shape[1]))]


@pytest.mark.parametrize("n_features", [1, 2, 5, 6])
@pytest.mark.parametrize("lam", [0.1, 0.4, 1.0])
def test_covariances_are_the_sums_over_odd_sets(n_features: int, lam: float) -> None:
    sets, products = odd_terms(n_features)
    variances = np.array([lam ** len(t) for t in sets])
    top = variances.sum()
    part = _part(n_features, lam)
    coalitions = everything(n_features)
    distance = (coalitions != coalitions[-1]).sum(axis=1)
    direct = (products * variances) @ products[-1]
    np.testing.assert_allclose(part.by_distance[distance], direct / top, atol=1e-12)
    share = np.array([[2 / len(t) if i in t else 0 for t in sets] for i in range(n_features)])
    cross = (products * variances) @ share.T / top
    size = coalitions.sum(axis=1, keepdims=True)
    ours = np.where(coalitions, part.by_size[size], -part.by_size[n_features - size])
    np.testing.assert_allclose(ours, cross, atol=1e-12)
    assert part.variance == pytest.approx((share[0] ** 2 * variances).sum() / top)


def test_all_pairs_give_the_exact_values() -> None:
    values = np.random.default_rng(0).normal(size=2**7)
    found = posterior(values, everything(7)[1:64])
    np.testing.assert_allclose(found.values, shapley(values, 7), atol=1e-8)
    assert (found.std_error < 1e-6).all()


def test_values_sum_to_what_there_is_to_explain() -> None:
    values = np.random.default_rng(1).normal(size=2**9)
    for n_pairs in (9, 20, 60):
        found = posterior(values, spread_pairs(0, 9, n_pairs))
        assert found.values.sum() == pytest.approx(values[-1] - values[0])


def test_second_order_games_are_exact_from_few_pairs() -> None:
    random = np.random.default_rng(2)
    z = everything(10).astype(float)
    pairwise = random.normal(size=(10, 10))
    values = z @ random.normal(size=10) + np.einsum("ci,ij,cj->c", z, pairwise, z)
    found = posterior(values, spread_pairs(0, 10, 14))
    exact = shapley(values, 10)
    assert np.linalg.norm(found.values - exact) < 0.01 * np.linalg.norm(exact)
    assert found.held_out_r2[0] > 0.99


def test_intervals_of_games_from_the_prior_cover() -> None:
    inside = []
    for seed in range(40):
        values = drawn_game(seed, 9, 0.08)
        found = posterior(values, spread_pairs(seed, 9, 30))
        off = np.abs(found.values[0] - shapley(values, 9)[0])
        inside.append((off < 1.96 * found.std_error[0]).mean())
    assert 0.88 < np.mean(inside) < 0.99


def test_interactions_of_three_are_learned() -> None:
    errors = []
    for seed in range(10):
        values = drawn_game(seed, 9, 0.08)
        half = spread_pairs(seed, 9, 70)
        linear = solve(build("kernel_shap", num_samples=142, seed=seed), game_of(values), 9)
        exact = shapley(values, 9)
        errors.append(
            [
                np.linalg.norm(posterior(values, half).values - exact),
                np.linalg.norm(linear.values - exact),
            ]
        )
    ours, plain = np.median(errors, axis=0)
    assert ours < 0.6 * plain


def test_labels_do_not_disturb_each_other() -> None:
    both = np.stack([drawn_game(s, 8, 0.1) for s in (0, 1)] + [np.zeros(256)], axis=1)
    both[:, 1] *= 1e6
    half = spread_pairs(3, 8, 30)
    together = posterior(both, half)
    for label in (0, 1):
        alone = posterior(both[:, label], half)
        np.testing.assert_allclose(together.values[label], alone.values[0], rtol=1e-9)
        np.testing.assert_allclose(together.std_error[label], alone.std_error[0], rtol=1e-6)
    assert (together.values[2] == 0).all()
    assert (together.std_error[2] == 0).all()
    assert together.held_out_r2[2] == 1


def test_many_rows_and_many_features_stay_finite() -> None:
    weights = np.random.default_rng(4).normal(size=(120, 3))
    half = spread_pairs(0, 120, 150)
    odd = ((2.0 * half - 1) @ weights) / 2
    found = odd_process(half, odd, weights.sum(axis=0))
    np.testing.assert_allclose(found.values, weights.T, atol=0.1)
    assert np.isfinite(found.std_error).all()


def test_a_thousand_features_stay_finite() -> None:
    half = np.eye(20, 1100, dtype=bool)
    found = odd_process(half, half @ np.linspace(-1, 1, 1100)[:, None], np.ones(1))
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.std_error).all()


@pytest.mark.parametrize("n_features", [40, 1100])
@pytest.mark.parametrize("reach", [4.0, None])
def test_the_prior_variance_of_a_value_on_long_texts(n_features: int, reach: float | None) -> None:
    lam = 1.0 if reach is None else reach / n_features
    exact = Decimal(lam)
    numbers = range(1, n_features + 1, 2)
    terms = [Decimal(comb(n_features - 1, t - 1)) * exact**t * 4 / t**2 for t in numbers]
    ratio = (1 - exact) / (1 + exact)
    top = (1 - ratio**n_features) / 2 * (1 + exact) ** n_features
    assert _part(n_features, lam).variance == pytest.approx(float(sum(terms) / top), rel=1e-9)
