from __future__ import annotations

import math

import numpy as np
import pytest

from engine.errors import ExampleError
from engine.explainers import build, solve
from engine.explainers.pairs import paired_design
from engine.pool import CoalitionPool, keys

WEIGHTS = np.random.default_rng(1).normal(size=(12, 8)) / 2


def _game(z: np.ndarray) -> np.ndarray:
    return np.tanh(((z - 0.5) @ WEIGHTS[: z.shape[1]]) * 1.5 + 0.3).sum(axis=1)


@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 7, 10])
def test_exact_where_the_budget_covers_all(n_features: int) -> None:
    result = solve(build("kernel_shap", num_samples=2**n_features), _game, n_features)
    truth = solve(build("exact"), _game, n_features)
    np.testing.assert_allclose(result.values, truth.values, atol=1e-10)
    assert result.evaluations == 2**n_features
    assert result.diagnostics["exact"]
    assert (result.std_error == 0).all()


def test_error_falls_with_the_budget_and_beats_the_permutations() -> None:
    truth = solve(build("exact"), _game, 12).values

    def error(name: str, budget: int) -> float:
        runs = [solve(build(name, num_samples=budget, seed=s), _game, 12) for s in range(20)]
        return float(np.median([np.linalg.norm(run.values - truth) for run in runs]))

    errors = [error("kernel_shap", budget) for budget in (80, 320, 1280)]
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.7 * errors[1]
    assert errors[1] < error("permutation_shap", 320)


@pytest.mark.parametrize("budget", [100, 400])
def test_standard_error_is_that_of_many_seeds(budget: int) -> None:
    truth = solve(build("exact"), _game, 12).values[0]
    runs = [solve(build("kernel_shap", num_samples=budget, seed=s), _game, 12) for s in range(150)]
    errors = np.array([run.values[0] - truth for run in runs])
    claimed = np.array([run.std_error[0] for run in runs])
    ratio = np.sqrt((claimed**2).mean() / (errors**2).mean())
    assert 0.9 < ratio < 1.3
    assert (np.abs(errors) < 1.96 * claimed).mean() > 0.92


def test_too_few_drawn_pairs_have_no_standard_error() -> None:
    assert solve(build("kernel_shap", num_samples=26), _game, 12).std_error is None
    assert solve(build("kernel_shap", num_samples=40), _game, 12).std_error is None


