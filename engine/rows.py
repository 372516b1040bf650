"""The rows of the result tables that one example gives, but for the columns that name it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.context import Continuation, Unit
from engine.errors import ExampleError
from engine.explainers.gradients import status_of
from engine.spaces import Space
from engine.types import Attribution, Example, FloatCL, FloatL


def prediction_row(
    example: Example,
    labels: Sequence[str],
    raw: FloatL,
    probabilities: FloatL,
    calibration: FloatCL | None,
) -> dict[str, Any]:
    """Return the columns of `engine.schema.PREDICTIONS` that say what was predicted.

    Args:
        example: The example.
        labels: Names of the L labels.
        raw: Log-probabilities of the labels, log Z, number of tokens [L + 2].
        probabilities: As the prompt normalises them [L].
        calibration: What was subtracted from the log-probabilities [L], or None.
    """
    log_probs = raw[:-2]
    return {
        **_of_example(example),
        "labels": list(labels),
        "gold": example.label,
        "predicted": int(np.argmax(probabilities)),
        "log_probs": log_probs.tolist(),
        "probabilities": probabilities.tolist(),
        "log_z": _known(raw[-2]),
        "label_mass": float(np.exp(log_probs).sum()),
        "calibration": None if calibration is None else calibration.tolist(),
        "tokens": int(raw[-1]),
        "continuation": None,
    }


def continuation_row(
    example: Example, continuation: Continuation, raw: FloatL, values: FloatL
) -> dict[str, Any]:
    """Return the columns of `engine.schema.PREDICTIONS` that say what follows the prompt.

    The whole continuation stands where the label set has its labels, as the only one.

    Args:
        example: The example.
        continuation: Of T tokens.
        raw: Their cumulated log-probabilities, log Z, number of the prompt's tokens [T + 2].
        values: Log-probabilities of the tokens, and of the whole [T + 1].
    """
    *tokens, whole = values.tolist()
    parts = zip(continuation.ids, continuation.texts, tokens, strict=True)
    return {
        **_of_example(example),
        "labels": [continuation.text],
        "gold": None,
        "predicted": 0,
        "log_probs": [whole],
        "probabilities": [float(np.exp(whole))],
        "log_z": _known(raw[-2]),
        "label_mass": float(np.exp(whole)),
        "calibration": None,
        "tokens": int(raw[-1]),
        "continuation": [{"token": i, "text": t, "log_prob": p} for i, t, p in parts],
    }


def _known(value: np.floating[Any]) -> float | None:
    """Return a number, or None for NaN: what a host can't tell is null in a table."""
    return None if np.isnan(value) else float(value)


def failure_rows(
    factors: Mapping[str, str], unit: Unit, stage: str, error: ExampleError
) -> list[dict[str, Any]]:
    """Return the columns of `engine.schema.FAILURES` for examples that gave nothing."""
    return [
        {
            **factors,
            "unit": unit.id,
            "example": example.id,
            "explainer": None,
            "stage": stage,
            "code": error.code,
            "message": str(error),
        }
        for example in unit.examples
    ]


def _of_example(example: Example) -> dict[str, Any]:
    rationale = None
    if example.rationale is not None:
        rationale = [
            {"feature": i, "start": s.start, "end": s.end, "field": s.field}
            for i, s in enumerate(example.rationale)
        ]
    return {
        "inputs": json.dumps(dict(example.fields), ensure_ascii=False),
        "rationale": rationale,
        "rationale_kind": example.rationale_kind,
    }


def attribution_row(
    method: str,
    space: Space,
    attribution: Attribution,
    label: int,
    full_value: float,
    n_labels: int,
) -> dict[str, Any]:
    """Return the columns of `engine.schema.ATTRIBUTIONS` that say what was explained.

    Args:
        method: The method with its profile.
        space: Its features.
        attribution: Of all labels.
        label: The one whose row this is.
        full_value: v(all features) of that label.
        n_labels: How many there are; behind them may stand their sum, a whole continuation.
    """

    def of_label(values: FloatCL | None) -> float | None:
        return None if values is None else float(values[label])

    return {
        "method": method,
        "masked_on": space.masker.masked_on,
        "n_features": space.n_features,
        "spans": [
            {"feature": i, "start": s.start, "end": s.end, "field": s.field}
            for i, feature in enumerate(space.features)
            for s in feature.spans
        ],
        "values": attribution.values[label].tolist(),
        "values_by_label": attribution.values[:n_labels].tolist(),
        "base": float(attribution.base[label]),
        "full_value": full_value,
        "std_error": None
        if attribution.std_error is None
        else attribution.std_error[label].tolist(),
        "evaluations": attribution.evaluations,
        "residual": of_label(attribution.residual),
        "r2": of_label(attribution.r2),
        "diagnostics": json.dumps(dict(attribution.diagnostics), sort_keys=True),
        "status": status_of(attribution),
    }
