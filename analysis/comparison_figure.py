"""The figure of the attribution shift: what was changed on purpose beside what noise changes."""

from __future__ import annotations

from analysis.comparison_words import is_noise, line_of, without_twins
from analysis.drawing import MARKERS, MOST_COMBINATIONS, Drawing, add_legend, interval, new_axes
from analysis.ink import Ink
from analysis.select import Row, Tables, combination, rows_of, varying
from engine.schema import GAME

MOST_LINES = 20
"""Comparisons that the figure shows; the tables have all."""
_METRIC = {"metric": "spearman", "quantity": "between"}


def shift_drawing(tables: Tables, ink: Ink) -> Drawing | None:
    """Return the mean rank correlation of every comparison, those of noise hollow and below."""
    rows = without_twins(rows_of(tables, "attribution_shift", **_METRIC))
    if not rows:
        return None
    rows, game = _one_game(sorted(rows, key=is_noise))
    lines = dict.fromkeys((line_of(row, rows), is_noise(row)) for row in rows)
    shown = list(lines)[:MOST_LINES]
    meant = sum(not noise for _, noise in shown)
    names = list(dict.fromkeys(row["explainer"] for row in rows))[:MOST_COMBINATIONS]
    figure, (axes,) = new_axes(0.9 + len(shown) * max(0.24, 0.12 * len(names)))
    for row in rows:
        line = line_of(row, rows), is_noise(row)
        if line not in shown or row["explainer"] not in names:
            continue
        i = names.index(row["explainer"])
        axes.errorbar(
            row["value"],
            shown.index(line) + 0.6 * (i - (len(names) - 1) / 2) / len(names),
            xerr=interval(row),
            fmt=MARKERS[i],
            color=ink.series[i],
            ms=5,
            capsize=2,
            fillstyle="none" if is_noise(row) else "full",
        )
    for i, name in enumerate(names):
        axes.plot([], [], MARKERS[i], color=ink.series[i], label=name)
    caption = "Means over the examples with 95 % intervals; at 1 the words rank alike."
    if 0 < meant < len(shown):
        axes.axhline(meant - 0.5, color=ink.text, linewidth=0.9, linestyle=(0, (4, 3)))
        caption += (
            " Hollow, below the dashed line: only a seed or the rounding was changed, so this is"
            " how far explanations move without a reason. Whether one moved further on the same"
            " examples is tested in the table."
        )
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel("rank correlation")
    add_legend(axes, len(names))
    return Drawing(
        "shift",
        "attribution_shift",
        "How far do the explanations move?",
        caption + (f" Shown: {game}." if game else ""),
        figure,
    )


def _one_game(rows: list[Row]) -> tuple[list[Row], str]:
    """Return the rows of the first game, and its name where there are others."""
    columns = varying(rows, GAME[1:])
    first = combination(rows[0], columns)
    return [row for row in rows if combination(row, columns) == first], first