@pytest.mark.parametrize(
    ("n_features", "n_pairs"), [(6, 13), (8, 30), (12, 12), (12, 60), (13, 300), (25, 70), (40, 40)]
)
def test_designs_have_their_pairs_once_and_the_kernel_mass(n_features: int, n_pairs: int) -> None:
    design = paired_design(0, n_features, n_pairs)
    half = design.coalitions
    assert len(half) == n_pairs
    assert len(set(keys(half)) | set(keys(~half))) == 2 * n_pairs
    sizes = half.sum(axis=1)
    assert (sizes >= 1).all()
    assert (2 * sizes <= n_features).all()
    assert (design.weights > 0).all()
    covered = sum(s.rows.stop - s.rows.start for s in design.strata)
    assert design.enumerated + covered == n_pairs
    for size in range(1, n_features // 2 + 1):
        if (sizes == size).sum() == math.comb(n_features, size) and 2 * size < n_features:
            mass = design.weights[sizes == size].sum()
            total = sum(
                (1 if 2 * s == n_features else 2) / (s * (n_features - s))
                for s in range(1, n_features // 2 + 1)
            )
            assert mass == pytest.approx(2 / (size * (n_features - size)) / total)


def test_a_larger_design_has_nearly_all_pairs_of_a_smaller_one() -> None:
    for n_features, few, many in ((12, 60, 90), (20, 100, 150), (30, 200, 400)):
        small = set(keys(paired_design(4, n_features, few).coalitions))
        large = set(keys(paired_design(4, n_features, many).coalitions))
        assert len(small & large) >= 0.97 * few


@pytest.mark.parametrize(("sampling", "ratio"), [("own", 0.75), ("pool", 0.9)])
def test_a_surrogate_of_interactions_is_nearer_than_a_linear_one(
    sampling: str, ratio: float
) -> None:
    truth = solve(build("exact"), _game, 12)
    errors = []
    for seed in range(10):
        same = {"num_samples": 120, "seed": seed, "sampling": sampling}
        plain = solve(build("kernel_shap", **same), _game, 12)
        found = solve(build("kernel_shap", surrogate="gaussian_process", **same), _game, 12)
        assert found.evaluations == plain.evaluations
        assert found.residual[0] == pytest.approx(0, abs=1e-9)
        assert 0 < found.r2[0] < 1
        errors.append([np.linalg.norm(r.values - truth.values) for r in (plain, found)])
    linear, ours = np.median(errors, axis=0)
    assert ours < ratio * linear


def test_a_surrogate_is_exact_where_the_budget_covers_all() -> None:
    found = solve(build("kernel_shap", surrogate="gaussian_process"), _game, 8)
    np.testing.assert_allclose(found.values, solve(build("exact"), _game, 8).values, atol=1e-7)
    assert found.diagnostics["exact"]
    assert (found.std_error == 0).all()
    assert found.evaluations == 2**8
    assert len(build("kernel_shap", surrogate="gaussian_process").ask(CoalitionPool(20))) == 1044


def test_drawn_weight_is_right_in_expectation() -> None:
    size_mass = np.zeros(13)
    for seed in range(400):
        design = paired_design(seed, 25, 80)
        size_mass += np.bincount(design.coalitions.sum(axis=1), design.weights, minlength=13) / 400
    expected = np.array([2 / (s * (25 - s)) for s in range(1, 13)])
    np.testing.assert_allclose(size_mass[1:], expected / expected.sum(), rtol=0.1)


def test_the_middle_size_is_drawn_without_repeats_and_without_preference() -> None:
    times = np.zeros(8)
    for seed in range(300):
        design = paired_design(seed, 8, 60)
        middle = design.coalitions[design.coalitions.sum(axis=1) == 4]
        assert middle[:, 0].all()
        assert len(np.unique(middle, axis=0)) == len(middle)
        times += middle.sum(axis=0)
    np.testing.assert_allclose(times[1:] / times[0], 3 / 7, rtol=0.1)


@pytest.mark.parametrize(("n_features", "smallest"), [(1, 2), (2, 4), (3, 8), (4, 10), (20, 42)])
def test_smallest_budget(n_features: int, smallest: int) -> None:
    weights = np.arange(1.0, n_features + 1)
    result = solve(build("kernel_shap", num_samples=smallest), lambda z: z @ weights, n_features)
    np.testing.assert_allclose(result.values[0], weights, atol=1e-10)
    assert result.evaluations == smallest
    with pytest.raises(ExampleError, match=f"smallest that works is {smallest}"):
        build("kernel_shap", num_samples=smallest - 1).ask(CoalitionPool(n_features))


def test_default_budget_is_that_of_shap() -> None:
    assert len(build("kernel_shap").ask(CoalitionPool(20))) == 2 * 20 + 2048
    compat = build("kernel_shap", compat="shap")
    assert len(compat.ask(CoalitionPool(20))) == 2 * 20 + 2048 + 2


@pytest.mark.parametrize(("n_features", "samples"), [(20, 1044), (1022, 2046), (1100, 2202)])
def test_the_default_budget_of_a_surrogate_suffices(n_features: int, samples: int) -> None:
    explainer = build("kernel_shap", surrogate="gaussian_process", sampling="pool")
    assert explainer.pool_samples(n_features) == samples
    assert len(explainer.ask(CoalitionPool(n_features))) == samples


@pytest.mark.parametrize("sampling", ["own", "pool"])
@pytest.mark.parametrize("budget", [{}, {"num_samples": 4098}, {"relative_error": 0.1}])
def test_a_text_too_long_for_a_surrogate_says_so(sampling: str, budget: dict) -> None:
    explainer = build("kernel_shap", surrogate="gaussian_process", sampling=sampling, **budget)
    with pytest.raises(ExampleError, match="may have 2048 features, this one has 2049") as caught:
        explainer.ask(CoalitionPool(2049))
    assert caught.value.code == "too_many_features"
    assert explainer.pool_samples(2049) == 0
    if sampling == "pool" and "relative_error" not in budget:
        assert len(explainer.ask(CoalitionPool(2048))) == 4098


def test_hundreds_of_features() -> None:
    weights = np.linspace(-1, 1, 300)
    result = solve(build("kernel_shap", num_samples=1500), lambda z: z @ weights, 300)
    np.testing.assert_allclose(result.values[0], weights, atol=1e-9)


def test_compat_information_criteria_need_more_samples_than_unknowns() -> None:
    explainer = build("kernel_shap", num_samples=5, compat="shap", l1_reg="aic")
    with pytest.raises(ExampleError, match="smallest that works is 11"):
        explainer.ask(CoalitionPool(20))
