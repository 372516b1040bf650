"""A run of the original's kind by hand: two phases, two explainers, three labelled texts."""

from __future__ import annotations

import json
import math

from analysis.load import RunTables
from tests.unit.analysis.frames import attribution, metric, prediction, run_of, timing

TEXTS = {"e0": "a b c", "e1": "c d", "e2": "a e f g"}
GOLD = {"e0": 1, "e1": 0, "e2": 1}
POSITIVE = {
    "none": {"e0": 0.7, "e1": 0.6, "e2": 0.2},
    "lora-seed42": {"e0": 0.9, "e1": 0.1, "e2": 0.8},
}
SHAP = {
    "none": {"e0": [1.0, 0.0, 0.0], "e1": [2.0, 2.0], "e2": [4.0, -3.0, 0.0, 1.0]},
    "lora-seed42": {"e0": [0.0, 3.0, 0.0], "e1": [4.0, 4.0], "e2": [-8.0, 6.0, 0.0, -2.0]},
}


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def base_of(adapter: str, name: str) -> float:
    """Return what is left of the positive label's log-odds without the words."""
    return log_odds(POSITIVE[adapter][name]) - sum(SHAP[adapter][name])


def legacy_run(*adapters: str) -> RunTables:
    """Return the rows of these adapters, both by default."""
    rows: dict[str, list[dict]] = {
        "predictions": [],
        "attributions": [],
        "metrics": [],
        "timings": [],
    }
    for adapter in adapters or tuple(POSITIVE):
        for name, text in TEXTS.items():
            p = POSITIVE[adapter][name]
            rows["predictions"].append(
                prediction(
                    name, [1 - p, p], GOLD[name], adapter=adapter, inputs=json.dumps({"text": text})
                )
            )
            for explainer in ("kernel_shap", "lime"):
                values = SHAP[adapter][name]
                rows["attributions"].append(
                    attribution(
                        name,
                        values,
                        adapter=adapter,
                        explainer=explainer,
                        r2=0.5 if explainer == "lime" else None,
                        values_by_label=[[-v for v in values], values],
                        base=base_of(adapter, name),
                        full_value=log_odds(POSITIVE[adapter][name]),
                    )
                )
                for kind, value, random in (
                    ("comprehensiveness", 0.4, 0.1),
                    ("sufficiency", 0.2, 0.3),
                    ("deletion_gain", 0.25, 0.0),
                ):
                    rows["metrics"].append(
                        metric(name, kind, value, random, adapter=adapter, explainer=explainer)
                    )
                rows["timings"].append(timing(name, explainer, adapter=adapter))
    return run_of(**rows)
