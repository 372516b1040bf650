from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.errors import ExampleError
from engine.explainers import build, solve
from engine.pool import CoalitionPool


def test_equals_the_mean_over_all_orders() -> None:
    values = dict(enumerate(np.random.default_rng(0).normal(size=16)))
    game = lambda z: np.array([values[int(row @ [1, 2, 4, 8])] for row in z])  # noqa: E731
    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        kept = np.zeros((1, 4), dtype=bool)
        for feature in order:
            before = game(kept)[0]
            kept[0, feature] = True
            expected[feature] += (game(kept)[0] - before) / 24
    result = solve(build("exact"), game, 4)
    np.testing.assert_allclose(result.values[0], expected, atol=1e-12)
    assert result.base[0] == values[0]
    assert result.evaluations == 16
    assert result.residual[0] == pytest.approx(0, abs=1e-12)
    assert (result.std_error == 0).all()


def test_an_and_is_shared_equally() -> None:
    result = solve(build("exact"), lambda z: z[:, [0, 2, 3]].all(axis=1) * 1.0, 12)
    expected = np.zeros(12)
    expected[[0, 2, 3]] = 1 / 3
    np.testing.assert_allclose(result.values[0], expected, atol=1e-12)
    assert result.evaluations == 4096


def test_too_many_features_names_the_limit_and_the_way_out() -> None:
    with pytest.raises(ExampleError, match=r"13 features .* 12 .* use kernel_shap") as caught:
        build("exact").ask(CoalitionPool(13))
    assert caught.value.code == "too_many_features"
