from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.explainers import Explainer, build, names, parameters, solve
from engine.pool import CoalitionPool


def test_every_method_is_listed_with_its_defaults() -> None:
    assert names() == ("exact", "kernel_shap", "lime", "occlusion", "permutation_shap", "random")
    for name in names():
        explainer = build(name)
        assert isinstance(explainer, Explainer)
        assert explainer.name == name
        known = parameters(name)
        assert known["seed"] == 0
        assert build(name, **known) == explainer


def test_unknown_names_are_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match=r"'kernelshap'; did you mean 'kernel_shap'\?"):
        build("kernelshap")
    with pytest.raises(ConfigError, match=r"known are exact, .*kernel_shap, lime"):
        parameters("zzz")


def test_unknown_parameters_are_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match=r"lime: 'nsamples'; did you mean 'num_samples'\?"):
        build("lime", nsamples=3)
    with pytest.raises(ConfigError, match=r"exact: 'compat'; .*known are seed"):
        build("exact", compat="shap")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lime", {"num_samples": 0}, "num_samples must be a whole number"),
        ("lime", {"num_samples": None}, "num_samples must be a whole number"),
        ("lime", {"compat": "shap"}, "compat must be one of None, 'lime'"),
        ("lime", {"kernel_width": 0}, "kernel_width must be a positive"),
        ("lime", {"kernel_width": float("nan")}, "kernel_width must be a positive"),
        ("lime", {"num_features": 5}, "need `compat: lime`"),
        ("lime", {"compat": "lime", "feature_selection": "best"}, "feature_selection must be one"),
        ("kernel_shap", {"seed": -1}, "seed must be a whole number"),
        ("kernel_shap", {"compat": "lime"}, "compat must be one of None, 'shap'"),
        ("kernel_shap", {"l1_reg": "aic"}, "needs `compat: shap`"),
        ("kernel_shap", {"compat": "shap", "l1_reg": "auto"}, "l1_reg must be"),
        ("kernel_shap", {"compat": "shap", "l1_reg": "num_features(0)"}, "l1_reg must be"),
        ("kernel_shap", {"compat": "shap", "l1_reg": -0.5}, "l1_reg must be"),
        (
            "kernel_shap",
            {"surrogate": "trees"},
            "surrogate must be one of None",
        ),
        ("kernel_shap", {"surrogate": "gaussian_process", "num_samples": 5000}, "at most 4098"),
        ("kernel_shap", {"surrogate": "gaussian_process", "compat": "shap"}, "default profile"),
        ("permutation_shap", {"num_samples": 2.5}, "num_samples must be a whole number"),
        ("random", {"seed": "x"}, "seed must be a whole number"),
    ],
)
def test_impossible_values_are_refused(name: str, params: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **params)


@pytest.mark.parametrize("name", ["exact", "kernel_shap", "lime", "occlusion", "permutation_shap"])
def test_asking_is_pure_and_stops_once_answered(name: str) -> None:
    explainer = build(name)
    pool = CoalitionPool(6)
    asked = explainer.ask(pool)
    np.testing.assert_array_equal(asked, explainer.ask(CoalitionPool(6)))
    pool.tell(asked[:5], np.zeros(5))
    np.testing.assert_array_equal(explainer.ask(pool), asked[5:])
    pool.tell(asked[5:], np.zeros(len(asked) - 5))
    assert explainer.ask(pool).shape == (0, 6)


def test_a_pool_with_more_answers_gives_the_same_attribution() -> None:
    game = lambda z: np.sin(z @ np.arange(1.0, 8))  # noqa: E731
    full = CoalitionPool(7)
    every = build("exact").ask(full)
    full.tell(every, game(every))
    for name in names():
        params = {} if name in ("exact", "occlusion", "random") else {"num_samples": 40}
        explainer = build(name, seed=3, **params)
        alone = solve(explainer, game, 7)
        assert len(explainer.ask(full)) == 0
        shared = explainer.fit(full)
        np.testing.assert_array_equal(shared.values, alone.values)
        assert shared.evaluations == alone.evaluations


@pytest.mark.parametrize("name", ["kernel_shap", "lime", "permutation_shap"])
def test_a_seed_of_numpy_is_the_same_seed(name: str) -> None:
    asked = [build(name, num_samples=60, seed=s).ask(CoalitionPool(12)) for s in (4, np.int64(4))]
    np.testing.assert_array_equal(*asked)
