from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.levels import comparisons, levels
from analysis.shift_examples import REFUSED, STATISTICS, shift_examples_table, shifts
from engine.metrics.shift import between
from tests.unit.analysis.frames import Rows, attribution, only, prediction, run_of, words

REFERENCE = [3.0, -1.0, 0.5, 0.0]
OTHER = [1.0, -2.0, -0.5, 0.2]


def said(example: str, adapter: str, label: int = 1, **more: Any) -> dict[str, Any]:
    probabilities = [0.7 if i == label else 0.3 for i in range(2)]
    return prediction(example, probabilities, 1, adapter=adapter, **more)


def table(attributions: Rows, predictions: Rows | None = None) -> pl.DataFrame:
    if predictions is None:
        names = {(row["example"], row["adapter"]) for row in attributions}
        predictions = [said(example, a) for example, _ in names for a in ("none", "tuned")]
        predictions = list({(p["example"], p["adapter"]): p for p in predictions}.values())
    run = run_of(predictions=predictions, attributions=attributions)
    return shift_examples_table(shifts(run, comparisons(levels(run.predictions))))


def pair(example: str = "e", a: Any = REFERENCE, b: Any = OTHER, **of_other: Any) -> Rows:
    return [attribution(example, a), attribution(example, b, **{"adapter": "tuned", **of_other})]


def statistics(a: Any, b: Any) -> dict[str, float]:
    rows = (np.array([side], dtype=float) for side in (a, b))
    return {name: float(value[0]) for name, value in between(*rows).items()}


def test_a_row_has_the_statistics_of_its_example() -> None:
    row = only(table(pair()), example="e")
    assert (row["adapter"], row["other_adapter"], row["kind"]) == ("none", "tuned", "adapter")
    assert (row["explainer"], row["other_explainer"], row["class_name"]) == (
        "lime",
        "lime",
        "label1",
    )
    assert (row["n_features"], row["refused"], row["same_prediction"]) == (4, None, True)
    for name, value in statistics(REFERENCE, OTHER).items():
        expected = None if np.isnan(value) else pytest.approx(value)
        assert row[name] == expected, name
    assert (row["mass_reference"], row["mass_other"]) == (4.5, pytest.approx(3.7))


def test_the_class_is_the_references_wherever_the_other_predicts_another() -> None:
    # the other reports label0; its row of label1 stands in values_by_label
    more = {"class_name": "label0", "values_by_label": [[9.0, 9, 9, 9], OTHER]}
    predictions = [said("e", "none"), said("e", "tuned", label=0)]
    row = only(table(pair(b=[9.0, 9, 9, 9], **more), predictions), example="e")
    assert row["spearman"] == pytest.approx(statistics(REFERENCE, OTHER)["spearman"])
    assert row["class_name"] == "label1"
    assert row["same_prediction"] is False


def test_other_classes_than_the_reference_reports_can_be_compared() -> None:
    more = {"values_by_label": [OTHER, REFERENCE]}
    rows = [row for name in "abc" for row in pair(name, values_by_label=[REFERENCE, OTHER])]
    for row in rows[::2]:
        row.update(more)
    names = [(example, adapter) for example in "abc" for adapter in ("none", "tuned")]
    run = run_of(predictions=[said(*name) for name in names], attributions=rows)
    (shift,) = shifts(run, comparisons(levels(run.predictions)))
    wanted = {"example": ["b", "c"], "wanted_class": ["label0", "nothing"]}
    found = shift.sides.compare(pl.DataFrame(wanted))
    assert found.schema == shift.frame.schema
    assert found.select("example", "class_name", "refused").rows() == [
        ("b", "label0", None),
        ("c", "nothing", "other_class"),
    ]
    assert found["mass_reference"][0] == pytest.approx(3.7)
    assert found["mass_other"][0] == pytest.approx(4.5)
    assert found["pearson"][0] == pytest.approx(statistics(OTHER, REFERENCE)["pearson"])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (pair(spans=words(5)[1:]), "other_features"),
        (pair(spans=[{**s, "field": "title"} for s in words(4)]), "other_features"),
        (pair()[:1], "missing"),
        (pair()[1:], "missing"),
        (pair(b=[1.0, float("nan"), 0, 0]), "not_finite"),
        (pair(a=[1.0, float("inf"), 0, 0]), "not_finite"),
        (pair(a=[], b=[]), "no_features"),
        (pair(class_name="label0", values_by_label=[OTHER]), "other_class"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(rows: Rows, reason: str) -> None:
    found = table([*pair("a"), *rows])
    row = only(found, example="e")
    assert row["refused"] == reason
    assert reason in REFUSED
    assert all(row[name] is None for name in STATISTICS)
    assert only(found, example="a")["refused"] is None


def test_undefined_values_are_null() -> None:
    row = only(table(pair(a=[0.0] * 4)), example="e")
    assert row["refused"] is None
    assert row["cosine"] is row["spearman"] is row["mass_ratio"] is row["gini_reference"] is None
    assert (row["mass_reference"], row["sign_flips"]) == (0.0, 0.0)


def test_texts_of_many_lengths_keep_their_own_values() -> None:
    rng = np.random.default_rng(0)
    sides = {f"e{i:02d}": rng.normal(size=(2, 1 + i % 9)).tolist() for i in range(40)}
    found = table([row for name, (a, b) in sides.items() for row in pair(name, a, b)])
    assert found["example"].to_list() == sorted(sides)
    for row in found.iter_rows(named=True):
        expected = statistics(*sides[row["example"]])
        assert row["cosine"] == pytest.approx(expected["cosine"])
        assert row["sign_flips"] == expected["sign_flips"]


def test_games_and_explainers_are_kept_apart() -> None:
    rows = [*pair(), *[{**r, "explainer": "shap"} for r in pair()]]
    rows += [{**r, "target": "probability"} for r in pair()[:1]]
    rows += [{**r, "operator": "mask"} for r in pair()[1:]]
    assert table(rows).select("explainer", "target", "operator").rows() == [
        ("lime", "log_odds", "delete"),
        ("shap", "log_odds", "delete"),
    ]


def test_continuations_are_compared_if_they_are_the_same() -> None:
    def continued(example: str, adapter: str, text: str) -> dict[str, Any]:
        tokens = [{"token": i, "text": t, "log_prob": -0.1} for i, t in enumerate(text)]
        return prediction(example, [1.0], None, adapter=adapter, continuation=tokens, labels=[text])

    predictions = [
        *[continued("same", a, "ab") for a in ("none", "tuned")],
        continued("other", "none", "ab"),
        continued("other", "tuned", "ac"),
    ]
    rows = []
    for example in ("same", "other"):
        more = {"class_rule": "token:0", "values_by_label": [OTHER, OTHER]}
        rows += pair(example, class_name="a", **more)
        rows[-2].update(class_rule="token:0", class_name="a")
    found = table(rows, predictions)
    same, other = only(found, example="same"), only(found, example="other")
    assert (same["refused"], same["same_prediction"]) == (None, True)
    # the same first token, but before another one
    assert (other["refused"], other["same_prediction"]) == ("other_class", False)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [*pair("b"), *pair("a", group="g"), *pair("c", spans=words(5)[1:])]
    assert table(rows).equals(table(rows[::-1]))


def test_without_comparisons_the_columns_are_there() -> None:
    full, empty = table(pair()), shift_examples_table([])
    assert empty.is_empty()
    assert empty.schema == full.schema
