from __future__ import annotations

import numpy as np

from engine.explainers import build, solve


def _values(seed: int, n_labels: int = 1, n_features: int = 500) -> np.ndarray:
    game = lambda z: np.tile(z.sum(axis=1)[:, None] + 1.0, n_labels)  # noqa: E731
    return solve(build("random", seed=seed), game, n_features).values


def test_values_depend_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(_values(1), _values(1))
    assert abs(np.corrcoef(_values(1)[0], _values(2)[0])[0, 1]) < 0.2
    np.testing.assert_array_equal(_values(1), _values(1, n_labels=3)[:1])


def test_values_are_standard_normal() -> None:
    values = _values(0, n_features=4000)
    assert abs(values.mean()) < 0.1
    assert abs(values.std() - 1) < 0.1


def test_labels_and_base_come_from_two_evaluations() -> None:
    result = solve(build("random"), lambda z: np.stack([z.sum(axis=1) + 1.0] * 2, axis=1), 4)
    assert result.values.shape == (2, 4)
    assert result.base.tolist() == [1.0, 1.0]
    assert result.evaluations == 2
    assert result.residual is None
