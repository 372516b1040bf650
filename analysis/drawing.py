"""What the figures share: a drawing with its words, axes, intervals, the legend."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.select import Row

MOST_COMBINATIONS = 6
"""Combinations of factors that one figure shows; the tables have all."""
MARKERS = "osD^vP"


class Drawing(NamedTuple):
    """A figure with its file name (no ending), the section it belongs to, title and caption."""

    name: str
    table: str
    title: str
    caption: str
    figure: Figure


def new_axes(height: float = 2.8, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of the report's width with axes side by side."""
    figure = Figure(figsize=(4.5, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def interval(row: Row) -> list[list[float]] | None:
    """Return a row's interval as matplotlib takes error bars, None without one."""
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is None or high is None:
        return None
    return [[max(row["value"] - low, 0.0)], [max(high - row["value"], 0.0)]]


def add_legend(axes: Axes, entries: int) -> None:
    """Put a legend above the axes, where it hides nothing; one entry needs none."""
    if entries > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
