"""What the parts of the report share: how numbers, intervals and names read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from analysis.select import Row

_COUNTS = {
    "confusion",
    "only_reference_right",
    "only_other_right",
    *(
        f"{total}{kind}_{how}"
        for total in ("", "total_")
        for kind in ("evaluations", "tokens")
        for how in ("asked", "new")
    ),
}


_BYTES = {"weight_bytes"}


class Cell(NamedTuple):
    """A value with its interval, ready to print; `text` is "–" where there is none."""

    text: str
    interval: str = ""


class Grid(NamedTuple):
    """A readable table: `keys` head the first columns, `columns` the cells."""

    caption: str
    keys: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[Cell]]]


def number(value: float | None) -> str:
    """Return a number to read: counts whole, others with three decimals, fewer for large ones."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        text = f"{value:,.0f}".replace(",", "\u202f")
    elif size and size < 5e-4:
        text = re.sub(r"e([+-])0*", r"e\1", f"{value:.1e}")
    else:
        text = f"{value:.{3 if size < 10 else 1}f}"
    return text.replace("-", "−")


def size(n_bytes: float) -> str:
    """Return a number of bytes to read, in MB or GB of powers of ten."""
    return f"{number(n_bytes / 1e9)} GB" if n_bytes >= 1e9 else f"{number(n_bytes / 1e6)} MB"


def cell_of(row: Row, prefix: str = "value") -> Cell:
    """Return the value of a table's row, or another of its columns, with its interval."""
    ends = ("ci_low", "ci_high") if prefix == "value" else (f"{prefix}_ci_low", f"{prefix}_ci_high")
    low, high = (row.get(end) for end in ends)
    interval = "" if low is None or high is None else f"[{number(low)}, {number(high)}]"
    value = row.get(prefix)
    if value is not None and row["metric"] in _BYTES:
        return Cell(size(value))
    if value is not None and row["metric"] in _COUNTS and value == round(value):
        value = int(value)
    return Cell(number(value), interval)


def words_of(name: object) -> str:
    """Return a name of the code as words."""
    return str(name or "").replace("_", " ")


def values_of(frame: pl.DataFrame, column: str) -> list[str]:
    """Return the values of a column in order of appearance; none where it is missing."""
    if column not in frame.columns:
        return []
    return [str(value) for value in frame[column].unique(maintain_order=True) if value is not None]


def distinct(frame: pl.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of these columns that differ; none where a column is missing."""
    if not set(columns) <= set(frame.columns):
        return []
    return frame.select(columns).unique(maintain_order=True).rows()
