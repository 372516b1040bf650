"""`attribution_shift_report` of the modular pipeline: before against after fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.legacy.properties import METHODS
from analysis.legacy.shifted_words import THRESHOLD, shifted_words
from analysis.load import RunTables

STATISTICS = {
    "rank_correlation": "spearman",
    "top_3_overlap": "top3_jaccard",
    "top_5_overlap": "top5_jaccard",
    "sign_flips": "sign_flips",
    "sign_flip_ratio": "sign_flip_ratio",
    "pre_attribution_mass": "mass_reference",
    "post_attribution_mass": "mass_other",
    "mass_change_ratio": "mass_ratio",
    "pre_concentration": "gini_reference",
    "post_concentration": "gini_other",
}
"""The original's statistic -> column of `shift_examples`."""
DEFINITION = {
    "all": "`…_mean` and `…_std` (÷ n) over the examples explained in both phases for which a "
    "statistic is defined, `n` of them, of word positions; the original compared word types, of "
    "at most ten sentences that were not the same ones",
    "rank_correlation": "Spearman of the signed values, average ranks",
    "top_k_overlap": "Jaccard index of the k largest |attribution|; texts of at most k words are "
    "left out, for both sides have all of them",
    "mass_change_ratio": "(Σ|after| − Σ|before|) / Σ|before|, as the original's; the table "
    "attribution_shift has the geometric mean of Σ|after| / Σ|before|, which is less led by texts "
    "of little mass before",
    "concentration": "Gini index × n/(n−1)",
    "prediction_prob": "probability of the label that is explained, which is what zero-shot "
    "predicts unless another was asked for: it rarely rises; the original's is the positive "
    "label's",
    "prediction_change": "after − before, of the same label",
    "tokens": f"words whose share of Σ|attribution| rises or falls by more than {THRESHOLD:g}, "
    "with the number of texts where it does; the original's threshold of 0.1 is absolute, and so "
    "another one for every method and model",
}
NO_TEST = (
    "a mean of p-values tests nothing: the table attribution_shift has intervals, and the noise "
    "beside them"
)
UNDEFINED = "not defined for any of the examples"
ONE_PHASE = "no example was explained both before and after fine-tuning"


def shift_report(
    run: RunTables, tables: Mapping[str, pl.DataFrame], found: Sequence[PhaseRows]
) -> dict[str, Any]:
    """Return `attribution_shift_report`.

    Keys: `generated_at`, `num_samples`, `methods_analyzed`, `method_reports` {method: report} and
    `summary` of the first method. A report has `…_mean` and `…_std` of each statistic,
    `most_gained_tokens` and `most_lost_tokens` [[word, texts]], `n` {statistic: examples} and
    `reason` {key: why it is null}.
    """
    reports = {report["method"]: report for report in _reports(run, tables, found)}
    return {
        "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_samples": max((each["num_samples"] for each in reports.values()), default=None),
        "methods_analyzed": list(reports),
        "method_reports": reports,
        "summary": _summary(next(iter(reports.values()), None)),
        "definition": DEFINITION,
        "reason": {} if reports else {"num_samples": ONE_PHASE, "summary": ONE_PHASE},
    }


def _reports(
    run: RunTables, tables: Mapping[str, pl.DataFrame], found: Sequence[PhaseRows]
) -> Iterator[dict[str, Any]]:
    if len(found) < 2:
        return
    compared = tables["shift_examples"].filter(
        pl.col("kind") == "adapter", pl.col("refused").is_null()
    )
    before, after = found
    probabilities = [_probabilities(run, phase) for phase in (before, after)]
    for explainer, method in METHODS.items():
        frame = compared.filter(pl.col("explainer") == explainer)
        if not len(frame):
            continue
        statistics = _of_examples(frame)
        statistics |= _predicted(frame, *probabilities)
        words = shifted_words(run, before, after, explainer, frame)
        yield {
            "method": method,
            "num_samples": len(frame),
            **_summarised(statistics),
            "most_gained_tokens": words.gained,
            "most_lost_tokens": words.lost,
        }


def _of_examples(frame: pl.DataFrame) -> dict[str, pl.Series]:
    values = {key: frame[column] for key, column in STATISTICS.items()}
    values["mass_change_ratio"] = values["mass_change_ratio"] - 1.0
    return values


def _probabilities(run: RunTables, phase: PhaseRows) -> dict[tuple[str, str], float]:
    """Return the probability of each label of each example."""
    rows = phase.of(run.predictions).select("example", "labels", "probabilities")
    return {
        (example, label): probability
        for example, labels, probabilities in rows.iter_rows()
        for label, probability in zip(labels, probabilities, strict=True)
    }


def _predicted(
    frame: pl.DataFrame, *probabilities: Mapping[tuple[str, str], float]
) -> dict[str, pl.Series]:
    keys = list(frame.select("example", "class_name").iter_rows())
    before, after = (
        pl.Series([each.get(key) for key in keys], dtype=pl.Float64) for each in probabilities
    )
    return {
        "pre_prediction_prob": before,
        "post_prediction_prob": after,
        "prediction_change": after - before,
    }


def _summarised(statistics: Mapping[str, pl.Series]) -> dict[str, Any]:
    """Return mean and standard deviation of each statistic where it is defined."""
    values: dict[str, Any] = {}
    n: dict[str, int] = {}
    reason = {}
    for key, column in statistics.items():
        known = column.drop_nulls().to_numpy()
        n[key] = len(known)
        for name, of in (("mean", np.mean), ("std", np.std)):
            values[f"{key}_{name}"] = float(of(known)) if len(known) else None
            if not len(known):
                reason[f"{key}_{name}"] = UNDEFINED
        if key == "rank_correlation":
            for name in ("rank_correlation_pval_mean", "rank_correlation_pval_std"):
                values[name], reason[name] = None, NO_TEST
    return {**values, "n": n, "reason": reason}


def _summary(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "avg_rank_correlation": report["rank_correlation_mean"],
        "avg_top3_overlap": report["top_3_overlap_mean"],
        "avg_prediction_improvement": report["prediction_change_mean"],
    }
