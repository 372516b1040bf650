"""`attribution_shift_report` of the modular pipeline: before against after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from analysis.legacy.properties import METHODS

BETWEEN = {
    "rank_correlation": "spearman",
    "top_3_overlap": "top3_jaccard",
    "top_5_overlap": "top5_jaccard",
    "sign_flips": "sign_flips",
    "sign_flip_ratio": "sign_flip_ratio",
    "mass_change_ratio": "mass_ratio",
}
"""The original's statistic -> ours."""
SIDES = {"attribution_mass": "mass", "concentration": "gini"}
"""The same of statistics that each phase has: `pre_…` and `post_…`."""
DEFINITION = {
    "all": "means over the examples explained in both phases, of word positions; the original "
    "compared word types, of at most ten sentences that were not the same ones",
    "rank_correlation": "Spearman of the signed values, average ranks",
    "top_k_overlap": "Jaccard index of the k largest |attribution|",
    "mass_change_ratio": "geometric mean of Σ|after| / Σ|before|",
    "concentration": "Gini index × n/(n−1)",
}


def shift_report(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Return `num_samples`, `methods_analyzed`, `method_reports` {method: statistics}, `summary`.

    `summary` is the first method's report, as in the original. All are null where the run has one
    phase, or explained nothing.
    """
    frame = tables["attribution_shift"].filter(pl.col("kind") == "adapter")
    reports = {
        name: _report(frame.filter(pl.col("explainer") == explainer))
        for explainer, name in METHODS.items()
        if explainer in frame["explainer"]
    }
    counts = [each["n"] for each in reports.values()]
    return {
        "num_samples": max(counts, default=None),
        "methods_analyzed": list(reports),
        "method_reports": reports,
        "summary": next(iter(reports.values()), None),
        "definition": DEFINITION,
    }


def _report(frame: pl.DataFrame) -> dict[str, Any]:
    values = {key: _value(frame, metric, "between") for key, metric in BETWEEN.items()}
    for key, metric in SIDES.items():
        values[f"pre_{key}"] = _value(frame, metric, "reference")
        values[f"post_{key}"] = _value(frame, metric, "other")
    return {**values, "n": max(frame["n"].to_list(), default=0)}


def _value(frame: pl.DataFrame, metric: str, quantity: str) -> float | None:
    rows = frame.filter(pl.col("metric") == metric, pl.col("quantity") == quantity)
    return rows["value"][0] if len(rows) else None
