"""Rows of result tables for the tests of the analysis, with defaults for what a test leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from analysis.load import RunTables
from engine.schema import RESULTS, rows_to_table

FACTOR_VALUES = {
    "data": "reviews",
    "model": "tiny",
    "precision": "fp32",
    "adapter": "none",
    "prompt": "plain",
}
GAME_VALUES = {
    "explainer": "lime",
    "features": "words",
    "operator": "delete",
    "target": "log_odds",
    "class_rule": "predicted",
}
Rows = list[dict[str, Any]]


def prediction(example: str, probabilities: Sequence[float], gold: int | None, **more: Any) -> dict:
    return {
        "unit": "u0",
        **FACTOR_VALUES,
        "example": example,
        "group": None,
        "inputs": "{}",
        "labels": [f"label{i}" for i in range(len(probabilities))],
        "gold": gold,
        "predicted": int(np.argmax(probabilities)),
        "log_probs": np.log(np.maximum(probabilities, 1e-30)).tolist(),
        "probabilities": list(probabilities),
        "log_z": 0.0,
        "label_mass": 1.0,
        "tokens": 5,
        "numerics": "n",
        **more,
    }


def words(n: int) -> Rows:
    """Spans of n one-letter words."""
    return [{"feature": i, "start": 2 * i, "end": 2 * i + 1, "field": "text"} for i in range(n)]


def attribution(example: str, values: Sequence[float], **more: Any) -> dict:
    return {
        "unit": "u0",
        **FACTOR_VALUES,
        "example": example,
        "group": None,
        **GAME_VALUES,
        "class_name": "label1",
        "method": "lime",
        "masked_on": "text",
        "n_features": len(values),
        "spans": words(len(values)),
        "values": list(values),
        "values_by_label": [list(values), [-v for v in values]],
        "base": 0.0,
        "full_value": float(sum(values)),
        "evaluations": 16,
        "diagnostics": "{}",
        "status": "ok" if len(values) else "no_features",
        "numerics": "n",
        **more,
    }


def metric(example: str, name: str, value: float | None, random: float | None, **more: Any) -> dict:
    return {
        "unit": "u0",
        **FACTOR_VALUES,
        "example": example,
        "group": None,
        **GAME_VALUES,
        "class_name": "label1",
        "metric": name,
        "value": value,
        "random": random,
        "definition_version": 1,
        **more,
    }


def timing(example: str, consumer: str, **more: Any) -> dict:
    return {
        "unit": "u0",
        **FACTOR_VALUES,
        "example": example,
        "consumer": consumer,
        "evaluations_asked": 10,
        "evaluations_first": 10,
        "evaluations_stored": 0,
        "evaluations_new": 10,
        "tokens_asked": 100,
        "tokens_new": 100,
        "host_seconds": 1.0,
        "standalone_seconds": 1.0,
        "step_seconds": 0.5,
        **more,
    }


def arrow(**tables: Rows) -> dict[str, pa.Table]:
    return {name: rows_to_table(rows, RESULTS[name]) for name, rows in tables.items()}


def run_of(**tables: Rows) -> RunTables:
    return RunTables.from_arrow(arrow(**tables))


def whole_run(n: int = 12, seed: int = 0) -> dict[str, Rows]:
    """A little of everything: two models, two explainers, groups, rationales."""
    rng = np.random.default_rng(seed)
    tables: dict[str, Rows] = {"predictions": [], "attributions": [], "metrics": [], "timings": []}
    for model in ("tiny", "small"):
        for i in range(n):
            p = float(rng.uniform(0.55, 0.99))
            gold = i % 2
            common = {"model": model, "group": None if i % 3 else f"g{i % 2}"}
            rationale = [{"feature": 0, "start": 0, "end": 3, "field": "text"}]
            tables["predictions"].append(
                prediction(
                    f"e{i:03d}",
                    [p, 1 - p] if gold == 0 else [1 - p, p],
                    gold,
                    rationale=rationale,
                    rationale_kind="human",
                    **common,
                )
            )
            for explainer in ("lime", "kernel_shap"):
                more = {"explainer": explainer, **common}
                values = rng.normal(size=5 + i % 2)
                fit = {"r2": float(rng.random())} if explainer == "lime" else {"residual": 1e-9}
                tables["attributions"].append(attribution(f"e{i:03d}", values, **fit, **more))
                for name in ("comprehensiveness", "sufficiency"):
                    a, b = rng.random(2)
                    tables["metrics"].append(metric(f"e{i:03d}", name, a, b, **more))
                    sized = {"n_removed": 1 + i % 2, **more}
                    tables["metrics"].append(metric(f"e{i:03d}", f"{name}_at_k", a, b, **sized))
                tables["timings"].append(timing(f"e{i:03d}", explainer, model=model))
    return tables


def only(frame: pl.DataFrame, **values: Any) -> dict[str, Any]:
    """The one row of a table with these values."""
    for name, value in values.items():
        frame = frame.filter(pl.col(name).eq_missing(pl.lit(value)))
    assert frame.height == 1, frame
    return frame.row(0, named=True)
