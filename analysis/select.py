"""Rows of the tidy tables for the report and its figures, and how readers tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from engine.metrics.registry import REGISTRY
from engine.schema import FACTORS, GAME

Tables: TypeAlias = Mapping[str, pl.DataFrame]
Row: TypeAlias = dict[str, Any]

SETTINGS = (*FACTORS, *GAME[1:])
"""Rows that differ here are told apart everywhere: other models, other games."""
COST = "standalone_seconds"
"""What an explanation costs that shares no evaluation: the fair price to compare."""


def rows_of(tables: Tables, name: str, **equal: object) -> list[Row]:
    """Return the rows of a table with these values; none where the table or a column is missing."""
    frame = tables.get(name)
    if frame is None or not {*equal, "metric", "value"} <= set(frame.columns):
        return []
    wanted = [row for row in frame.iter_rows(named=True) if row["value"] is not None]
    return [row for row in wanted if all(row[key] == value for key, value in equal.items())]


def varying(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = SETTINGS) -> list[str]:
    """Return the columns that have more than one value."""
    return [c for c in columns if len({str(row.get(c)) for row in rows}) > 1]


def combination(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Return the values of these columns as a heading, "" where there are none."""
    return " · ".join(str(row.get(c) or "none") for c in columns)


def by_combination(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each combination of the factors that vary, in order of appearance."""
    columns = varying(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(combination(row, columns), []).append(row)
    return groups


def title_of(metric: str) -> str:
    """Return a metric's name for readers."""
    return REGISTRY[metric].title if metric in REGISTRY else metric.replace("_", " ")
