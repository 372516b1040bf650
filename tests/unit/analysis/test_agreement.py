from __future__ import annotations

import polars as pl
import pytest

from analysis.agreement import agreement_table
from analysis.context import Context
from analysis.load import RunTables
from engine.schema import TIDY
from tests.unit.analysis.frames import attribution, only, run_of, words


def table_of(run: RunTables) -> pl.DataFrame:
    return agreement_table(run, Context.of(run.predictions))


def test_a_pair_by_hand() -> None:
    rows = [
        attribution("a", [1.0, 0.0, 0.0], explainer="shap"),
        attribution("a", [2.0, 0.0, 0.0], explainer="lime"),
        attribution("b", [1.0, 0.0, 0.0], explainer="shap"),
        attribution("b", [0.0, 3.0, 0.0], explainer="lime"),
    ]
    table = table_of(run_of(attributions=rows))
    assert table.height == 3
    cosine = only(table, metric="cosine")
    assert (cosine["explainer_a"], cosine["explainer_b"]) == ("lime", "shap")
    assert (cosine["value"], cosine["n"]) == (pytest.approx(0.5), 2)
    assert only(table, metric="top_k_overlap")["value"] == pytest.approx(0.5)
    assert only(table, metric="spearman")["value"] == pytest.approx((1 - 0.5) / 2)


def test_three_explainers_make_three_pairs() -> None:
    rows = [attribution("a", [1.0, 2.0], explainer=e) for e in ("c", "a", "b")]
    pairs = table_of(run_of(attributions=rows)).select("explainer_a", "explainer_b").unique()
    assert sorted(pairs.rows()) == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    "other",
    [
        {"target": "probability"},
        {"class_rule": "gold"},
        {"operator": "mask"},
        {"features": "tokens"},
        {"model": "another"},
        {"class_name": "label0"},
        {"spans": [{**span, "end": span["end"] + 1} for span in words(2)]},
    ],
)
def test_only_attributions_of_one_game_are_compared(other: dict[str, object]) -> None:
    rows = [
        attribution("a", [1.0, 2.0], explainer="lime"),
        attribution("a", [1.0, 2.0], explainer="shap", **other),
    ]
    assert table_of(run_of(attributions=rows)).is_empty()


def test_examples_that_only_one_explained_do_not_count() -> None:
    rows = [
        attribution("a", [1.0, 2.0], explainer="lime"),
        attribution("b", [1.0, 2.0], explainer="lime"),
        attribution("b", [1.0, 2.0], explainer="shap"),
    ]
    assert set(table_of(run_of(attributions=rows))["n"]) == {1}


def test_undefined_agreement_is_a_row_without_a_value() -> None:
    rows = [attribution("a", [], explainer=e) for e in ("lime", "shap")]
    assert table_of(run_of(attributions=rows))["value"].to_list() == [None] * 3


def test_empty() -> None:
    table = table_of(run_of())
    assert table.is_empty()
    assert table.columns[-len(TIDY.names) :] == TIDY.names
