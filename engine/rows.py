"""The rows of the result tables that one example gives, but for the columns that name it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

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
    rationale = None
    if example.rationale is not None:
        rationale = [
            {"feature": i, "start": s.start, "end": s.end, "field": s.field}
            for i, s in enumerate(example.rationale)
        ]
    return {
        "inputs": json.dumps(dict(example.fields), ensure_ascii=False),
        "labels": list(labels),
        "gold": example.label,
        "predicted": int(np.argmax(probabilities)),
        "log_probs": log_probs.tolist(),
        "probabilities": probabilities.tolist(),
        "log_z": float(raw[-2]),
        "label_mass": float(np.exp(log_probs).sum()),
        "calibration": None if calibration is None else calibration.tolist(),
        "rationale": rationale,
        "rationale_kind": example.rationale_kind,
        "tokens": int(raw[-1]),
    }


def attribution_row(
    method: str, space: Space, attribution: Attribution, label: int, full_value: float
) -> dict[str, Any]:
    """Return the columns of `engine.schema.ATTRIBUTIONS` that say what was explained.

    Args:
        method: The method with its profile.
        space: Its features.
        attribution: Of all labels.
        label: The one whose row this is.
        full_value: v(all features) of that label.
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
        "values_by_label": attribution.values.tolist(),
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
