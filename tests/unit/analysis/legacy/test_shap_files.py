"""The base of every label, whatever is explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.legacy.phases import phases
from analysis.legacy.shap_files import shap_file
from engine.target import transform
from engine.types import Target
from tests.unit.analysis.frames import attribution, prediction, run_of

FULL, EMPTY = np.log([0.2, 0.5, 0.3]), np.log([0.45, 0.15, 0.4])
"""Label probabilities of the whole text and without its words."""


def found_for(
    target: Target, full: Any = FULL, empty: Any = EMPTY, share: float = 1.0, **more: Any
) -> dict[str, Any]:
    """Return the file of one text of two words, whose values have `share` of the difference."""
    value, base = (transform(np.array([each]), target)[0] for each in (full, empty))
    by_label = np.stack([0.7 * (value - base), 0.3 * (value - base)], axis=1) * share
    p = np.exp(full)
    row = attribution(
        "e",
        by_label[1].tolist(),
        explainer="kernel_shap",
        target=target,
        values_by_label=by_label.tolist(),
        base=float(base[1]),
        full_value=float(value[1]),
    )
    said = prediction("e", p.tolist(), 1, inputs='{"text": "a b"}', **more)
    run = run_of(predictions=[said], attributions=[row])
    return shap_file(run, phases(run)[0], "kernel_shap")


@pytest.mark.parametrize("target", ["probability", "log_odds", "logprob"])
def test_every_label_has_its_base(target: Target) -> None:
    expected = transform(EMPTY[None], target)[0]
    assert found_for(target)["base_values"] == [pytest.approx(expected.tolist())]


def test_of_two_labels_in_probability_they_sum_to_one() -> None:
    [base] = found_for("probability", np.log([0.9, 0.1]), np.log([0.35, 0.65]))["base_values"]
    assert base == pytest.approx([0.35, 0.65])


def test_calibrated() -> None:
    shift = np.array([0.5, -0.25, 1.0])
    said = {"log_probs": (FULL + shift).tolist(), "calibration": shift.tolist()}
    expected = np.exp(EMPTY)
    assert found_for("probability", **said)["base_values"] == [pytest.approx(expected.tolist())]


def test_of_values_that_do_not_sum_up_only_the_explained_label_has_one() -> None:
    found = found_for("probability", share=0.5)
    assert found["base_values"] == [[None, pytest.approx(0.15), None]]
    assert "can't be told" in found["definition"]["base_values"]
