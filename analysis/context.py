"""What an explanation's numbers are worth: the model's accuracy on the same examples, the verdict.

An explanation of a model that does no better than the commonest label explains guesses, so no
verdict is drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl

from analysis.bootstrap import Estimate, FloatN, group_codes, mean
from analysis.tidy import Columns, Row, factor_key, measure, partitions
from engine.metrics.registry import Direction
from engine.schema import FACTORS

CONTEXT_COLUMNS: Columns = {
    "accuracy": pl.Float64,
    "accuracy_ci_low": pl.Float64,
    "accuracy_ci_high": pl.Float64,
    "majority_rate": pl.Float64,
    "verdict": pl.String,
}

MIN_GROUPS = 6
"""Fewer independent examples agree in sign by chance more often than 5 % (2 / 2⁶ = 3 %)."""

NOT_ABOVE_MAJORITY = "no verdict: accuracy not above the majority rate"
TOO_FEW = f"no verdict: fewer than {MIN_GROUPS} independent examples"
BETTER = "better than random"
WORSE = "worse than random"
NEITHER = "not distinguishable from random"


class Standing(NamedTuple):
    """The accuracy of a model on some examples; all None where none has a gold label."""

    accuracy: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    majority_rate: float | None = None

    @property
    def reaches_majority(self) -> bool:
        """Whether the interval doesn't lie above the majority rate."""
        if self.accuracy is None or self.majority_rate is None:
            return False
        low = self.accuracy if self.ci_low is None else self.ci_low
        return low <= self.majority_rate


class _Judged(NamedTuple):
    gold: int
    correct: bool
    group: str | None


@dataclass(slots=True)
class Context:
    """The predictions that an explanation table's rows are put beside."""

    _judged: dict[tuple[str, ...], dict[str, _Judged]]
    _known: dict[tuple[tuple[str, ...], tuple[str, ...]], Standing] = field(default_factory=dict)

    @classmethod
    def of(cls, predictions: pl.DataFrame) -> Context:
        """Make it from the predictions table; rows without a gold label say nothing."""
        judged: dict[tuple[str, ...], dict[str, _Judged]] = {}
        labelled = predictions.filter(pl.col("gold").is_not_null())
        for factors, part in partitions(labelled, FACTORS):
            rows = part.select("example", "gold", "predicted", "group").iter_rows()
            judged[factor_key(factors)] = {e: _Judged(g, g == p, group) for e, g, p, group in rows}
        return cls(judged)

    def standing(self, factors: tuple[str, ...], examples: Sequence[str]) -> Standing:
        """Return the accuracy on those of `examples` that have a gold label."""
        key = (factors, tuple(sorted(set(examples))))
        if key not in self._known:
            judged = self._judged.get(factors, {})
            self._known[key] = _standing({e: judged[e] for e in key[1] if e in judged}, factors)
        return self._known[key]

    def columns(
        self,
        factors: tuple[str, ...],
        examples: Sequence[str],
        over_random: Estimate | None = None,
        direction: Direction = "none",
    ) -> Row:
        """Return the context columns of a row.

        Args:
            factors: Of the row.
            examples: The row's examples.
            over_random: The row's estimate if it is a paired difference to a random order.
            direction: Which way the metric is better.
        """
        standing = self.standing(factors, examples)
        return {
            "accuracy": standing.accuracy,
            "accuracy_ci_low": standing.ci_low,
            "accuracy_ci_high": standing.ci_high,
            "majority_rate": standing.majority_rate,
            "verdict": verdict(standing, over_random, direction),
        }


def mean_row(
    context: Context,
    keys: Row,
    metric: str,
    values_N: FloatN,
    examples: Sequence[str],
    groups: Sequence[str | None],
) -> Row:
    """Return the row of a mean over the examples whose value is defined (not NaN)."""
    factors = factor_key(keys)
    estimate = mean(values_N, group_codes(examples, groups), factors)
    return {
        **keys,
        **context.columns(factors, defined(examples, values_N)),
        **measure(metric, estimate),
    }


def defined(examples: Sequence[str], values_N: FloatN) -> list[str]:
    """Return the examples whose value is not NaN."""
    return [e for e, missing in zip(examples, np.isnan(values_N), strict=True) if not missing]


def verdict(standing: Standing, over_random: Estimate | None, direction: Direction) -> str | None:
    """Return what may be said of an explainer against a random order, None if nothing was asked."""
    if standing.reaches_majority:
        return NOT_ABOVE_MAJORITY
    if over_random is None or over_random.value is None or direction == "none":
        return None
    low, high = over_random.ci_low, over_random.ci_high
    if over_random.groups < MIN_GROUPS or low is None or high is None:
        return TOO_FEW
    if low <= 0 <= high:
        return NEITHER
    return BETTER if (low > 0) == (direction == "higher") else WORSE


def _standing(judged: dict[str, _Judged], factors: tuple[str, ...]) -> Standing:
    if not judged:
        return Standing()
    codes = group_codes(list(judged), [j.group for j in judged.values()])
    correct = np.array([j.correct for j in judged.values()], dtype=np.float64)
    accuracy = mean(correct, codes, factors)
    gold = np.bincount([j.gold for j in judged.values()])
    majority = float(gold.max() / gold.sum())
    return Standing(accuracy.value, accuracy.ci_low, accuracy.ci_high, majority)
