from __future__ import annotations

import numpy as np
import pytest

from engine.types import Attribution


def _attribution(**diagnostics: int) -> Attribution:
    return Attribution(
        np.array([[1.0, -2.0]]), np.zeros(1), 9, np.array([[0.1, 0.0]]), diagnostics=diagnostics
    )


@pytest.mark.parametrize(
    ("level", "facts", "quantile"),
    [
        (0.95, {}, 1.959964),
        (0.95, {"dof": 5}, 2.570582),
        (0.9, {"dof": 1}, 6.313752),
        (0.99, {"dof": 10**6}, 2.575836),
    ],
)
def test_interval_is_by_students_t_where_degrees_are_known(
    level: float, facts: dict[str, int], quantile: float
) -> None:
    low, high = _attribution(**facts).interval(level)
    np.testing.assert_allclose(low, [[1 - 0.1 * quantile, -2]], atol=1e-5)
    np.testing.assert_allclose(high, [[1 + 0.1 * quantile, -2]], atol=1e-5)


def test_no_interval_without_a_standard_error() -> None:
    assert Attribution(np.zeros((1, 2)), np.zeros(1), 4).interval() is None
