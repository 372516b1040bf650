"""How well each model predicts, with intervals: the tables `performance` and `probabilities`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.bootstrap import (
    Estimate,
    FloatBM,
    FloatBN,
    FloatN,
    IntN,
    estimates,
    group_codes,
    mean,
)
from analysis.load import RunTables
from analysis.tidy import FACTOR_COLUMNS, Columns, Row, factor_key, measure, partitions, table
from engine.errors import RunFolderError
from engine.metrics import performance as define
from engine.schema import FACTORS

CLASS_COLUMNS: Columns = {"class": pl.String, "predicted_class": pl.String}
"""`class`: a label's name, `macro`, or null: all examples. Of a confusion row the gold label."""
BIN_COLUMNS: Columns = {
    "class": pl.String,
    "probability_of": pl.String,
    "bin_low": pl.Float64,
    "bin_high": pl.Float64,
}

FULL_MATRIX = 20
"""Label sets up to this size have the whole confusion matrix, larger ones the cells that occur."""
AUROC_BUDGET = 2_000_000
"""Examples × labels up to which AUROC of more than two labels gets an interval."""
BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The labelled predictions under one setting of the factors."""

    labels: list[str]
    gold: IntN
    predicted: IntN
    probabilities: FloatBM  # [N, L]
    codes: IntN
    key: tuple[str, ...]

    @property
    def correct(self) -> FloatN:
        return (self.gold == self.predicted).astype(np.float64)

    @property
    def confidence(self) -> FloatN:
        return self.probabilities[np.arange(len(self.gold)), self.predicted]


def performance_table(run: RunTables) -> pl.DataFrame:
    """Return accuracy, precision, recall, F1, MCC, AUROC, NLL, Brier, ECE and the confusion matrix.

    Over examples with a gold label: rows of all examples (`class` null), then `macro`, then of each
    label in gold or predicted. `confusion` counts examples of gold label `class` predicted as
    `predicted_class`.

    Raises:
        RunFolderError: The label set changes within one setting of the factors.
    """
    rows: list[Row] = []
    for factors, sample in _samples(run.predictions):
        for row in (*_overall(sample), *_by_class(sample), *_confusion(sample)):
            rows.append({**factors, **row})
    return table(rows, FACTOR_COLUMNS, CLASS_COLUMNS)


def probabilities_table(run: RunTables) -> pl.DataFrame:
    """Return how the predicted probabilities are spread, by gold label, in ten bins [low, high).

    Of two labels the probability of the second (`probability_of`), of more labels the gold label's;
    the last bin has 1 in it. `value` is the share of the gold label's examples, `n` their number.
    """
    rows: list[Row] = []
    for factors, sample in _samples(run.predictions):
        for row in _bins(sample):
            rows.append({**factors, **row})
    return table(rows, FACTOR_COLUMNS, BIN_COLUMNS)


def _samples(predictions: pl.DataFrame) -> Iterator[tuple[Row, _Sample]]:
    labelled = predictions.filter(pl.col("gold").is_not_null())
    for factors, part in partitions(labelled, FACTORS):
        if part["labels"].n_unique() > 1:
            raise RunFolderError(
                f"predictions of {'/'.join(factor_key(factors))}: more than one label set; "
                "run the sweep again into another folder"
            )
        yield (
            factors,
            _Sample(
                part["labels"][0].to_list(),
                part["gold"].to_numpy().astype(np.int64),
                part["predicted"].to_numpy().astype(np.int64),
                np.array(part["probabilities"].to_list(), dtype=np.float64),
                group_codes(part["example"].to_list(), part["group"].to_list()),
                factor_key(factors),
            ),
        )


def _row(metric: str, of: str | None, estimate: Estimate, predicted: str | None = None) -> Row:
    return {"class": of, "predicted_class": predicted, **measure(metric, estimate)}


def _overall(sample: _Sample) -> Iterator[Row]:
    seen, gold, predicted = _seen(sample)

    def statistic(weights: FloatBN) -> FloatBM:
        counts = define.class_counts(gold, predicted, len(seen), weights)
        error = define.ece(sample.correct > 0, sample.confidence, weights)
        rate = define.majority_rate(counts)
        scores = [define.accuracy(counts), define.mcc(counts), error, rate]
        scores += [define.macro(f(counts)) for f in (define.precision, define.recall, define.f1)]
        return np.stack(scores, axis=1)

    accuracy, mcc, ece, rate, precision, recall, f1 = estimates(statistic, sample.codes, sample.key)
    yield _row("accuracy", None, accuracy)
    yield _row("mcc", None, mcc)
    yield _row("auroc", None, _auroc(sample))
    for metric, define_each in (("nll", define.nll), ("brier", define.brier)):
        each = define_each(sample.gold, sample.probabilities)
        yield _row(metric, None, mean(each, sample.codes, sample.key))
    yield _row("ece", None, ece)
    # a fact of the sample that others are compared with
    yield _row("majority_rate", None, rate._replace(ci_low=None, ci_high=None))
    yield _row("precision", "macro", precision)
    yield _row("recall", "macro", recall)
    yield _row("f1", "macro", f1)


def _by_class(sample: _Sample) -> Iterator[Row]:
    seen, gold, predicted = _seen(sample)

    def statistic(weights: FloatBN) -> FloatBM:
        counts = define.class_counts(gold, predicted, len(seen), weights)
        each = (define.precision(counts), define.recall(counts), define.f1(counts))
        return np.concatenate(each, axis=1)

    found = iter(estimates(statistic, sample.codes, sample.key))
    for metric in ("precision", "recall", "f1"):
        for label in seen:
            yield _row(metric, sample.labels[label], next(found))


def _confusion(sample: _Sample) -> Iterator[Row]:
    seen, gold, predicted = _seen(sample)
    counts = define.confusion_matrix(gold, predicted, len(seen))
    cells = {
        (sample.labels[seen[i]], sample.labels[seen[j]]): int(counts[i, j])
        for i, j in zip(*np.nonzero(counts), strict=True)
    }
    if len(sample.labels) <= FULL_MATRIX:
        every = {(a, b): 0 for a in sample.labels for b in sample.labels}
        cells = {cell: cells.get(cell, 0) for cell in every}
    for (of, predicted_as), count in cells.items():
        yield _row("confusion", of, Estimate(float(count), len(gold)), predicted_as)


def _auroc(sample: _Sample) -> Estimate:
    gold, probabilities = sample.gold, sample.probabilities
    n_labels = probabilities.shape[1]
    if n_labels > 2 and probabilities.size > AUROC_BUDGET:
        value = float(define.auroc(gold, probabilities)[0])
        return Estimate(None if np.isnan(value) else value, len(gold))
    statistic = estimates(
        lambda weights: define.auroc(gold, probabilities, weights)[:, None],
        sample.codes,
        sample.key,
    )
    return statistic[0]


def _bins(sample: _Sample) -> Iterator[Row]:
    two = len(sample.labels) == 2
    edges = np.linspace(0.0, 1.0, BINS + 1)
    for label in np.unique(sample.gold).tolist():
        inside = sample.gold == label
        of = 1 if two else label
        shares = sample.probabilities[inside, of]
        bins = np.clip(np.searchsorted(edges, shares, side="right") - 1, 0, BINS - 1)
        is_in = (bins[:, None] == np.arange(BINS)).astype(np.float64)

        def statistic(weights: FloatBN, is_in: FloatBM = is_in) -> FloatBM:
            # counts are whole numbers, which BLAS adds up exactly in any order
            return np.asarray(weights @ is_in / weights.sum(axis=1, keepdims=True))

        for i, share in enumerate(estimates(statistic, sample.codes[inside], sample.key)):
            yield {
                "class": sample.labels[label],
                "probability_of": sample.labels[of],
                "bin_low": float(edges[i]),
                "bin_high": float(edges[i + 1]),
                **measure("probability_share", share),
            }


def _seen(sample: _Sample) -> tuple[list[int], IntN, IntN]:
    """Return the labels that occur, and gold and predicted as indices into them."""
    seen = np.unique(np.concatenate([sample.gold, sample.predicted]))
    return (
        seen.tolist(),
        np.searchsorted(seen, sample.gold).astype(np.int64),
        np.searchsorted(seen, sample.predicted).astype(np.int64),
    )
