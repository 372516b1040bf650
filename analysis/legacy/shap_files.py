"""`zero_shot_shap.json` and `fine_tuned_shap.json`: attributions of one phase, word by word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.load import RunTables
from engine.target import Normaliser, transform

TOLERANCE = 1e-6
"""Difference of the explained label's base from what additivity says from which on that of the
others can't be told."""
DEFINITION = {
    "values": "Shapley values of each label in probability or log-odds, as `target` says, a row a "
    "word, a column a label; of the text's words alone, where the original explained the prompt's "
    "instructions too",
    "base_values": "value of the prompt without the text's words, so that base + Σ values is the "
    "value of the whole text; null of labels for which it can't be told: all but the explained "
    "one, where the explainer's values don't sum up",
    "zero_shot": "explained with the adapters off; the original explained the tuned model twice",
}


def shap_file(run: RunTables, phase: PhaseRows, explainer: str) -> dict[str, Any]:
    """Return `values` [N][F][L], `base_values` [N][L], `data` [N][F] and what they are."""
    rows = phase.of(run.attributions).filter(pl.col("explainer") == explainer)
    predicted = {row["example"]: row for row in phase.of(run.predictions).iter_rows(named=True)}
    values, bases, words, examples = [], [], [], []
    for row in rows.iter_rows(named=True):
        prediction = predicted[row["example"]]
        by_label = np.array(row["values_by_label"], dtype=np.float64)  # [L, F]
        values.append(by_label.T.tolist())
        bases.append(_bases(row, prediction, by_label))
        words.append(feature_texts(row["spans"], json.loads(prediction["inputs"])))
        examples.append(row["example"])
    return {
        "values": values,
        "base_values": bases,
        "data": words,
        "examples": examples,
        "target": rows["target"][0] if len(rows) else None,
        "labels": predicted[examples[0]]["labels"] if examples else [],
        "definition": DEFINITION,
    }


def _bases(
    row: Mapping[str, Any], prediction: Mapping[str, Any], by_label: npt.NDArray[np.float64]
) -> list[float | None]:
    """Return v(none) of each label [L]: v(all) of the prediction − Σ values, by additivity."""
    log_probs = np.array(prediction["log_probs"], dtype=np.float64)
    if prediction["calibration"] is not None:
        log_probs = log_probs - np.array(prediction["calibration"], dtype=np.float64)
    own = prediction["labels"].index(row["class_name"])
    for normaliser in get_args(Normaliser):
        full_L = transform(log_probs[None], row["target"], normaliser)[0]
        base_L = full_L - by_label.sum(axis=1)
        if abs(base_L[own] - row["base"]) <= TOLERANCE * max(1.0, abs(row["base"])):
            base_L[own] = row["base"]
            known: list[float | None] = base_L.tolist()
            return known
    return [row["base"] if label == own else None for label in range(len(log_probs))]


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
