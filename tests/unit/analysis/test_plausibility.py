from __future__ import annotations

import polars as pl
import pytest

from analysis.context import Context
from analysis.load import RunTables
from analysis.plausibility import plausibility_table
from engine.schema import TIDY
from tests.unit.analysis.frames import attribution, only, prediction, run_of


def table_of(run: RunTables) -> pl.DataFrame:
    return plausibility_table(run, Context.of(run.predictions))


def marked(example: str, *spans: tuple[int, int], kind: str = "human") -> dict:
    rationale = [
        {"feature": i, "start": s, "end": e, "field": "text"} for i, (s, e) in enumerate(spans)
    ]
    return prediction(example, [0.1, 0.9], 1, rationale=rationale, rationale_kind=kind)


def test_means_over_examples_with_a_rationale() -> None:
    # the words stand at 0-1, 2-3, 4-5, 6-7
    predictions = [marked("a", (0, 3)), marked("b", (6, 7)), prediction("c", [0.1, 0.9], 1)]
    rows = [
        attribution("a", [4.0, 3.0, 2.0, 1.0]),
        attribution("b", [4.0, 3.0, 2.0, 1.0]),
        attribution("c", [4.0, 3.0, 2.0, 1.0]),
    ]
    table = table_of(run_of(predictions=predictions, attributions=rows))
    assert only(table, metric="iou")["value"] == pytest.approx(0.5)
    assert only(table, metric="token_f1")["value"] == pytest.approx(0.5)
    assert only(table, metric="auprc")["value"] == pytest.approx((1 + 0.25) / 2)
    assert set(table["n"]) == {2}
    assert set(table["rationale_kind"]) == {"human"}


def test_kinds_of_rationale_are_kept_apart() -> None:
    predictions = [marked("a", (0, 1)), marked("b", (0, 1), kind="author_marked")]
    rows = [attribution("a", [2.0, 1.0]), attribution("b", [1.0, 2.0])]
    table = table_of(run_of(predictions=predictions, attributions=rows))
    assert only(table, metric="iou", rationale_kind="human")["value"] == 1.0
    assert only(table, metric="iou", rationale_kind="author_marked")["value"] == 0.0


def test_rationales_that_say_nothing_are_not_counted() -> None:
    predictions = [marked("a", (0, 3)), marked("b", (50, 60)), marked("c")]
    rows = [attribution(e, [2.0, 1.0]) for e in "abc"]
    table = table_of(run_of(predictions=predictions, attributions=rows))
    assert table["n"].to_list() == [0, 0, 0]
    assert table["value"].to_list() == [None] * 3


def test_features_of_several_spans() -> None:
    spans = [
        {"feature": 0, "start": 0, "end": 1, "field": "text"},
        {"feature": 0, "start": 6, "end": 7, "field": "text"},
        {"feature": 1, "start": 2, "end": 3, "field": "text"},
    ]
    rows = [attribution("a", [2.0, 1.0], spans=spans, features="word_types")]
    table = table_of(run_of(predictions=[marked("a", (6, 7))], attributions=rows))
    assert only(table, metric="iou")["value"] == 1.0


def test_empty_without_rationales() -> None:
    run = run_of(
        predictions=[prediction("a", [0.1, 0.9], 1)], attributions=[attribution("a", [1.0])]
    )
    table = table_of(run)
    assert table.is_empty()
    assert "rationale_kind" in table.columns
    assert table.columns[-len(TIDY.names) :] == TIDY.names
