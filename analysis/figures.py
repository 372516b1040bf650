"""The figures of a run, drawn from its tidy tables: PNG files, and SVG in the page's colours.

Every figure selects by column name and is left out where its table or metric is missing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.comparison_figure import shift_drawing
from analysis.drawing import MARKERS, MOST_COMBINATIONS, Drawing, add_legend, interval, new_axes
from analysis.families_figure import family_drawings
from analysis.ink import PRINT, VARIABLES, Ink
from analysis.select import COST, Row, Tables, by_combination, rows_of, title_of
from engine.schema import FACTORS

FEWEST = 5
"""Examples that a point of the deletion figure needs at least."""


def draw(tables: Tables, predictions: pl.DataFrame, ink: Ink = PRINT) -> list[Drawing]:
    """Return every figure that the tables allow."""
    with mpl.rc_context(_style(ink)):
        found = [
            _probabilities(predictions, ink),
            *family_drawings(tables, ink),
            shift_drawing(tables, ink),
            _minus_random(tables, ink),
            _by_size(tables, ink),
            _agreement(tables, ink),
            _cost(tables, ink),
        ]
    return [drawing for drawing in found if drawing is not None]


def write_figures(tables: Tables, predictions: pl.DataFrame, folder: Path) -> list[Path]:
    """Write every figure as PNG, the same bytes for the same tables; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for drawing in draw(tables, predictions):
        path = folder / f"{drawing.name}.png"
        drawing.figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})
        paths.append(path)
    return paths


