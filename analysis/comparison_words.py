"""How readers are told what a row of a comparison compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.levels import ANY_SEED, NOISE
from analysis.select import Row, varying
from engine.schema import FACTORS

NOISE_NAMES = {
    "explainer_seed": "estimator noise",
    "training_seed": "training noise",
    "replicate": "rounding noise",
}
"""What differs in the kinds of `analysis.levels.NOISE`."""
_DIFFERS = {
    "adapter": "adapter",
    "training_seed": "adapter",
    "precision": "precision",
    "precision_and_training": "precision",
    "model": "model",
    "replicate": "model",
}
"""Factor in which the two sides differ; at `explainer_seed` none does."""


def is_noise(row: Mapping[str, Any]) -> bool:
    """Whether nothing of interest was changed."""
    return row["kind"] in NOISE


def factor_of(kind: str) -> str:
    """Return the column in which both sides of a comparison differ."""
    return _DIFFERS.get(kind, "explainer")


def said(row: Mapping[str, Any], column: str) -> str:
    """Return a value to read: what averages the seeds of a training says how many there are."""
    value = str(row[column])
    if column not in ("adapter", "other_adapter") or not value.endswith(ANY_SEED):
        return value
    return f"{value.removesuffix(ANY_SEED)}, mean of {row['n_seeds']} seeds"


def compared(row: Mapping[str, Any]) -> str:
    """Return both sides, such as `fp32 → nf4`."""
    factor = factor_of(row["kind"])
    return f"{said(row, factor)} → {said(row, f'other_{factor}')}"


def context_columns(rows: Sequence[Row]) -> list[str]:
    """Return the factors that tell comparisons apart besides what each of them compares."""
    every = varying(rows, FACTORS)
    return [c for c in every if {c} != {_DIFFERS.get(row["kind"]) for row in rows}]


def line_of(row: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return a comparison among `rows` in a few words: what was changed, and at which level."""
    kind = row["kind"]
    if kind == "explainer_seed":
        what = "explainer’s seed"
    elif kind == "replicate":
        what = "the same again"
    elif kind == "training_seed":
        what = compared(row)
    elif kind == "precision_and_training":
        what = f"{row['other_precision']}, trained in it"
    else:
        what = said(row, f"other_{kind}")
    others = [c for c in context_columns(rows) if c != _DIFFERS.get(kind)]
    return " · ".join([what, *(said(row, column) for column in others)])


def without_twins(rows: Sequence[Row]) -> list[Row]:
    """Return the rows but for those of explainers that are there to show the estimator's noise."""
    twins = {row["other_explainer"] for row in rows if row["kind"] == "explainer_seed"}
    return [r for r in rows if r["kind"] == "explainer_seed" or r["explainer"] not in twins]
