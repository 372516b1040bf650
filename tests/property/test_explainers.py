"""Axioms that hold for every game, budget and seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.explainers import build, names, solve
from engine.pool import keys
from engine.types import Attribution

SHAPLEY = ("exact", "kernel_shap", "permutation_shap")
ADDITIVE = (*SHAPLEY, "occlusion")

Game = Callable[[np.ndarray], np.ndarray]
Case = tuple[str, dict[str, int | str], int, Game]


def _random_game(seed: int, n_features: int, n_labels: int = 2) -> Game:
    random = np.random.default_rng(seed)
    table = random.normal(size=(2**n_features, n_labels))
    return lambda z: table[z @ 2 ** np.arange(n_features)]


def _params(name: str, n_features: int, extra: int, seed: int) -> dict[str, int]:
    if name in ("exact", "occlusion", "random"):
        return {"seed": seed}
    smallest = min(2 * n_features + 2, 2**n_features)
    return {"seed": seed, "num_samples": max(smallest, n_features + 1) + extra}


@st.composite
def cases(draw: st.DrawFn, methods: tuple[str, ...]) -> Case:
    name = draw(st.sampled_from(methods))
    n_features = draw(st.integers(1, 8))
    seed = draw(st.integers(0, 2**40))
    params: dict[str, int | str] = dict(_params(name, n_features, draw(st.integers(0, 60)), seed))
    if name in ("lime", "kernel_shap"):
        params["sampling"] = draw(st.sampled_from(["own", "pool"]))
    return name, params, n_features, _random_game(draw(st.integers(0, 2**30)), n_features)


@given(cases(tuple(names())))
def test_results_are_finite_and_have_their_shapes(case: Case) -> None:
    name, params, n_features, game = case
    asked: list[bytes] = []

    def counted(z: np.ndarray) -> np.ndarray:
        asked.extend(keys(z))
        return game(z)

    result = solve(build(name, **params), counted, n_features)
    assert result.values.shape == (2, n_features)
    assert result.base.shape == (2,)
    for part in (result.values, result.base, result.std_error, result.residual, result.r2):
        assert part is None or np.isfinite(part).all()
    assert result.evaluations == len(asked) == len(set(asked))
    if "num_samples" in params:
        assert result.evaluations <= params["num_samples"]
    again = solve(build(name, **params), game, n_features)
    np.testing.assert_array_equal(again.values, result.values)


@given(cases(ADDITIVE))
def test_residual_is_what_the_values_leave_over(case: Case) -> None:
    name, params, n_features, game = case
    result = solve(build(name, **params), game, n_features)
    empty, full = game(np.array([[False], [True]]).repeat(n_features, axis=1))
    np.testing.assert_allclose(result.residual, full - empty - result.values.sum(axis=1), atol=1e-9)
    np.testing.assert_allclose(result.base, empty)
    if name in SHAPLEY:
        np.testing.assert_allclose(result.residual, 0, atol=1e-9)


@given(cases((*ADDITIVE, "lime")), st.floats(-5, 5), st.floats(-5, 5))
def test_translation_and_scaling(case: Case, shift: float, factor: float) -> None:
    name, params, n_features, game = case
    plain = solve(build(name, **params), game, n_features)
    moved = solve(build(name, **params), lambda z: factor * game(z) + shift, n_features)
    np.testing.assert_allclose(moved.values, factor * plain.values, atol=1e-8)
    np.testing.assert_allclose(moved.base, factor * plain.base + shift, atol=1e-8)


@given(cases((*ADDITIVE, "lime")), st.integers(0, 2**30))
def test_linearity(case: Case, other_seed: int) -> None:
    name, params, n_features, game = case
    other = _random_game(other_seed, n_features)
    explainer = build(name, **params)
    total = solve(explainer, lambda z: game(z) + other(z), n_features)
    parts = solve(explainer, game, n_features).values + solve(explainer, other, n_features).values
    np.testing.assert_allclose(total.values, parts, atol=1e-8)


@given(cases(("kernel_shap", "permutation_shap", "exact")), st.integers(0, 2**30))
def test_games_that_are_equal_on_complements_change_nothing(case: Case, even_seed: int) -> None:
    name, params, n_features, game = case
    base = _random_game(even_seed, n_features)
    even = lambda z: base(z) + base(~z)  # noqa: E731
    explainer = build(name, **params)
    plain = solve(explainer, game, n_features)
    mixed = solve(explainer, lambda z: game(z) + even(z), n_features)
    np.testing.assert_allclose(mixed.values, plain.values, atol=1e-8)


@given(st.integers(12, 30), st.integers(0, 150), st.integers(0, 1000))
@settings(max_examples=30)
def test_even_games_stay_invisible_with_many_features(n: int, extra: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(n, 5))
    even = lambda z: ((z - 0.5) @ weights * 2).__pow__(2).sum(axis=1)  # noqa: E731
    result = solve(build("kernel_shap", num_samples=2 * n + 2 + extra, seed=seed), even, n)
    np.testing.assert_allclose(result.values, 0, atol=1e-8)


@given(cases(("exact", "kernel_shap", "lime", "occlusion")), st.randoms(use_true_random=False))
def test_renaming_the_features_renames_the_values(case: Case, random: Random) -> None:
    name, params, n_features, game = case
    if "num_samples" in params:
        params["num_samples"] = 2**n_features  # a draw depends on the order of the features
    order = np.array(random.sample(range(n_features), n_features))
    explainer = build(name, **params)
    plain = solve(explainer, game, n_features)
    renamed = solve(explainer, lambda z: game(z[:, np.argsort(order)]), n_features)
    np.testing.assert_allclose(renamed.values, plain.values[:, order], atol=1e-8)


@given(cases(("exact", "kernel_shap", "permutation_shap", "occlusion")), st.data())
def test_a_feature_without_effect_has_no_value(case: Case, data: st.DataObject) -> None:
    name, params, n_features, game = case
    if name == "kernel_shap":
        params["num_samples"] = 2**n_features  # the regression is noisy for dummies while sampled
    dummy = data.draw(st.integers(0, n_features - 1))

    def blind(z: np.ndarray) -> np.ndarray:
        z = z.copy()
        z[:, dummy] = True
        return game(z)

    result = solve(build(name, **params), blind, n_features)
    np.testing.assert_allclose(result.values[:, dummy], 0, atol=1e-8)


@given(st.integers(0, 2**30), st.integers(2, 8), st.sampled_from(["exact", "kernel_shap", "lime"]))
def test_interchangeable_features_have_equal_values(seed: int, n: int, name: str) -> None:
    game = _random_game(seed, n)

    def symmetric(z: np.ndarray) -> np.ndarray:
        swapped = z.copy()
        swapped[:, [0, 1]] = z[:, [1, 0]]
        return game(z) + game(swapped)

    params = {} if name == "exact" else {"num_samples": 2**n}
    result = solve(build(name, **params), symmetric, n)
    np.testing.assert_allclose(result.values[:, 0], result.values[:, 1], atol=1e-8)


@given(st.integers(0, 2**30), st.integers(3, 7))
def test_merging_features_of_an_additive_game_adds_their_values(seed: int, n: int) -> None:
    weights = np.random.default_rng(seed).normal(size=n)
    apart: Attribution = solve(build("exact"), lambda z: z @ weights, n)
    merged = solve(build("exact"), lambda z: np.hstack([z[:, :1], z]) @ weights, n - 1)
    assert merged.values[0, 0] == pytest.approx(apart.values[0, :2].sum(), abs=1e-8)
    np.testing.assert_allclose(merged.values[0, 1:], apart.values[0, 2:], atol=1e-8)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("constant", [0.0, 0.1, -3e6])
def test_a_constant_game_has_no_values(name: str, constant: float) -> None:
    for n in (1, 2, 9):
        result = solve(build(name), lambda z: np.full((len(z), 2), constant), n)
        if name != "random":
            np.testing.assert_allclose(result.values, 0, atol=1e-10 * max(1, abs(constant)))
        np.testing.assert_allclose(result.base, constant)


PROFILES = [(name, {}) for name in names()] + [
    ("lime", {"compat": "lime"}),
    ("kernel_shap", {"compat": "shap"}),
]


@pytest.mark.parametrize(("name", "params"), PROFILES)
@pytest.mark.parametrize("n_labels", [1, 3])
def test_no_features(name: str, params: dict[str, str], n_labels: int) -> None:
    result = solve(build(name, **params), lambda z: np.full((len(z), n_labels), 0.7), 0)
    assert result.values.shape == (n_labels, 0)
    assert result.base.tolist() == [0.7] * n_labels
    assert result.evaluations == 1


@pytest.mark.parametrize(("name", "params"), [p for p in PROFILES if p[0] in ADDITIVE])
def test_one_feature_has_the_whole_difference(name: str, params: dict[str, str]) -> None:
    result = solve(build(name, **params), lambda z: 5.0 * z[:, 0] + 1, 1)
    assert result.values.tolist() == [[5.0]]
    assert result.base.tolist() == [1.0]
    assert result.evaluations == 2


def test_lime_shrinks_a_single_feature() -> None:
    # only two coalitions, and the empty one is far away: the penalty has its say
    for compat in (None, "lime"):
        result = solve(build("lime", compat=compat), lambda z: 5.0 * z[:, 0] + 1, 1)
        assert 0 < result.values[0, 0] < 5
        assert result.evaluations == 2


@pytest.mark.parametrize("name", names())
def test_more_than_a_thousand_labels(name: str) -> None:
    labels = np.arange(1200.0)
    game = lambda z: (z @ np.array([1.0, -2.0, 0.5, 3.0]))[:, None] * labels  # noqa: E731
    result = solve(build(name), game, 4)
    assert result.values.shape == (1200, 4)
    if name != "random":
        np.testing.assert_allclose(result.values[7] * 3, result.values[21], atol=1e-8)
