"""Tidy tables: key columns, then the measure columns of `engine.schema.TIDY`, one measure a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.bootstrap import Estimate, FloatN
from engine.metrics.registry import info
from engine.schema import FACTORS, GAME, TIDY

Columns = Mapping[str, Any]
"""Name -> polars type."""
Row = dict[str, Any]

FACTOR_COLUMNS: Columns = dict.fromkeys(FACTORS, pl.String)
GAME_COLUMNS: Columns = dict.fromkeys(GAME, pl.String)
TIDY_COLUMNS: Columns = dict(pl.DataFrame(pl.from_arrow(TIDY.empty_table())).schema)


def measure(metric: str, estimate: Estimate, definition_version: int | None = None) -> Row:
    """Return the measure columns of one row.

    Args:
        metric: A registered name.
        estimate: Its value.
        definition_version: Of the definition the values were computed by, if they were read from
            a file; else the current one.
    """
    known = info(metric)
    return {
        "metric": metric,
        "value": estimate.value,
        "n": estimate.n,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "direction": known.direction,
        "definition_version": definition_version or known.definition_version,
    }


def table(rows: Sequence[Row], *keys: Columns) -> pl.DataFrame:
    """Return rows as a frame with the key columns, then the measure columns."""
    schema = {name: kind for columns in (*keys, TIDY_COLUMNS) for name, kind in columns.items()}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def partitions(frame: pl.DataFrame, by: Sequence[str]) -> Iterator[tuple[Row, pl.DataFrame]]:
    """Yield the rows of each combination of `by`, combinations and rows in sorted order."""
    ordered = frame.sort([*by, "example"], nulls_last=False, maintain_order=True)
    for part in ordered.partition_by(list(by), maintain_order=True):
        yield {name: part[name][0] for name in by}, part


def numbers(values: Sequence[float | None]) -> FloatN:
    """Return values as floats [N], NaN for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def attribution_values(attributions: pl.DataFrame) -> list[FloatN | None]:
    """Return the values [F] of each attribution; None for one that has a value that isn't finite.

    A broken explanation must not stop the others' tables.
    """
    arrays = [np.array(v, dtype=np.float64) for v in attributions["values"].to_list()]
    return [array if np.isfinite(array).all() else None for array in arrays]


def factor_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of the factors: the key of a row's random numbers."""
    return tuple(row[name] for name in FACTORS)
