"""The benchmark of whole explanations, small: its figures are there and its weights agree."""

from __future__ import annotations

import pytest

from actors.offline import OFFLINE, find_gguf
from jobs.bench.explainers import run

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(find_gguf(OFFLINE[0]) is None, reason=OFFLINE[0].install),
]


def test_figures_and_equal_weights() -> None:
    said: list[str] = []
    figures = run(
        samples=24,
        repeats=1,
        prompt="short",
        texts=("a dull story told badly", "its cast proves a delight"),
        errors=False,
        say=said.append,
    )
    keys = {"vs_lime", "vs_shap_kernel", "vs_captum", "vs_shap_partition", "max_abs_dw", "detail"}
    assert figures.keys() == keys
    assert figures["max_abs_dw"] <= 1e-4
    for key in keys - {"max_abs_dw", "detail"}:
        assert figures[key] > 0
        # the peer evaluates what it draws, ours what is distinct
        detail = figures["detail"][key]
        assert 0 < detail["ours_evaluations"] <= detail["theirs_evaluations"] + 2
    assert any("vs_lime" in line for line in said)
