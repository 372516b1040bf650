"""The benchmark of whole explanations, small: its figures are there and its weights agree."""

from __future__ import annotations

import pytest

from actors.offline import OFFLINE, find_gguf
from jobs.bench import over_hosts
from jobs.bench.explainers import MODEL, Bench, run

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
        say=said.append,
    )
    ratios = {"vs_lime", "vs_shap_kernel", "vs_captum", "vs_shap_partition"}
    equal = "vs_shap_kernel_equal_error"
    assert figures.keys() == {*ratios, equal, "device", "max_abs_dw", "to_relative_error", "detail"}
    assert figures["max_abs_dw"] <= 1e-4
    assert figures[equal] > 0
    # 32 coalitions of five words: from there on nothing is drawn
    assert figures["detail"][equal]["relative_error_by_samples"]["64"] < 1e-6
    for key in ratios:
        assert figures[key] > 0
        # the peer evaluates what it draws, ours what is distinct
        detail = figures["detail"][key]
        assert 0 < detail["ours_evaluations"] <= detail["theirs_evaluations"] + 2
    assert any("vs_lime" in line for line in said)
    for reached in figures["to_relative_error"].values():
        assert reached.keys() == {"evaluations", "seconds"}


@pytest.mark.ray
def test_the_cost_of_an_error_over_hosts() -> None:
    bench = Bench(MODEL, "short", ("a dull story", "its fine cast"), 1, "cpu")
    sweep = bench.sweep({"name": "kernel_shap", "num_samples": 8})
    assert over_hosts.run(sweep, bench.texts, (1,), "cpu").keys() == {1}
