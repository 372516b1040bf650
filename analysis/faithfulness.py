"""Whether the model relies on what explainers name: the table `faithfulness`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from analysis.bootstrap import group_codes, mean, median
from analysis.context import CONTEXT_COLUMNS, Context, defined
from analysis.load import RunTables
from analysis.tidy import (
    FACTOR_COLUMNS,
    GAME_COLUMNS,
    Columns,
    Row,
    factor_key,
    measure,
    numbers,
    partitions,
    table,
)
from engine.metrics.registry import info
from engine.schema import FACTORS, GAME

SIZE_COLUMNS: Columns = {"n_removed": pl.Int32, "reference": pl.String}
"""`reference`: `none` is the metric itself, `minus_random` its paired difference, on the same
examples, to the expected value under a random order."""

_FIT = {"r2": "r2", "abs_residual": "residual"}


def faithfulness_table(run: RunTables, context: Context) -> pl.DataFrame:
    """Return deletion metrics with and without their random baseline, and how well each fit holds.

    Means over examples, except `r2` (weighted R² of a surrogate) and `abs_residual` (additivity, in
    units of the target), which are medians, and absent for explainers without one.
    """
    rows = [*_deletion(run.metrics, context), *_fits(run.attributions, context)]
    names = [*FACTORS, *GAME]
    frame = table(rows, FACTOR_COLUMNS, GAME_COLUMNS, SIZE_COLUMNS, CONTEXT_COLUMNS)
    # deletion metrics and fits of one game side by side, each in the order they were made
    return frame.sort(names, nulls_last=False, maintain_order=True)


def _deletion(metrics: pl.DataFrame, context: Context) -> Iterator[Row]:
    by = [*FACTORS, *GAME, "metric", "n_removed", "definition_version"]
    for keys, part in partitions(metrics, by):
        examples = part["example"].to_list()
        codes = group_codes(examples, part["group"].to_list())
        factors = factor_key(keys)
        metric, version = keys.pop("metric"), keys.pop("definition_version")
        values = numbers(part["value"].to_list())
        gains = values - numbers(part["random"].to_list())
        plain, over = mean(values, codes, factors), mean(gains, codes, factors)
        yield {
            **keys,
            "reference": "none",
            **context.columns(factors, defined(examples, values)),
            **measure(metric, plain, version),
        }
        yield {
            **keys,
            "reference": "minus_random",
            **context.columns(factors, defined(examples, gains), over, info(metric).direction),
            **measure(metric, over, version),
        }


def _fits(attributions: pl.DataFrame, context: Context) -> Iterator[Row]:
    for keys, part in partitions(attributions, [*FACTORS, *GAME]):
        factors = factor_key(keys)
        for metric, column in _FIT.items():
            known = part.filter(pl.col(column).is_not_null() & pl.col(column).is_finite())
            if known.is_empty():
                continue
            examples = known["example"].to_list()
            codes = group_codes(examples, known["group"].to_list())
            values = known[column].to_numpy()
            values = np.abs(values) if metric == "abs_residual" else values
            yield {
                **keys,
                "n_removed": None,
                "reference": "none",
                **context.columns(factors, examples),
                **measure(metric, median(values, codes, factors)),
            }
