"""The sections of the report: each topic's figures, its tables to read, its rows in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from markupsafe import Markup

from analysis.cost import WEIGHTS
from analysis.drawing import Drawing
from analysis.figures import draw, svg
from analysis.ink import THEMED
from analysis.report_comparison import comparison_grids, shift_grids
from analysis.report_families import family_grids, family_rows
from analysis.report_parts import Cell, Grid, cell_of, number, words_of
from analysis.select import SETTINGS, Row, Tables, combination, rows_of, title_of, varying
from engine.schema import FACTORS

MOST_ROWS = 400
"""Rows of a full table on the page; the CSV has all."""
MOST_NOTES = 2

_HEADS = {"explainer_a": "explainer", "explainer_b": "and", "rationale_kind": "marked by"}
_OWN_TABLE = {"confusion", "probability_share"}  # metrics that a table of means has no place for
_BY_EXPLAINER = "By explainer"
_STANDING = ("The model’s accuracy", "Majority rate of these")
_LEADS = {
    "performance": ("Performance", "Is the model right, and does it know when?"),
    "families": (
        "Families",
        "Every model, precision and adapter on the same examples: is it right, and do explanations "
        "name what it relies on? Models that can't be had, or failed, are listed under failures.",
    ),
    "comparison": (
        "Comparisons",
        "Which predicts better, on the same examples? Differences and their intervals are paired. "
        "McNemar’s test looks at the examples on which only one of the two is right.",
    ),
    "attribution_shift": (
        "Attribution shift",
        "Do the explanations change with the adapter, the precision or the model? Each example is "
        "compared for the same class, the same words and the same coalitions. What nothing but "
        "noise changes stands beside it: another seed of the explainer (estimator noise), another "
        "seed of the training (training noise), the same model rounded otherwise (the zero of the "
        "scale).",
    ),
    "faithfulness": (
        "Faithfulness",
        "Does the model rely on the words an explainer names? Comprehensiveness: how far the "
        "label's probability drops without them. Sufficiency: how far it drops with them alone. "
        "Minus random: the paired difference to deleting words in random order.",
    ),
    "agreement": ("Agreement", "Do two explainers say the same of the same example?"),
    "plausibility": ("Plausibility", "Do the explainers name the words that people marked?"),
    "complexity": ("Complexity", "On how few words does an explanation rest?"),
    "cost": (
        "Cost",
        "What an explanation costs. Explainers share evaluations, so what is paid (marginal) is "
        "less than what each would have cost alone.",
    ),
}


class Section(NamedTuple):
    """A topic of the results; `drawings` are (drawing, SVG, has a PNG beside the report)."""

    name: str
    heading: str
    lead: str
    drawings: list[tuple[Drawing, Markup, bool]]
    grids: list[Grid]
    header: list[str]
    full: list[list[str]]
    n_rows: int


def build_sections(tables: Tables, predictions: pl.DataFrame, folder: Path) -> list[Section]:
    """Return the topics that have a table or a figure; `figures/` is looked for in `folder`."""
    drawings = draw(tables, predictions, THEMED)
    sections = []
    for name, (heading, lead) in _LEADS.items():
        frame = tables.get(name)
        own = [
            (d, Markup(svg(d)), (folder / "figures" / f"{d.name}.png").is_file())
            for d in drawings
            if d.table == name
        ]
        if (frame is None or frame.is_empty()) and not own:
            continue
        if name == "families" and not family_rows(tables):
            continue  # of one model it repeats what stands elsewhere
        frame = pl.DataFrame() if frame is None else frame
        full = [[_plain(v) for v in row] for row in frame.head(MOST_ROWS).iter_rows()]
        grids = _grids(tables, name)
        sections.append(Section(name, heading, lead, own, grids, frame.columns, full, frame.height))
    return sections


def _plain(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "" if value is None else str(value)


def _grids(tables: Tables, name: str) -> list[Grid]:
    if name == "families":
        return family_grids(tables)
    if name == "comparison":
        return comparison_grids(tables)
    if name == "attribution_shift":
        return shift_grids(tables)
    rows = [row for row in rows_of(tables, name) if row.get("n_removed") is None]
    plain = [row for row in rows if row["metric"] not in _OWN_TABLE]
    if name == "performance":
        confusion = [row for row in rows if row["metric"] == "confusion"]
        grids = [
            _grid("All classes", [r for r in plain if not r.get("class")], ()),
            _grid("By class", [r for r in plain if r.get("class")], ("class",)),
            _grid(
                "Confusion: rows are gold, columns predicted",
                confusion,
                ("class",),
                lambda r: str(r["predicted_class"]),
            ),
        ]
    elif name == "cost":
        totals = [row for row in plain if row["metric"].startswith("total_")]
        sizes = [row for row in plain if row["metric"] == WEIGHTS]
        means = [row for row in plain if row not in totals and row not in sizes]
        grids = [
            _grid("Mean of an example", means, ("explainer",)),
            _grid("Totals of the run", totals, ("explainer",)),
            _grid("On every host", sizes, ()),
        ]
    elif name == "faithfulness":
        own = [row for row in plain if row.get("reference") != "minus_random"]
        paired = [row for row in plain if row.get("reference") == "minus_random"]
        # a gain over random is a difference already
        paired = [row for row in paired if row["metric"] != "deletion_gain"]
        grids = [
            _grid("Minus random, on the same examples", paired, ["explainer"]),
            _grid(_accuracy_note(plain), own, ["explainer"]),
        ]
    else:
        keys = ["explainer_a", "explainer_b"] if name == "agreement" else ["explainer"]
        keys += ["rationale_kind"] if name == "plausibility" else []
        grids = [_grid(_accuracy_note(plain), plain, keys)]
    return [grid for grid in grids if grid.rows]


def _column(row: Row) -> str:
    """Return a column's heading: the metric, and which way is better."""
    arrow = {"higher": "\u00a0↑", "lower": "\u00a0↓"}.get(row.get("direction") or "", "")
    return title_of(row["metric"]) + arrow


