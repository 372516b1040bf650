from __future__ import annotations

import numpy as np

from engine.explainers import build, solve


def test_values_are_what_each_removal_loses_and_keep_their_sign() -> None:
    game = lambda z: 3.0 * z[:, 0] - 2.0 * z[:, 1] + 4.0 * (z[:, 1] & z[:, 2]) + 7  # noqa: E731
    result = solve(build("occlusion"), game, 3)
    np.testing.assert_allclose(result.values, [[3.0, 2.0, 4.0]])
    assert result.base.tolist() == [7.0]
    assert result.residual.tolist() == [-4.0]
    assert result.evaluations == 5
    assert result.std_error is None


def test_one_feature_takes_two_evaluations() -> None:
    result = solve(build("occlusion"), lambda z: 2.0 * z[:, 0] + 1, 1)
    assert result.values.tolist() == [[2.0]]
    assert result.evaluations == 2
