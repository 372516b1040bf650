from __future__ import annotations

import polars as pl
import pytest

from analysis.complexity import complexity_table
from analysis.context import CONTEXT_COLUMNS, NOT_ABOVE_MAJORITY, Context
from analysis.load import RunTables
from engine.schema import FACTORS, GAME, TIDY
from tests.unit.analysis.frames import attribution, only, prediction, run_of


def table_of(run: RunTables) -> pl.DataFrame:
    return complexity_table(run, Context.of(run.predictions))


def test_means_over_examples() -> None:
    rows = [attribution("a", [0.0, 2.0, 0.0, 0.0]), attribution("b", [1.0, -1.0, 1.0, 1.0])]
    table = table_of(run_of(attributions=rows))
    assert only(table, metric="gini")["value"] == pytest.approx(0.5)
    assert only(table, metric="entropy")["value"] == pytest.approx(0.5)
    assert only(table, metric="effective_size")["value"] == pytest.approx(2.5)
    assert only(table, metric="top_k_mass")["value"] == pytest.approx(0.75)
    assert set(table["n"]) == {2}


def test_texts_without_features_and_broken_values_are_left_out() -> None:
    rows = [
        attribution("a", [0.0, 2.0]),
        attribution("b", []),
        attribution("c", [float("nan"), 1.0]),
        attribution("d", [3.0]),
    ]
    table = table_of(run_of(attributions=rows))
    assert only(table, metric="gini")["n"] == 1
    assert only(table, metric="effective_size")["n"] == 2


def test_accuracy_stands_beside_it() -> None:
    predictions = [prediction("a", [0.9, 0.1], 0), prediction("b", [0.9, 0.1], 1)]
    rows = [attribution("a", [1.0, 2.0]), attribution("b", [1.0, 2.0])]
    row = only(table_of(run_of(predictions=predictions, attributions=rows)), metric="gini")
    assert (row["accuracy"], row["majority_rate"]) == (0.5, 0.5)
    assert row["verdict"] == NOT_ABOVE_MAJORITY


def test_empty() -> None:
    table = table_of(run_of())
    assert table.is_empty()
    assert table.columns == [*FACTORS, *GAME, *CONTEXT_COLUMNS, *TIDY.names]