def _grid(
    caption: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    column: Callable[[Row], str] = _column,
) -> Grid:
    """Return rows × metrics; the settings that vary head the rows beside `keys`."""
    settings = varying(rows, [c for c in SETTINGS if rows and c in rows[0]])
    keys = [
        *[c for c in settings if c in FACTORS],
        *keys,
        *[c for c in settings if c not in FACTORS],
    ]
    columns = list(dict.fromkeys(column(row) for row in rows))
    by_key: dict[tuple[str, ...], dict[str, Cell]] = {}
    for row in rows:
        cells = by_key.setdefault(
            tuple(
                words_of(row.get(key)) if key == "rationale_kind" else str(row.get(key) or "none")
                for key in keys
            ),
            {},
        )
        cells[column(row)] = cell_of(row)
        if row.get("reference") == "minus_random" and row["metric"] == "comprehensiveness":
            cells["Verdict"] = Cell(words_of(row.get("verdict")) or "–")
        if caption == _BY_EXPLAINER and row.get("accuracy") is not None:
            cells[_STANDING[0]] = cell_of(row, "accuracy")
            cells[_STANDING[1]] = Cell(number(row.get("majority_rate")))
    if any(_STANDING[0] in cells for cells in by_key.values()):
        columns += _STANDING
    if any("Verdict" in cells for cells in by_key.values()):
        columns.insert(0, "Verdict")
    lines = [
        (list(key), [cells.get(name, Cell("–")) for name in columns])
        for key, cells in by_key.items()
    ]
    if len(lines) == 1 and not keys:  # one row reads better downwards
        lines = [([name], [cell]) for name, cell in zip(columns, lines[0][1], strict=True)]
        return Grid(caption, ["metric"], ["value"], lines)
    return Grid(caption, [_HEADS.get(key, words_of(key)) for key in keys], columns, lines)


def _accuracy_note(rows: Sequence[Row]) -> str:
    """Return the model's accuracy on the explained examples as a caption.

    More than `MOST_NOTES` combinations of factors stand in columns of their own instead.
    """
    shown = varying(rows, FACTORS)
    notes: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["n"]):  # the row of the most examples holds
        if row.get("accuracy") is not None and row.get("majority_rate") is not None:
            cell = cell_of(row, "accuracy")
            label = combination(row, shown)
            below = (row.get("verdict") or "").startswith("no verdict: accuracy")
            notes[label] = (
                f"{label + ': the' if label else 'The'} model’s accuracy on these examples is "
                f"{cell.text} {cell.interval}, the majority rate {number(row['majority_rate'])}"
                f"{', so no verdict is drawn' if below else ''}"
            )
    return "; ".join(notes.values()) if 0 < len(notes) <= MOST_NOTES else _BY_EXPLAINER
