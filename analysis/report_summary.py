"""The top of the report: is the model right, and does each explainer beat chance?"""

from __future__ import annotations

import statistics
from typing import NamedTuple

import polars as pl
from markupsafe import Markup

from analysis.report_parts import Cell, cell_of, distinct, number, values_of, words_of
from analysis.select import COST, Row, Tables, combination, rows_of, varying
from engine.schema import FACTORS


class Score(NamedTuple):
    """An explainer's line in the summary."""

    explainer: str
    gain: Cell | None
    tone: str  # good | bad | open
    verdict: str
    facts: list[str]


def summarize(
    tables: Tables, predictions: pl.DataFrame, attributions: pl.DataFrame
) -> list[tuple[str, Markup, list[Score]]]:
    """Return, for each combination of the factors: heading, sentence, a line an explainer."""
    combinations = distinct(predictions, FACTORS)
    rows = [dict(zip(FACTORS, values, strict=True)) for values in combinations]
    shown = varying(rows, FACTORS)
    return [
        (
            combination(row, shown),
            _accuracy_sentence(tables, predictions, row),
            _scores(tables, attributions, row),
        )
        for row in rows
    ]


def _accuracy_sentence(tables: Tables, predictions: pl.DataFrame, factors: Row) -> Markup:
    mine = [r for r in rows_of(tables, "performance", **factors) if not r.get("class")]
    by_metric = {row["metric"]: row for row in mine}
    accuracy, majority = by_metric.get("accuracy"), by_metric.get("majority_rate")
    if accuracy is None:
        return _counted_sentence(predictions, factors)
    text = Markup("The model is right on <strong>{}</strong> {} of {} examples").format(
        number(accuracy["value"]), cell_of(accuracy).interval, number(accuracy.get("n"))
    )
    if majority is None:
        return text + "."
    text += Markup("; always answering with the commonest label would be right on {}.").format(
        number(majority["value"])
    )
    low = accuracy.get("ci_low")
    if low is not None and low <= majority["value"]:
        text += Markup(
            " <strong>The interval reaches the majority rate:</strong> nothing here shows that the"
            " model can do the task, so no verdict is drawn on its explanations."
        )
    return text


def _counted_sentence(predictions: pl.DataFrame, factors: Row) -> Markup:
    """Count from the rows what a run without its performance table says of the model."""
    own = predictions.filter(pl.all_horizontal(pl.col(k) == v for k, v in factors.items()))
    pairs = [pair for pair in own.select("gold", "predicted").iter_rows() if pair[0] is not None]
    if "continuation" in own.columns and not own["continuation"].is_null().any():
        return Markup("What follows the prompt is explained; no label says whether it is right.")
    if not pairs:
        return Markup("There are no gold labels to say how often the model is right.")
    right = sum(gold == predicted for gold, predicted in pairs)
    return Markup("The model is right on <strong>{}</strong> of {} examples.").format(
        number(right), number(len(pairs))
    )


def _scores(tables: Tables, attributions: pl.DataFrame, factors: Row) -> list[Score]:
    gains = rows_of(
        tables,
        "faithfulness",
        metric="comprehensiveness",
        reference="minus_random",
        **factors,
    )
    gain_of = {row["explainer"]: row for row in gains}
    own = attributions.filter(pl.all_horizontal(pl.col(k) == v for k, v in factors.items()))
    names = list(dict.fromkeys([*gain_of, *values_of(own, "explainer")]))
    return [_score(tables, factors, name, gain_of.get(name), own) for name in names]


def _score(tables: Tables, factors: Row, name: str, gain: Row | None, own: pl.DataFrame) -> Score:
    mine = own.filter(pl.col("explainer") == name)
    facts = []
    if (r2 := _median(mine["r2"])) is not None:
        facts.append(f"median weighted R² {number(r2)}")
    if (residual := _median(mine["residual"].abs())) is not None:
        facts.append(f"median |additivity residual| {number(residual) if residual else 0}")
    if (evaluations := _median(mine["evaluations"])) is not None:
        facts.append(f"{number(round(evaluations))} evaluations an explanation")
    for row in rows_of(tables, "cost", metric=COST, explainer=name, **factors):
        facts.append(f"{number(row['value'])} s an explanation")
    verdict = words_of(gain.get("verdict")) if gain else ""
    cell = cell_of(gain) if gain else None
    if cell and gain and gain["value"] > 0:
        cell = cell._replace(text="+" + cell.text)
    return Score(name, cell, _tone(verdict), verdict, facts)


def _median(column: pl.Series) -> float | None:
    values = [v for v in column.to_list() if v is not None and v == v]
    return statistics.median(values) if values else None


def _tone(verdict: str) -> str:
    tones = {"better": "good", "worse": "bad"}
    return tones.get(verdict.partition(" ")[0], "open")
