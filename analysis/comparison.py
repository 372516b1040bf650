"""Whether one level predicts better than another on the same examples: the table `comparison`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import polars as pl

from analysis.bootstrap import (
    Estimate,
    FloatBM,
    FloatBN,
    Statistic,
    group_codes,
    mean,
    mean_over_seeds,
)
from analysis.levels import Comparison, Level, training_of
from analysis.load import RunTables
from analysis.tidy import FACTOR_COLUMNS, Columns, Row, measure, table
from engine.errors import RunFolderError
from engine.metrics import performance as define
from engine.metrics.paired import mcnemar
from engine.schema import FACTORS

COMPARISON_COLUMNS: Columns = {
    "kind": pl.String,
    "other_model": pl.String,
    "other_precision": pl.String,
    "other_adapter": pl.String,
}
"""What is compared with the factors of the row, which are those of the reference."""
SEEDS: Columns = {"n_seeds": pl.Int64}
"""Seeds of a training that the row averages, its adapters then named `NAME-seed*`; else 1."""
QUANTITY: Columns = {**SEEDS, "class": pl.String, "quantity": pl.String}
"""`quantity`: `reference`, `other`, `difference` (other − reference), or `between`: of both."""

_METRICS = (
    ("accuracy", None),
    ("precision", "macro"),
    ("recall", "macro"),
    ("f1", "macro"),
    ("mcc", None),
)
"""Metric and class, in the order of the statistic's columns."""
_PREDICTED = ("predicted", "predicted_other")
_MCNEMAR = ("only_reference_right", "only_other_right", "mcnemar_p", "mcnemar_mid_p")

_Sides: TypeAlias = tuple[pl.DataFrame, pl.DataFrame]
"""Predictions of the reference and of the other level."""


def comparison_table(run: RunTables, compared: Sequence[Comparison]) -> pl.DataFrame:
    """Return accuracy, macro precision, recall and F1, and MCC of both levels, and the difference.

    Of the examples that both predicted and that have a gold label. All three quantities of a metric
    come from the same resamples, so that the interval of the difference is a paired one. McNemar's
    test and how often both predict the same (`prediction_agreement`, gold label or not) stand in
    rows `between`. Continuations have no labels and so no rows.

    Comparisons that differ in the seed of a training alone follow once more as one, averaged over
    the seeds, of the examples that all of them predicted. Their intervals are of new examples and
    new seeds (`mean_over_seeds`); McNemar's test is not for averages.

    Raises:
        RunFolderError: The label sets of two levels differ.
    """
    own = _predictions(run.predictions)
    rows: list[Row] = []
    trainings: dict[Comparison, list[_Sides]] = {}
    for comparison in compared:
        if comparison.explainers is None:  # the predictions of one level are one
            sides = (own[comparison.reference], own[comparison.other])
            rows += _rows(comparison, [sides])
            if training := training_of(comparison):
                trainings.setdefault(training, []).append(sides)
    for training, every in trainings.items():
        rows += _rows(training, every) if len(every) > 1 else []
    return table(rows, FACTOR_COLUMNS, COMPARISON_COLUMNS, QUANTITY)


def keys_of(comparison: Comparison) -> Row:
    """Return the columns that name a comparison."""
    return {
        **comparison.reference._asdict(),
        "kind": comparison.kind,
        "other_model": comparison.other.model,
        "other_precision": comparison.other.precision,
        "other_adapter": comparison.other.adapter,
    }


def _predictions(predictions: pl.DataFrame) -> dict[Level, pl.DataFrame]:
    parts = predictions.select(
        *FACTORS, "example", "group", "labels", "gold", "predicted", "continuation"
    ).partition_by(FACTORS, as_dict=True, maintain_order=True)
    return {Level(*map(str, key)): part for key, part in parts.items()}


def _rows(comparison: Comparison, every: Sequence[_Sides]) -> list[Row]:
    keys = {**keys_of(comparison), "n_seeds": len(every)}
    return [{**keys, **row} for row in _compare(comparison, every)]


def _joined(every: Sequence[_Sides]) -> list[pl.DataFrame]:
    """Return both sides of each seed, of the examples that all predicted, sorted."""
    joined = [
        one.filter(pl.col("continuation").is_null()).join(
            two.filter(pl.col("continuation").is_null()), on="example", suffix="_other"
        )
        for one, two in every
    ]
    common = set.intersection(*(set(both["example"]) for both in joined))
    return [both.filter(pl.col("example").is_in(common)).sort("example") for both in joined]


def _compare(comparison: Comparison, every: Sequence[_Sides]) -> Iterator[Row]:
    joined = _joined(every)
    both = joined[0]
    if both.is_empty():
        return
    sets = pl.concat([each[name] for each in joined for name in ("labels", "labels_other")])
    sets = sets.unique()
    if len(sets) > 1:
        raise RunFolderError(
            f"predictions of {'/'.join(comparison.reference)} and {'/'.join(comparison.other)}: "
            "more than one label set; run the sweep again into another folder"
        )
    key = comparison.reference
    same = np.stack(
        [(each["predicted"] == each["predicted_other"]).to_numpy() for each in joined]
    ).astype(np.float64)
    codes = group_codes(both["example"].to_list(), both["group"].to_list())
    yield _row("prediction_agreement", None, "between", mean(same, codes, key))
    judged = [each.filter(pl.col("gold").is_not_null()) for each in joined]
    if judged[0].is_empty():
        return
    codes = group_codes(judged[0]["example"].to_list(), judged[0]["group"].to_list())
    columns = [judged[0]["gold"].to_numpy()]
    columns += [each[name].to_numpy() for each in judged for name in _PREDICTED]
    seen, numbered = np.unique(np.stack(columns), return_inverse=True)  # of many labels few occur
    gold, *said = numbered.reshape(len(columns), -1).astype(np.int64)
    n_labels = len(seen)

    def of_one(predicted: define.IntN, weights: FloatBN) -> FloatBM:
        counts = define.class_counts(gold, predicted, n_labels, weights)
        macro = [define.macro(f(counts)) for f in (define.precision, define.recall, define.f1)]
        return np.stack([define.accuracy(counts), *macro, define.mcc(counts)], axis=1)

    def of_both(a: define.IntN, b: define.IntN) -> Statistic:
        def statistic(weights: FloatBN) -> FloatBM:
            reference, other = of_one(a, weights), of_one(b, weights)
            return np.concatenate([reference, other, other - reference], axis=1)

        return statistic

    pairs = list(zip(said[::2], said[1::2], strict=True))
    found = mean_over_seeds([of_both(a, b) for a, b in pairs], codes, key)
    for i, (metric, of) in enumerate(_METRICS):
        for j, quantity in enumerate(("reference", "other", "difference")):
            yield _row(metric, of, quantity, found[i + j * len(_METRICS)])
    if len(pairs) > 1:
        return
    ((a, b),) = pairs
    for metric, value in zip(_MCNEMAR, mcnemar(gold == a, gold == b), strict=True):
        yield _row(metric, None, "between", Estimate(float(value), len(gold)))


def _row(metric: str, of: str | None, quantity: str, estimate: Estimate) -> Row:
    return {"class": of, "quantity": quantity, **measure(metric, estimate)}
