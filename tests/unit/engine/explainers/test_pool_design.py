from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.explainers import build, solve
from engine.explainers.pairs import pair_sizes
from engine.explainers.pool_design import PERMUTED, pool_design, size_sequence, smallest
from engine.pool import CoalitionPool, keys

SHARING = ("lime", "kernel_shap")


def golden(n_features: int) -> Callable[[np.ndarray], np.ndarray]:
    """σ(Σ a_i z_i + 1.5 z₀z₁ − 0.7 z₂z₃z₄) with alternating, growing weights."""
    a = np.array([(-1) ** i * (i + 1) / n_features for i in range(n_features)])

    def value(z: np.ndarray) -> np.ndarray:
        inner = z @ a + 1.5 * z[:, 0] * z[:, 1] - 0.7 * z[:, 2] * z[:, 3] * z[:, 4]
        return 1 / (1 + np.exp(-inner))

    return value


def _members(seed: int, n_features: int, num_samples: int) -> set[bytes]:
    half = pool_design(seed, n_features, num_samples).coalitions
    return set(keys(half)) | set(keys(~half))


@settings(deadline=None)
@given(st.integers(1, 14), st.integers(0, 400), st.integers(0, 2**32))
def test_a_pool_has_pairs_once_with_all_leave_one_out(n: int, extra: int, seed: int) -> None:
    budget = smallest(n) + extra
    design = pool_design(seed, n, budget)
    n_pairs = min(budget // 2, 2 ** (n - 1)) - 1
    members = _members(seed, n, budget)
    assert len(design.coalitions) == n_pairs
    assert len(members) == 2 * n_pairs
    if n > 1:
        assert set(keys(np.eye(n, dtype=bool))) | set(keys(~np.eye(n, dtype=bool))) <= members
    np.testing.assert_array_equal(design.coalitions.sum(axis=1), design.sizes)
    np.testing.assert_array_equal(np.bincount(design.sizes, minlength=n // 2 + 1)[1:], design.drawn)
    whole = design.drawn == np.array(design.pairs)
    assert design.enumerated == design.drawn[whole].sum()
    covered = sum(s.rows.stop - s.rows.start for s in design.strata)
    assert design.enumerated + covered == n_pairs
    assert design.exact == (budget >= 2**n or n_pairs == 2 ** (n - 1) - 1)


@settings(deadline=None)
@given(st.integers(2, 16), st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
def test_a_larger_budget_adds_to_a_smaller_one(n: int, extra: int, more: int, seed: int) -> None:
    small, large = smallest(n) + extra, smallest(n) + extra + more
    assert _members(seed, n, small) <= _members(seed, n, large)
    drawn = [pool_design(seed, n, budget).drawn for budget in (small, large)]
    assert (drawn[0] <= drawn[1]).all()


def test_sizes_are_as_even_as_possible() -> None:
    design = pool_design(0, 20, 512)
    # a pair of the middle size has two coalitions of that size
    coalitions = np.append(design.drawn[1:-1], 2 * design.drawn[-1])
    assert coalitions.max() - coalitions.min() <= 2
    assert design.drawn[0] == 20
    # 45 pairs of size 2 are fewer than its share
    few = pool_design(0, 10, 400)
    assert few.drawn[1] == 45
    assert abs(few.drawn[2] - few.drawn[3]) <= 1


@pytest.mark.parametrize("n_features", [9, 10, 24])
def test_every_coalition_of_a_size_is_as_likely(n_features: int) -> None:
    size = n_features // 2
    pairs = pair_sizes(n_features).pairs[size - 1]
    assert (pairs > PERMUTED) == (n_features == 24)
    together = np.zeros((n_features, n_features))
    for seed in range(300):
        half = size_sequence(seed, n_features, size, 20).astype(float)
        other = 1 - half
        together += half.T @ half / (300 * 20)
        if 2 * size == n_features:
            together += other.T @ other / (300 * 20)
    drawn = 2 if 2 * size == n_features else 1
    alone = drawn * size / n_features
    both = alone * (size - 1) / (n_features - 1)
    expected = np.full((n_features, n_features), both) + np.eye(n_features) * (alone - both)
    np.testing.assert_allclose(together, expected, rtol=0.12)


def test_means_over_a_size_are_unbiased() -> None:
    value = golden(12)
    for size in (3, 6):
        every = size_sequence(0, 12, size, pair_sizes(12).pairs[size - 1])
        every = np.concatenate([every, ~every]) if size == 6 else every
        assert len(set(keys(every))) == math.comb(12, size)
        truth = value(every).mean()
        means = []
        for seed in range(400):
            half = size_sequence(seed, 12, size, 10)
            means.append(value(np.concatenate([half, ~half]) if size == 6 else half).mean())
        assert abs(np.mean(means) - truth) < 4 * np.std(means) / 20


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 300), st.integers(0, 9))
def test_weights_share_out_the_whole_mass(n: int, extra: int, seed: int) -> None:
    design = pool_design(seed, n, smallest(n) + extra)
    mass = np.arange(1.0, n // 2 + 1)
    weights = design.weights(mass)
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(mass.sum())
    if (design.drawn > 0).all():
        for size, of in enumerate(mass, 1):
            assert weights[design.sizes == size].sum() == pytest.approx(of)


def test_mass_of_a_size_without_pairs_goes_to_the_nearest_drawn_one() -> None:
    design = pool_design(0, 13, 28 + 4)
    assert design.drawn.tolist() == [13, 0, 1, 0, 1, 0]
    weights = design.weights(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    by_size = {s: weights[design.sizes == s].sum() for s in (1, 3, 5)}
    assert by_size == pytest.approx({1: 1.0, 3: 9.0, 5: 11.0})


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 8, 11])
def test_all_coalitions_give_what_enumeration_gives(name: str, n_features: int) -> None:
    table = np.random.default_rng(n_features).normal(size=(2**n_features, 2))

    def value(z: np.ndarray) -> np.ndarray:
        return table[z @ 2 ** np.arange(n_features)]

    own, pooled = (
        solve(build(name, num_samples=2**n_features, sampling=s), value, n_features)
        for s in ("own", "pool")
    )
    np.testing.assert_allclose(pooled.values, own.values, atol=1e-10)
    np.testing.assert_allclose(pooled.base, own.base, atol=1e-10)
    assert pooled.evaluations == own.evaluations == 2**n_features
    assert pooled.diagnostics["exact"]
    assert pooled.diagnostics["sampling"] == "pool"
    assert (pooled.std_error == 0).all()


def test_explainers_of_one_seed_share_their_coalitions() -> None:
    pool = CoalitionPool(16)
    for name, new in (("kernel_shap", 512), ("lime", 0), ("occlusion", 0)):
        params = {} if name == "occlusion" else {"num_samples": 512, "sampling": "pool"}
        asked = build(name, seed=5, **params).ask(pool)
        assert len(asked) == new
        pool.tell(asked, golden(16)(asked))
    smaller = build("lime", seed=5, num_samples=200, sampling="pool")
    assert not len(smaller.ask(pool))
    assert smaller.fit(pool).evaluations == 200
    assert len(build("lime", seed=6, num_samples=512, sampling="pool").ask(pool)) > 300


def test_even_games_stay_invisible() -> None:
    weights = np.random.default_rng(0).normal(size=(9, 20))

    def even(z: np.ndarray) -> np.ndarray:
        return np.cos((2.0 * z - 1) @ weights.T).sum(axis=1)

    for seed in range(5):
        found = solve(build("kernel_shap", num_samples=300, seed=seed, sampling="pool"), even, 20)
        assert np.abs(found.values).max() < 1e-10


@pytest.mark.parametrize(("n_features", "budget"), [(8, 64), (10, 200), (13, 200), (14, 400)])
def test_errors_are_those_of_the_own_samplers_or_smaller(n_features: int, budget: int) -> None:
    value = golden(n_features)
    for name, limit in (("kernel_shap", 1.25), ("lime", 1.05)):
        truth = solve(build(name, num_samples=2**n_features), value, n_features).values
        error = {}
        for sampling in ("own", "pool"):
            found = [
                solve(build(name, num_samples=budget, seed=s, sampling=sampling), value, n_features)
                for s in range(80)
            ]
            error[sampling] = np.median([np.linalg.norm(f.values - truth) for f in found])
        assert error["pool"] < limit * error["own"]


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize(("n_features", "budget"), [(10, 80), (12, 400)])
def test_standard_error_is_that_of_many_seeds(name: str, n_features: int, budget: int) -> None:
    value = golden(n_features)
    truth = solve(build(name, num_samples=2**n_features), value, n_features).values[0]
    runs = [
        solve(build(name, num_samples=budget, seed=s, sampling="pool"), value, n_features)
        for s in range(150)
    ]
    errors = np.array([run.values[0] - truth for run in runs])
    claimed = np.array([run.std_error[0] for run in runs])
    assert 0.85 < np.sqrt((claimed**2).mean() / (errors**2).mean()) < 1.25
    assert (np.abs(errors) < 1.96 * claimed).mean() > 0.9


def test_lime_keeps_its_own_sampler_where_a_pool_is_too_small_for_it() -> None:
    value = golden(20)
    for budget, sampling in ((159, "own"), (160, "pool")):
        lime = build("lime", num_samples=budget, seed=1, sampling="pool")
        assert lime.pool_samples(20) == (budget if sampling == "pool" else 0)
        found = solve(lime, value, 20)
        assert found.diagnostics["sampling"] == sampling
    assert build("kernel_shap", num_samples=41, sampling="pool").pool_samples(20) == 0
    assert build("kernel_shap", num_samples=42, sampling="pool").pool_samples(20) == 42
    assert build("kernel_shap", sampling="pool").pool_samples(20) == 2088
    assert build("kernel_shap").pool_samples(20) == build("exact").pool_samples(20) == 0


def test_hundreds_of_features() -> None:
    weights = np.linspace(-1, 1, 300)
    shap = build("kernel_shap", num_samples=900, sampling="pool")
    found = solve(shap, lambda z: z @ weights, 300)
    np.testing.assert_allclose(found.values[0], weights, atol=1e-9)


@pytest.mark.parametrize(("name", "library"), [("lime", "lime"), ("kernel_shap", "shap")])
def test_compat_profiles_keep_their_sampler(name: str, library: str) -> None:
    with pytest.raises(ConfigError, match=f"doesn't go with `compat: {library}`"):
        build(name, sampling="pool", compat=library)
    with pytest.raises(ConfigError, match="must be one of 'own', 'pool'"):
        build(name, sampling="shared")
