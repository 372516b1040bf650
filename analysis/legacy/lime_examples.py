"""What the pictures `ft_example_lime_0.png` and `ft_example_lime_1.png` show."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.legacy.shap_files import feature_texts
from analysis.load import RunTables

EXAMPLES = 2
WORDS = 6
"""As many as the original asks of LIME."""


class LimeExample(NamedTuple):
    """LIME's weights of one text.

    Attributes:
        name: Id of the example.
        label: The label they speak for, the last one: the positive of two.
        target: What they are weights of: `log_odds`, `probability` or `logprob`.
        words: The words of the largest |weight|, the largest first.
        weights: Their weights.
    """

    name: str
    label: str
    target: str
    words: list[str]
    weights: list[float]


def lime_examples(run: RunTables, phase: PhaseRows) -> list[LimeExample]:
    """Return the first explained texts that have words; the original drew two."""
    predicted = {row["example"]: row for row in phase.of(run.predictions).iter_rows(named=True)}
    rows = phase.of(run.attributions).filter(
        pl.col("explainer") == "lime", pl.col("n_features") > 0
    )
    found = []
    for row in rows.head(EXAMPLES).iter_rows(named=True):
        prediction = predicted[row["example"]]
        words = feature_texts(row["spans"], json.loads(prediction["inputs"]))
        weights = np.array(row["values_by_label"][-1], dtype=np.float64)
        order = np.argsort(-np.abs(weights), kind="stable")[:WORDS]
        found.append(
            LimeExample(
                row["example"],
                prediction["labels"][-1],
                row["target"],
                [words[i] for i in order],
                weights[order].tolist(),
            )
        )
    return found
