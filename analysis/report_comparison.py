"""The readable tables of the comparisons: does it predict better, do its explanations move?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from analysis.comparison_words import (
    NOISE_NAMES,
    compared,
    context_columns,
    factor_of,
    is_noise,
    without_twins,
)
from analysis.report_parts import Cell, Grid, cell_of, number, words_of
from analysis.select import Row, Tables, rows_of, title_of, varying
from analysis.shift import BELOW, BEYOND, WITHIN
from analysis.shift_examples import ANSWERS
from engine.adapter_section import BASE
from engine.schema import FACTORS, GAME

MOST_LINES = 60
"""Lines of a table on the page; the CSV has all."""

_CAPTIONS = {
    "adapter": "Adapters",
    "precision": "Precisions",
    "model": "Models",
    "training_seed": "Training noise: adapters that differ in the seed of their training",
    "explainer_seed": "Estimator noise: explainers that differ in their seed, on one model",
    "replicate": "Rounding noise: the same model again, its prompts in another order",
}
_SHIFT = (
    ("top3_overlap", "between"),
    ("sign_flip_ratio", "between"),
    ("abs_cosine_gain", "between"),
    ("mass_ratio", "between"),
    ("gini", "difference"),
)
_JUDGED = "spearman"
_MOVED = {BEYOND: "moved more", BELOW: "moved less", WITHIN: "no difference shown"}
_OTHER = ("other_model", "other_precision", "other_adapter")

_Cells: TypeAlias = dict[tuple[str, str], Row]
"""The rows of a line by metric and quantity."""
_Named: TypeAlias = dict[str, Cell]
"""The cells of a line by the heading of their column."""


def comparison_grids(tables: Tables) -> list[Grid]:
    """Return, for each kind of comparison, a line a comparison: how both predict."""
    return [
        _grid(kind, rows, context_columns(rows), _performance)
        for kind, rows in _by_kind(rows_of(tables, "comparison"))
    ]


def shift_grids(tables: Tables) -> list[Grid]:
    """Return, for each kind of comparison, a line an explainer: how far its explanations move.

    Beside it stand the difference in accuracy and, where noise was measured, whether the rank
    correlation is lower than noise makes it on the same examples.
    """
    accuracy = {
        _levels(row): row
        for row in rows_of(tables, "comparison", metric="accuracy", quantity="difference")
    }
    grids = []
    for kind, rows in _by_kind(without_twins(rows_of(tables, "attribution_shift"))):
        context = context_columns(rows)
        own = [] if kind == "explainer_seed" else ["explainer"]  # it names both
        keys = [*context, *own, *varying(rows, GAME[1:])]
        grids.append(_grid(kind, rows, keys, partial(_movement, accuracy)))
    return grids


def _by_kind(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for kind in _CAPTIONS:
        if own := [row for row in rows if row["kind"] == kind]:
            yield kind, own


def _levels(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["kind"], *(row[name] for name in (*FACTORS, *_OTHER)))


def _grid(
    kind: str, rows: Sequence[Row], keys: Sequence[str], cells_of: Callable[[_Cells], _Named]
) -> Grid:
    """Return a line for each comparison, pair of explainers and value of `keys`."""
    lines: dict[tuple[Any, ...], _Cells] = {}
    for row in rows:
        explainers = row.get("explainer"), row.get("other_explainer")
        line = lines.setdefault((_levels(row), explainers, *(row[key] for key in keys)), {})
        line[row["metric"], row["quantity"]] = row
    factor = factor_of(kind)
    references = {row[factor] for row in rows}
    one = len(references) == 1 and kind not in NOISE_NAMES
    caption = _CAPTIONS[kind]
    if one:
        reference = str(references.pop())
        caption += f" against {'the model itself' if reference == BASE else reference}"
    if len(lines) > MOST_LINES:
        caption += f"; the first {MOST_LINES} of {len(lines)}"
    shown = []
    for line in list(lines.values())[:MOST_LINES]:
        row = next(iter(line.values()))
        head = str(row[f"other_{factor}"]) if one else compared(row)
        shown.append(([head, *(str(row[key]) for key in keys)], cells_of(line)))
    columns = list(dict.fromkeys(name for _, cells in shown for name in cells))
    heads = [factor if one else "compared", *(words_of(key) for key in keys)]
    filled = [(head, [cells.get(c, Cell("–")) for c in columns]) for head, cells in shown]
    return Grid(caption, heads, columns, filled)


def _performance(cells: _Cells) -> _Named:
    found = {}
    for metric, side in (("accuracy", "reference"), ("accuracy", "other")):
        found[f"Accuracy, {side}"] = _cell(cells.get((metric, side)))
    for metric, name in (("accuracy", "Accuracy"), ("f1", "Macro F1"), ("mcc", "Matthews")):
        found[f"{name}, difference"] = _cell(cells.get((metric, "difference")), signed=True)
    right = [cells.get((f"only_{side}_right", "between")) for side in ("reference", "other")]
    if all(right):
        counts = " / ".join(number(int(row["value"])) for row in right if row)
        found["Right alone, reference / other"] = Cell(counts)
    found["McNemar mid-p"] = _cell(cells.get(("mcnemar_mid_p", "between")))
    found["Same prediction"] = _cell(cells.get(("prediction_agreement", "between")))
    judged = cells.get(("accuracy", "difference")) or next(iter(cells.values()))
    found["Examples"] = Cell(number(int(judged["n"])))
    return found


def _movement(accuracy: Mapping[tuple[Any, ...], Row], cells: _Cells) -> _Named:
    row = next(iter(cells.values()))
    found = {}
    if not is_noise(row) and (change := accuracy.get(_levels(row))) is not None:
        found["Accuracy, difference"] = _cell(change, signed=True)
    found[title_of(_JUDGED)] = _cell(cells.get((_JUDGED, "between")))
    for kind, name in NOISE_NAMES.items():
        if judged := cells.get((_JUDGED, f"minus_{kind}")):
            cell = cell_of(judged)
            text = _MOVED.get(judged["verdict"], str(judged["verdict"] or "–"))
            found[f"Against {name}"] = Cell(text, f"{cell.text} {cell.interval}")
    for metric, quantity in _SHIFT:
        name = title_of(metric) + (", difference" if quantity == "difference" else "")
        found[name] = _cell(cells.get((metric, quantity)), signed=quantity == "difference")
    for metric in ANSWERS:
        known = cells.get((metric, "between"))
        if known is not None and known["value"] is not None:
            found[title_of(metric)] = _cell(known)
    refused = f"{row['n_refused']} refused" if row["n_refused"] else ""
    n = max(each["n"] + each["n_undefined"] for each in cells.values())
    found["Examples"] = Cell(number(int(n)), refused)
    return found


def _cell(row: Row | None, signed: bool = False) -> Cell:
    if row is None:
        return Cell("–")
    cell = cell_of(row)
    return cell._replace(text="+" + cell.text) if signed and row["value"] > 0 else cell
