"""The summary that a run prints."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.analyze import _interval


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"value": 0.5, "ci_low": 0.25, "ci_high": 0.75}, "0.500 [0.250, 0.750]"),
        ({"value": 1.0, "ci_low": None, "ci_high": None}, "1.000"),
        ({"value": None, "ci_low": None, "ci_high": None}, "undefined"),
    ],
)
def test_a_value_is_shown_with_the_interval_it_has(row: dict[str, Any], shown: str) -> None:
    assert _interval(row) == shown
