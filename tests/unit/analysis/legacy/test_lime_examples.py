from __future__ import annotations

import json
from pathlib import Path

from analysis.legacy.charts import lime_chart, shap_summary_chart
from analysis.legacy.lime_examples import lime_examples
from analysis.legacy.phases import phases
from tests.unit.analysis.frames import attribution, prediction, run_of
from tests.unit.analysis.legacy_run import legacy_run


def test_the_words_of_the_largest_weights_for_the_positive_label() -> None:
    run = legacy_run()
    first, second = lime_examples(run, phases(run)[1])
    assert (first.name, first.label, first.target) == ("e0", "label1", "log_odds")
    assert (first.words, first.weights) == (["b", "a", "c"], [3.0, 0.0, 0.0])
    assert (second.name, second.words) == ("e1", ["c", "d"])


def test_texts_without_words_are_passed_over(tmp_path: Path) -> None:
    texts = {"e0": "", "e1": "costs $\\frac$ so"}
    values = {"e0": [], "e1": [-2.0]}
    spans = {"e0": [], "e1": [{"feature": 0, "start": 0, "end": 16, "field": "text"}]}
    run = run_of(
        predictions=[
            prediction(name, [0.4, 0.6], 1, inputs=json.dumps({"text": text}))
            for name, text in texts.items()
        ],
        attributions=[
            attribution(
                name,
                values[name],
                spans=spans[name],
                values_by_label=[[-v for v in values[name]], values[name]],
            )
            for name in texts
        ],
    )
    [example] = lime_examples(run, phases(run)[0])
    assert (example.words, example.weights) == (["costs $\\frac$ so"], [-2.0])
    lime_chart(example, tmp_path / "a.png")
    shap_summary_chart(example.words, [2.0], tmp_path / "b.png")
    assert all((tmp_path / name).stat().st_size > 0 for name in ("a.png", "b.png"))
