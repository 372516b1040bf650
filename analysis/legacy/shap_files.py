"""`zero_shot_shap.json` and `fine_tuned_shap.json`: attributions of one phase, word by word."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.load import RunTables

DEFINITION = {
    "values": "Shapley values of each label in probability or log-odds, as `target` says, a row a "
    "word, a column a label; of the text's words alone, where the original explained the prompt's "
    "instructions too",
    "zero_shot": "explained with the adapters off; the original explained the tuned model twice",
}


def shap_file(run: RunTables, phase: PhaseRows, explainer: str) -> dict[str, Any]:
    """Return `values` [N][F][L], `base_values` [N][L], `data` [N][F] and what they are.

    `base_values` are known of the explained label only, and null of the others.
    """
    rows = phase.of(run.attributions).filter(pl.col("explainer") == explainer)
    texts = {
        row["example"]: (json.loads(row["inputs"]), row["labels"])
        for row in phase.of(run.predictions).iter_rows(named=True)
    }
    values, bases, words, examples = [], [], [], []
    for row in rows.iter_rows(named=True):
        inputs, labels = texts[row["example"]]
        by_label = np.array(row["values_by_label"], dtype=np.float64)  # [L, F]
        values.append(by_label.T.tolist())
        bases.append([row["base"] if label == row["class_name"] else None for label in labels])
        words.append(feature_texts(row["spans"], inputs))
        examples.append(row["example"])
    return {
        "values": values,
        "base_values": bases,
        "data": words,
        "examples": examples,
        "target": rows["target"][0] if len(rows) else None,
        "labels": texts[examples[0]][1] if examples else [],
        "definition": DEFINITION,
    }


def feature_texts(spans: list[dict[str, Any]], inputs: dict[str, str]) -> list[str]:
    """Return the text of each feature [F]; one of several spans has them joined by a space."""
    found: dict[int, list[str]] = {}
    for span in spans:
        text = inputs[span["field"]][span["start"] : span["end"]]
        found.setdefault(span["feature"], []).append(text)
    return [" ".join(found[i]) for i in sorted(found)]


def magnitudes(run: RunTables, phase: PhaseRows, explainer: str) -> dict[str, npt.NDArray[Any]]:
    """Return |value| of the last label's row [F] by example, as the original's statistics use."""
    rows = phase.of(run.attributions).filter(pl.col("explainer") == explainer)
    return {
        row["example"]: np.abs(np.array(row["values_by_label"][-1], dtype=np.float64))
        for row in rows.iter_rows(named=True)
    }
