"""The figures of the families: a line a model, a mark a precision and adapter."""

from __future__ import annotations

from analysis.drawing import MARKERS, MOST_COMBINATIONS, Drawing, add_legend, interval, new_axes
from analysis.ink import Ink
from analysis.report_families import family_rows
from analysis.select import Row, Tables, combination, varying
from engine.schema import GAME

MOST_MODELS = 24
"""Models that a figure shows; the tables have all."""
_CONTROL = "random"


def family_drawings(tables: Tables, ink: Ink) -> list[Drawing]:
    """Return accuracy and comprehensiveness minus random of every model, with intervals.

    One data set, prompt and game is shown, and of the explainers the first but the control; none
    where there is one model only.
    """
    rows = family_rows(tables)
    accuracy, first = _one([row for row in rows if row["metric"] == "accuracy"], ("data", "prompt"))
    drawings = []
    if accuracy:
        drawings.append(
            _drawing(
                accuracy,
                ink,
                name="families_accuracy",
                title="Which model is right?",
                x="accuracy, 95 % interval",
                line=_majority(accuracy),
                caption="Dashed: always answering with the commonest label." + _shown(first),
            )
        )
    gains = [row for row in rows if row["metric"] == "comprehensiveness"]
    names = dict.fromkeys(row["explainer"] for row in gains)
    chosen = next((name for name in names if name != _CONTROL), None)
    own = [row for row in gains if row["explainer"] == chosen]
    gains, first = _one(own, ("data", "prompt", *GAME[1:]))
    if gains:
        drawings.append(
            _drawing(
                gains,
                ink,
                name="families_faithfulness",
                title="Do explanations hold in every family?",
                x="comprehensiveness minus random, 95 % interval",
                line=0.0,
                caption=f"Of {chosen}, paired with random orders of the same words; right of the "
                "dashed line the words it ranks first matter more than random ones."
                + _shown(first),
            )
        )
    return drawings


def _one(rows: list[Row], columns: tuple[str, ...]) -> tuple[list[Row], str]:
    """Return the rows of the first combination of these columns, and its name if it has others."""
    if not rows:
        return [], ""
    shown = varying(rows, columns)
    first = combination(rows[0], shown)
    return [row for row in rows if combination(row, shown) == first], first


def _shown(first: str) -> str:
    return f" Shown: {first}." if first else ""


def _majority(rows: list[Row]) -> float | None:
    """Return the majority rate that all rows share, None where they differ."""
    rates = {row["majority_rate"] for row in rows}
    return rates.pop() if len(rates) == 1 else None


def _drawing(
    rows: list[Row],
    ink: Ink,
    *,
    name: str,
    title: str,
    x: str,
    line: float | None,
    caption: str,
) -> Drawing:
    models = list(dict.fromkeys(row["model"] for row in rows))[:MOST_MODELS]
    settings = varying(rows, ("precision", "adapter"))
    kinds = list(dict.fromkeys(combination(row, settings) for row in rows))[:MOST_COMBINATIONS]
    figure, (axes,) = new_axes(0.9 + len(models) * max(0.24, 0.13 * len(kinds)))
    for row in rows:
        kind = combination(row, settings)
        if row["model"] not in models or kind not in kinds:
            continue
        i = kinds.index(kind)
        axes.errorbar(
            row["value"],
            models.index(row["model"]) + 0.6 * (i - (len(kinds) - 1) / 2) / len(kinds),
            xerr=interval(row),
            fmt=MARKERS[i],
            color=ink.series[i],
            ms=5,
            capsize=2,
        )
    for i, kind in enumerate(kinds):
        axes.plot([], [], MARKERS[i], color=ink.series[i], label=kind)
    if line is not None:
        axes.axvline(line, color=ink.text, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel(x)
    add_legend(axes, len(kinds))
    return Drawing(name, "families", title, caption, figure)
