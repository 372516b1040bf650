"""Whether one level predicts better than another on the same examples: the table `comparison`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from analysis.bootstrap import Estimate, FloatBM, FloatBN, estimates, group_codes, mean
from analysis.levels import Comparison, Level
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
QUANTITY: Columns = {"class": pl.String, "quantity": pl.String}
"""`quantity`: `reference`, `other`, `difference` (other − reference), or `between`: of both."""

_METRICS = (
    ("accuracy", None),
    ("precision", "macro"),
    ("recall", "macro"),
    ("f1", "macro"),
    ("mcc", None),
)
"""Metric and class, in the order of the statistic's columns."""
_MCNEMAR = ("only_reference_right", "only_other_right", "mcnemar_p", "mcnemar_mid_p")


def comparison_table(run: RunTables, compared: Sequence[Comparison]) -> pl.DataFrame:
    """Return accuracy, macro precision, recall and F1, and MCC of both levels, and the difference.

    Of the examples that both predicted and that have a gold label. All three quantities of a metric
    come from the same resamples, so that the interval of the difference is a paired one. McNemar's
    test and how often both predict the same (`prediction_agreement`, gold label or not) stand in
    rows `between`. Continuations have no labels and so no rows.

    Raises:
        RunFolderError: The label sets of two levels differ.
    """
    own = _predictions(run.predictions)
    rows: list[Row] = []
    for comparison in compared:
        if comparison.explainers is None:  # the predictions of one level are one
            sides = (own[comparison.reference], own[comparison.other])
            keys = keys_of(comparison)
            rows += [{**keys, **row} for row in _compare(comparison, *sides)]
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


def _compare(comparison: Comparison, one: pl.DataFrame, two: pl.DataFrame) -> Iterator[Row]:
    both = (
        one.filter(pl.col("continuation").is_null())
        .join(two.filter(pl.col("continuation").is_null()), on="example", suffix="_other")
        .sort("example")
    )
    if both.is_empty():
        return
    sets = pl.concat([both["labels"], both["labels_other"]]).unique()
    if len(sets) > 1:
        raise RunFolderError(
            f"predictions of {'/'.join(comparison.reference)} and {'/'.join(comparison.other)}: "
            "more than one label set; run the sweep again into another folder"
        )
    key = comparison.reference
    same = (both["predicted"] == both["predicted_other"]).to_numpy().astype(np.float64)
    codes = group_codes(both["example"].to_list(), both["group"].to_list())
    yield _row("prediction_agreement", None, "between", mean(same, codes, key))
    judged = both.filter(pl.col("gold").is_not_null())
    if judged.is_empty():
        return
    codes = group_codes(judged["example"].to_list(), judged["group"].to_list())
    columns = [judged[name].to_numpy() for name in ("gold", "predicted", "predicted_other")]
    seen, numbered = np.unique(np.stack(columns), return_inverse=True)  # of many labels few occur
    gold, a, b = numbered.reshape(3, -1).astype(np.int64)
    n_labels = len(seen)

    def of_one(predicted: define.IntN, weights: FloatBN) -> FloatBM:
        counts = define.class_counts(gold, predicted, n_labels, weights)
        macro = [define.macro(f(counts)) for f in (define.precision, define.recall, define.f1)]
        return np.stack([define.accuracy(counts), *macro, define.mcc(counts)], axis=1)

    def statistic(weights: FloatBN) -> FloatBM:
        reference, other = of_one(a, weights), of_one(b, weights)
        return np.concatenate([reference, other, other - reference], axis=1)

    found = estimates(statistic, codes, key)
    for i, (metric, of) in enumerate(_METRICS):
        for j, quantity in enumerate(("reference", "other", "difference")):
            yield _row(metric, of, quantity, found[i + j * len(_METRICS)])
    for metric, value in zip(_MCNEMAR, mcnemar(gold == a, gold == b), strict=True):
        yield _row(metric, None, "between", Estimate(float(value), len(gold)))


def _row(metric: str, of: str | None, quantity: str, estimate: Estimate) -> Row:
    return {"class": of, "quantity": quantity, **measure(metric, estimate)}
