"""The readable table of the families: a line a model, precision and adapter."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.cost import WEIGHTS
from analysis.families import EXPLAINS, PREDICTS
from analysis.report_parts import Cell, Grid, cell_of, words_of
from analysis.select import Row, Tables, rows_of, title_of, varying
from engine.schema import FACTORS, GAME

MOST_LINES = 80
"""Lines of the table on the page; the CSV has all."""


def family_rows(tables: Tables) -> list[Row]:
    """Return the rows of the table `families`; none where there is one model only."""
    rows = rows_of(tables, "families")
    return rows if varying(rows, ["model"]) else []


def family_grids(tables: Tables) -> list[Grid]:
    """Return a table of how each model predicts and how faithful each explainer is to it."""
    rows = family_rows(tables)
    predicts = [row for row in rows if row["metric"] in dict(PREDICTS)]
    predicts += [row for row in rows if predicts and row["metric"] == WEIGHTS]
    grids = [_grid("Is the model right?", predicts, "")]
    for metric in EXPLAINS:
        own = [row for row in rows if row["metric"] == metric]
        arrow = "↑" if all(row.get("direction") == "higher" for row in own) else "↓"
        caption = f"{title_of(metric)} minus random\u00a0{arrow}, by explainer"
        grids.append(_grid(caption, own, "explainer"))
    return [grid for grid in grids if grid.rows]


def _grid(caption: str, rows: Sequence[Row], over: str) -> Grid:
    """Return a line a setting; the columns are the metrics, or the explainers of one metric."""
    settings = varying(rows, [*FACTORS, *GAME[1:]])
    keys = list(dict.fromkeys(["model", *settings]))
    lines: dict[tuple[str, ...], dict[str, Cell]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        column = str(row[over]) if over else _heading(row)
        columns[column] = None
        line = lines.setdefault(tuple(str(row.get(key) or "none") for key in keys), {})
        line[column] = cell_of(row)
        if row["metric"] == "accuracy":
            line[_MAJORITY] = cell_of(row, "majority_rate")
            columns[_MAJORITY] = None
    body = [
        (list(key), [cells.get(column, Cell("–")) for column in columns])
        for key, cells in list(lines.items())[:MOST_LINES]
    ]
    return Grid(caption, [words_of(key) for key in keys], list(columns), body)


_MAJORITY = "Majority rate"


def _heading(row: Row) -> str:
    arrow = "\u00a0↓" if row["direction"] == "lower" else "\u00a0↑"
    return ("Macro F1" if row["metric"] == "f1" else title_of(row["metric"])) + arrow
