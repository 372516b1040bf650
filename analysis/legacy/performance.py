"""`zero_shot_metrics.json`, `metrics_comparison.json` and the like: how well a phase predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.load import RunTables

DEFINITION = {
    "precision": "macro average over the labels; the SHAP comparison's original took the positive "
    "label's for two labels and a support-weighted one for more",
    "mcc": "Gorodkin 2004, which is the usual MCC for two labels",
    "rounding": "none; the originals round to four decimals before anything else is computed",
    "probability": "softmax over the log-probabilities of the whole label strings; the originals "
    "read one token's logit, which is another token where the label has two",
}
DEFINITION |= {"recall": DEFINITION["precision"], "f1": DEFINITION["precision"]}


def scores(tables: dict[str, pl.DataFrame], phase: PhaseRows) -> dict[str, float | None]:
    """Return accuracy, precision, recall, F1 and MCC, the five of every file."""
    frame = phase.of(tables["performance"])
    return {
        "accuracy": _value(frame, "accuracy", None),
        "precision": _value(frame, "precision", "macro"),
        "recall": _value(frame, "recall", "macro"),
        "f1": _value(frame, "f1", "macro"),
        "mcc": _value(frame, "mcc", None),
    }


def metrics_file(
    run: RunTables, tables: dict[str, pl.DataFrame], phase: PhaseRows
) -> dict[str, Any]:
    """Return `zero_shot_metrics.json` or `fine_tuned_metrics.json`.

    Keys: the five scores, `per_class` {label: precision, recall, f1, support}, `confusion_matrix`
    [L][L] with a row a gold label, `mean_max_probability`, `positive_probability_mean` (of the last
    label), `n` examples with a gold label, `intervals` of 95 % where there are any.
    """
    rows = phase.of(run.predictions).filter(pl.col("gold").is_not_null())
    frame = phase.of(tables["performance"])
    labels: list[str] = rows["labels"][0].to_list()
    probabilities = np.array(rows["probabilities"].to_list(), dtype=np.float64)
    gold = rows["gold"].to_numpy()
    predicted = rows["predicted"].to_numpy()
    confusion = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(confusion, (gold, predicted), 1)
    per_class = {
        label: {
            **{m: _value(frame, m, label) for m in ("precision", "recall", "f1")},
            "support": int((gold == i).sum()),
        }
        for i, label in enumerate(labels)
    }
    return {
        **scores(tables, phase),
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
        "mean_max_probability": float(probabilities.max(axis=1).mean()),
        "positive_probability_mean": float(probabilities[:, -1].mean()),
        "n": len(rows),
        "intervals": _intervals(frame),
        "definition": DEFINITION,
    }


def _intervals(frame: pl.DataFrame) -> dict[str, list[float]]:
    found = {}
    for metric, of in (
        ("accuracy", None),
        ("precision", "macro"),
        ("recall", "macro"),
        ("f1", "macro"),
        ("mcc", None),
    ):
        row = _row(frame, metric, of)
        if row is not None and row["ci_low"] is not None:
            found[metric] = [row["ci_low"], row["ci_high"]]
    return found


def _value(frame: pl.DataFrame, metric: str, of: str | None) -> float | None:
    row = _row(frame, metric, of)
    return None if row is None else row["value"]


def _row(frame: pl.DataFrame, metric: str, of: str | None) -> dict[str, Any] | None:
    rows = frame.filter(
        pl.col("metric") == metric,
        pl.col("class").is_null() if of is None else pl.col("class") == of,
    )
    return rows.row(0, named=True) if len(rows) else None