def svg(drawing: Drawing) -> str:
    """Return a drawing made with `THEMED` ink as an inline SVG element of a page.

    Names inside are made unique to the drawing; namespaces and metadata, which an HTML page needs
    not, are left out, so that the page holds no address at all.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": drawing.name}):
        drawing.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text, count=3)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", text)
    text = text.replace("xlink:href", "href")
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {box.group() if box else ""} role="img" aria-labelledby="fig-{drawing.name}">'
    return head + text[text.index(">") + 1 :].strip()


def _style(ink: Ink) -> Any:
    colours = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(colours, ink.text),
        "font.size": 9,
        "font.family": "DejaVu Sans",
        "axes.edgecolor": ink.grid,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "grid.color": ink.grid,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
    }


def _minus_random(tables: Tables, ink: Ink) -> Drawing | None:
    rows = rows_of(tables, "faithfulness", metric="comprehensiveness", reference="minus_random")
    if not rows:
        return None
    names = list(dict.fromkeys(row["explainer"] for row in rows))
    groups = list(by_combination(rows).items())[:MOST_COMBINATIONS]
    figure, (axes,) = new_axes(max(1.6, 0.55 + 0.32 * len(names) * max(1.0, 0.5 * len(groups))))
    for i, (label, group) in enumerate(groups):
        shift = 0.6 * (i - (len(groups) - 1) / 2) / len(groups)
        for row in group:
            y = names.index(row["explainer"]) + shift
            colour, marker = ink.series[i], MARKERS[i]
            axes.errorbar(
                row["value"], y, xerr=interval(row), fmt=marker, color=colour, ms=6, capsize=3
            )
        axes.plot([], [], MARKERS[i], color=ink.series[i], label=label)
    axes.axvline(0, color=ink.text, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel("comprehensiveness minus random, 95 % interval")
    add_legend(axes, len(groups))
    return Drawing(
        "faithfulness",
        "faithfulness",
        "Better than deleting words at random?",
        "Paired difference on the same examples. Right of the dashed line: the words an explainer "
        "ranks first matter more to the model than random ones.",
        figure,
    )


def _by_size(tables: Tables, ink: Ink) -> Drawing | None:
    wanted = {"metric": "comprehensiveness_at_k", "reference": "none"}
    rows = [r for r in rows_of(tables, "faithfulness", **wanted) if r.get("n_removed") is not None]
    if not rows:
        return None
    label, group = next(iter(by_combination(rows).items()))
    enough = max(FEWEST, max(row["n"] for row in group) // 5)
    group = [row for row in group if row["n"] >= enough] or group
    figure, (axes,) = new_axes()
    for i, name in enumerate(dict.fromkeys(row["explainer"] for row in group)):
        points = sorted((r["n_removed"], r["value"]) for r in group if r["explainer"] == name)
        style = (MARKERS[i % len(MARKERS)], ink.series[i % len(ink.series)])
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker=style[0], color=style[1], ms=4, linewidth=1.4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.set_xlabel("words deleted, strongest first")
    axes.set_ylabel("drop in probability")
    add_legend(axes, len({row["explainer"] for row in group}))
    return Drawing(
        "deletion",
        "faithfulness",
        "What deleting the strongest words does",
        "Comprehensiveness at each size of the deleted set. A size comes from the texts that are "
        "long enough for it; sizes of few texts are in the table only."
        + (f" Shown: {label}." if label else ""),
        figure,
    )


def _agreement(tables: Tables, ink: Ink) -> Drawing | None:
    every = rows_of(tables, "agreement")
    metrics = sorted({r["metric"] for r in every}, key=lambda m: ("spearman" not in m, m))
    groups = list(by_combination([r for r in every if r["metric"] in metrics[:1]]).items())
    if not groups:
        return None
    rows = [row for _, group in groups for row in group]
    names = list(dict.fromkeys(row[c] for row in rows for c in ("explainer_a", "explainer_b")))
    figure, panels = new_axes(2.8, min(len(groups), 2))
    for axes, (label, group) in zip(panels, groups, strict=False):
        cells = {(r["explainer_a"], r["explainer_b"]): r["value"] for r in group}
        cells |= {(b, a): value for (a, b), value in cells.items()}
        _matrix(axes, names, cells, ink)
        axes.set_title(label, fontsize=9)
    panels[0].set_yticks(range(len(names)), names)
    return Drawing(
        "agreement",
        "agreement",
        "Do the explainers agree?",
        f"Mean {title_of(metrics[0]).lower()} of two explainers over the same examples; orange "
        "agrees, blue disagrees.",
        figure,
    )


def _matrix(
    axes: Axes, names: Sequence[str], cells: Mapping[tuple[str, str], float], ink: Ink
) -> None:
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            value = cells.get((one, other))
            tint = ink.grid if value is None else ink.positive if value > 0 else ink.negative
            opacity = 0.25 if value is None else min(abs(value), 1.0)
            axes.add_patch(
                Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, facecolor=tint, alpha=opacity, lw=0)
            )
            text = "" if i == j else "–" if value is None else f"{value:.2f}".replace("-", "−")
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _probabilities(predictions: pl.DataFrame, ink: Ink) -> Drawing | None:
    if (
        not {"labels", "gold", "probabilities"} <= set(predictions.columns)
        or predictions.is_empty()
    ):
        return None
    if "continuation" in predictions.columns:  # labels of their own, which make no histogram
        predictions = predictions.filter(pl.col("continuation").is_null())
        if predictions.is_empty():
            return None
    label, rows = next(iter(by_combination(list(predictions.iter_rows(named=True))).items()))
    labels = rows[0]["labels"]
    last = len(labels) - 1
    by_gold: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda r: -1 if r["gold"] is None else r["gold"]):
        gold = row["gold"]
        shown = last if len(labels) == 2 or gold is None else gold
        name = "no gold label" if gold is None else f"gold {labels[gold]}"
        by_gold.setdefault(name, []).append(row["probabilities"][shown])
    figure, (axes,) = new_axes()
    edges = [i / 20 for i in range(21)]
    for i, (name, values) in enumerate(by_gold.items()):
        colour, dashes = ink.series[i % len(ink.series)], ("-", (0, (4, 2)))[i % 2]
        axes.hist(values, edges, histtype="stepfilled", alpha=0.35, color=colour)
        label_n = f"{name} (n = {len(values)})"
        axes.hist(values, edges, histtype="step", lw=1.6, ls=dashes, color=colour, label=label_n)
    axes.set_xlim(0, 1)
    axes.grid(axis="y")
    what = labels[last] if len(labels) == 2 else "the gold label"
    axes.set_xlabel(f"predicted probability of {what}")
    axes.set_ylabel("examples")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes, 2)
    caption = "A model that tells the classes apart has two heaps with little overlap."
    return Drawing(
        "probabilities",
        "performance",
        "How sure the model is",
        caption + (f" Shown: {label}." if label else ""),
        figure,
    )


def _cost(tables: Tables, ink: Ink) -> Drawing | None:
    gains = rows_of(tables, "faithfulness", metric="comprehensiveness", reference="minus_random")
    price = {_key(row): row["value"] for row in rows_of(tables, "cost", metric=COST)}
    if not any(price.get(_key(row)) for row in gains):
        return None
    groups = list(by_combination(gains).items())[:MOST_COMBINATIONS]
    figure, (axes,) = new_axes()
    for i, (label, group) in enumerate(groups):
        ordered = sorted(group, key=lambda row: price.get(_key(row)) or 0.0)
        for place, row in enumerate(ordered):
            if not (x := price.get(_key(row))):
                continue
            axes.errorbar(
                x, row["value"], yerr=interval(row), fmt=MARKERS[i], color=ink.series[i], capsize=3
            )
            offset = (6, -11 if place % 2 else 5)  # neighbours may lie close to each other
            axes.annotate(row["explainer"], (x, row["value"]), offset, textcoords="offset points")
        axes.plot([], [], MARKERS[i], color=ink.series[i], label=label)
    axes.axhline(0, color=ink.text, linewidth=0.9, linestyle=(0, (4, 3)))
    prices = [price[_key(row)] for row in gains if price.get(_key(row))]
    if (span := max(prices) / min(prices)) > 20:
        axes.set_xscale("log")
        axes.set_xlim(min(prices) / span**0.05, max(prices) * span**0.3)  # right: room for a name
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.3 * max(prices))
    axes.grid(axis="both")
    axes.set_xlabel("seconds per explanation, sharing nothing")
    axes.set_ylabel("comprehensiveness minus random")
    add_legend(axes, len(groups))
    return Drawing(
        "cost",
        "cost",
        "What faithfulness costs",
        "Up is more faithful, left is cheaper.",
        figure,
    )


def _key(row: Row) -> tuple[Any, ...]:
    return (*[row.get(factor) for factor in FACTORS], row.get("explainer", row.get("consumer")))
