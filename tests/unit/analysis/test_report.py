"""A report is well formed, self-contained, safe, complete, and readable in both themes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import polars as pl

from analysis.report import (
    ReportInput,
)
from engine.schema import ATTRIBUTIONS, FACTORS, FAILURES, PREDICTIONS, rows_to_table

REVIEWS = Path(__file__).parents[3] / "engine/data/reviews.jsonl"
LABELS = ["negative", "positive"]
EXPLAINERS = {
    "lime": ("lime", "words"),
    "kernel_shap": ("kernel_shap", "words"),
    "lime.compat_lime": ("lime[compat:lime]", "words"),
    "occlusion": ("occlusion", "sentences"),
}
HAND_WRITTEN = [
    {"id": "x-script", "text": "Bad <script>alert('x')</script> & \"worse\".\nSecond line.", "label": 0},
    {"id": "x-rtl", "text": "الفيلم رائع جدا 🎬 ولا أندم", "label": 1},
    {"id": "x-empty", "text": "", "label": 0},
]
VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use", "rect", "circle"}


def frame(rows, schema):
    return pl.from_arrow(rows_to_table(rows, schema))


def factors(model="SmolLM2-135M-Instruct", prompt="review"):
    return dict(zip(FACTORS, ("reviews", model, "fp32", "", prompt), strict=True))


def spans_of(text, features):
    pattern = r"\S+" if features == "words" else r"[^.!?\n]+[.!?]?"
    found = [m.span() for m in re.finditer(pattern, text) if m.group().strip()]
    return [{"feature": i, "start": a, "end": b, "field": "text"} for i, (a, b) in enumerate(found)]


def prediction(review, chance, **kinds):
    p = round(chance.betavariate(2, 2), 6)
    p = 1 - p / 2 if (review["label"] == 1) == (chance.random() < 0.8) else p / 2
    marked = review.get("author_marked", {}).get("text")
    return {
        "unit": "u",
        **factors(**kinds),
        "example": review["id"],
        "inputs": json.dumps({"text": review["text"]}),
        "labels": LABELS,
        "gold": review["label"],
        "predicted": int(p > 0.5),
        "log_probs": [-1.0, -2.0],
        "probabilities": [1 - p, p],
        "log_z": 0.0,
        "label_mass": 0.4,
        "rationale": None
        if marked is None
        else [
            {"feature": i, "start": a, "end": b, "field": "text"} for i, (a, b) in enumerate(marked)
        ],
        "rationale_kind": None if marked is None else "author_marked",
        "tokens": 40,
        "numerics": "n",
    }


def attribution(row, explainer, chance):
    method, features = EXPLAINERS[explainer]
    text = json.loads(row["inputs"])["text"]
    spans = spans_of(text, features)
    values = [chance.gauss(0, 0.25) for _ in spans]
    for span in row["rationale"] or ():
        for i, s in enumerate(spans):
            if s["start"] < span["end"] and span["start"] < s["end"]:
                values[i] += 0.9
    surrogate = "lime" in method
    keys = ("unit", "example", *FACTORS)
    return {
        **{key: row[key] for key in keys},
        "explainer": explainer,
        "features": features,
        "operator": "delete",
        "target": "log_odds",
        "class_rule": "predicted",
        "class_name": LABELS[row["predicted"]],
        "method": method,
        "masked_on": "text",
        "n_features": len(spans),
        "spans": spans,
        "values": values,
        "values_by_label": [[-v for v in values], values],
        "base": 0.1,
        "full_value": 1.2,
        "std_error": [0.05] * len(spans) if surrogate else None,
        "evaluations": 128 if features == "words" else len(spans) + 1,
        "residual": None if surrogate else 2.2e-16,
        "r2": 0.8 + chance.random() / 10 if surrogate else None,
        "diagnostics": "{}",
        "status": "ok" if spans else "no_features",
        "numerics": "n",
    }


def tables_of(models):
    chance = random.Random(3)
    rows = {name: [] for name in ("performance", "faithfulness", "complexity", "agreement")}
    rows |= {"plausibility": [], "cost": []}

    def add(table, keys, metric, value, direction="higher", half=0.06):
        interval = {} if half is None else {"ci_low": value - half, "ci_high": value + half}
        row = {**keys, "metric": metric, "value": value, "n": 27, **interval}
        rows[table].append({**row, "direction": direction, "definition_version": 1})

    for model in models:
        base = factors(model)
        for metric, value, direction in (
            ("accuracy", 0.79, "higher"),
            ("f1", 0.78, "higher"),
            ("mcc", 0.58, "higher"),
            ("auroc", 0.871, "higher"),
            ("nll", 0.51, "lower"),
            ("brier", 0.17, "lower"),
            ("ece", 0.061, "lower"),
            ("majority_rate", 0.5, "none"),
        ):
            none = {"class": None, "predicted_class": None}
            add("performance", base | none, metric, value, direction)
        for label in LABELS:
            of = base | {"class": label, "predicted_class": None}
            add("performance", of, "precision", 0.7 + chance.random() / 5)
            add("performance", of, "recall", 0.7 + chance.random() / 5)
            for other in LABELS:
                both = base | {"class": label, "predicted_class": other}
                add("performance", both, "confusion", 10.0 if other == label else 3.0, "none", None)
        extras = {
            "accuracy": 0.79,
            "accuracy_ci_low": 0.71,
            "accuracy_ci_high": 0.86,
            "majority_rate": 0.5,
        }
        settings = {"operator": "delete", "target": "log_odds", "class_rule": "predicted"}
        for i, (name, (_, features)) in enumerate(EXPLAINERS.items()):
            game = {"explainer": name, "features": features, **settings}
            for metric, direction in (
                ("comprehensiveness", "higher"),
                ("sufficiency", "lower"),
                ("deletion_auc", "lower"),
            ):
                for reference in ("none", "minus_random"):
                    better = reference == "minus_random" and i < 3
                    verdict = "better than random" if better else "not distinguishable from random"
                    keys = base | game | extras | {"n_removed": None, "reference": reference}
                    keys["verdict"] = verdict if reference == "minus_random" else None
                    value = (0.24 - 0.07 * i) * (1 if direction == "higher" else -1)
                    add("faithfulness", keys, metric, value, direction)
            for k in range(1, 9):
                keys = base | game | extras | {"n_removed": k, "reference": "none", "verdict": None}
                value = 0.05 * (5 - i) * k**0.6
                add("faithfulness", keys, "comprehensiveness_at_k", value)
            for metric in ("gini", "entropy", "effective_size", "top_k_mass"):
                add("complexity", base | game | extras, metric, 0.3 + chance.random() / 2)
            for metric in ("iou", "token_f1", "auprc"):
                keys = base | game | {"rationale_kind": "author_marked"} | extras
                add("plausibility", keys, metric, 0.3 + chance.random() / 2)
            others = list(EXPLAINERS)[i + 1 :]
            for other in [o for o in others if EXPLAINERS[o][1] == features]:
                pair = {"explainer_a": name, "explainer_b": other, "features": features}
                for metric in ("spearman", "cosine", "top_k_overlap"):
                    keys = base | pair | settings | extras
                    add("agreement", keys, metric, chance.uniform(-0.1, 0.9), "none")
            cost = base | {"explainer": name}
            add("cost", cost, "standalone_seconds", [2.1, 1.9, 4.2, 0.3][i], "lower")
            add("cost", cost, "marginal_seconds", [0.6, 0.5, 4.1, 0.1][i], "lower")
            add("cost", cost, "evaluations_asked", [128.0, 128.0, 128.0, 4.0][i], "lower")
            add("cost", cost, "total_evaluations_asked", 3072.0, "lower", None)
    return {name: pl.DataFrame(part, infer_schema_length=None) for name, part in rows.items()}


def make_run(n=24, models=("SmolLM2-135M-Instruct",), failures=1, explained=True):
    chance = random.Random(7)
    reviews = [json.loads(line) for line in REVIEWS.open(encoding="utf-8")][:n] + HAND_WRITTEN
    reviews = [{**reviews[i % len(reviews)]} for i in range(len(reviews))]
    rows = [prediction(r, chance, model=m) for m in models for r in reviews]
    made = [attribution(row, name, chance) for row in rows for name in EXPLAINERS]
    failed = {
        "unit": "u",
        **factors(),
        "example": "review-031",
        "explainer": None,
        "stage": "data",
        "code": "too_long",
        "message": "9120 tokens, but the model takes 8192: shorten the <text> or filter it",
    }
    run_json = {
        "config": {
            "run": {"name": "demo"},
            "models": [{"path": "HuggingFaceTB/SmolLM2-135M-Instruct"}],
            "prompts": [
                {
                    "name": "review",
                    "template": "Review: {text}\nSentiment:",
                    "labels": {"negative": " negative", "positive": " positive"},
                }
            ],
        },
        "fingerprints": {"run": "0f3a9c1e5b7d2468", "evaluations": ["77aa01b2c3d4e5f6"]},
        "versions": {"rayxai": "0.1.0", "torch": "2.13.0", "transformers": "5.19.0", "ray": "2.60"},
        "hardware": {"cpu": "2 cores", "gpus": []},
        "started": "2025-01-02T10:00:00+00:00",
        "finished": "2025-01-02T10:07:31+00:00",
    }
    return ReportInput(
        "Demo: film and shop reviews",
        run_json,
        tables_of(models) if explained else {},
        frame(rows, PREDICTIONS),
        frame(made if explained else [], ATTRIBUTIONS),
        frame([failed] * failures, FAILURES),
    )
