from __future__ import annotations

import pytest

from analysis.bootstrap import Estimate
from analysis.context import (
    BETTER,
    NEITHER,
    NOT_ABOVE_MAJORITY,
    TOO_FEW,
    WORSE,
    Context,
    Standing,
    verdict,
)
from tests.unit.analysis.frames import FACTOR_VALUES, prediction, run_of

KEY = tuple(FACTOR_VALUES.values())
GOOD = Standing(0.9, 0.8, 1.0, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.1, 0.3, "higher", BETTER),
        (0.1, 0.3, "lower", WORSE),
        (-0.3, -0.1, "higher", WORSE),
        (-0.3, -0.1, "lower", BETTER),
        (-0.1, 0.2, "higher", NEITHER),
        (0.0, 0.2, "higher", NEITHER),
    ],
)
def test_the_interval_and_the_direction_decide(
    low: float, high: float, direction: str, expected: str
) -> None:
    estimate = Estimate((low + high) / 2, 20, low, high, 20)
    assert verdict(GOOD, estimate, direction) == expected


def test_no_verdict_where_accuracy_does_not_clear_the_majority_rate() -> None:
    better = Estimate(0.2, 20, 0.1, 0.3, 20)
    for low in (0.4, 0.5):
        assert verdict(Standing(0.6, low, 0.7, 0.5), better, "higher") == NOT_ABOVE_MAJORITY
        assert verdict(Standing(0.6, low, 0.7, 0.5), None, "none") == NOT_ABOVE_MAJORITY


def test_no_verdict_from_a_handful_of_examples() -> None:
    assert verdict(GOOD, Estimate(0.2, 5, 0.1, 0.3, 5), "higher") == TOO_FEW
    assert verdict(GOOD, Estimate(0.2, 60, None, None, 1), "higher") == TOO_FEW


def test_rows_that_are_not_against_random_have_none() -> None:
    assert verdict(GOOD, None, "higher") is None


def test_without_gold_labels_the_explainer_is_still_judged() -> None:
    assert verdict(Standing(), Estimate(0.2, 20, 0.1, 0.3, 20), "higher") == BETTER


def test_accuracy_is_of_the_examples_asked_for() -> None:
    rows = [
        prediction("a", [0.9, 0.1], 0),
        prediction("b", [0.9, 0.1], 1),
        prediction("c", [0.1, 0.9], 1),
        prediction("d", [0.1, 0.9], None),
    ]
    context = Context.of(run_of(predictions=rows).predictions)
    assert context.standing(KEY, ["a", "b", "c", "d"])[::3] == (2 / 3, 2 / 3)
    assert context.standing(KEY, ["c", "a"])[::3] == (1.0, 0.5)
    assert context.standing(KEY, ["a", "c"]) == context.standing(KEY, ["c", "a"])
    assert context.standing(KEY, ["d"]) == Standing()
    assert context.standing(("other",), ["a"]) == Standing()
