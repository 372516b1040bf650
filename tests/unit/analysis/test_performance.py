from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as oracle

from analysis.load import RunTables
from analysis.performance import performance_table, probabilities_table
from engine.errors import RunFolderError
from engine.schema import FACTORS, TIDY
from tests.unit.analysis.frames import Rows, only, prediction, run_of


def sample(n_labels: int, n: int = 40) -> tuple[Rows, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, n_labels, n)
    probabilities = rng.dirichlet(np.ones(n_labels), n) * 0.6 + 0.4 * np.eye(n_labels)[gold]
    rows = [prediction(f"e{i:04d}", probabilities[i].tolist(), int(gold[i])) for i in range(n)]
    return rows, gold, probabilities


@pytest.mark.parametrize("n_labels", [2, 3])
def test_values_equal_sklearns(n_labels: int) -> None:
    rows, gold, probabilities = sample(n_labels)
    table = performance_table(run_of(predictions=rows))
    predicted = probabilities.argmax(axis=1)
    scores = probabilities[:, 1] if n_labels == 2 else probabilities
    expected = {
        "accuracy": oracle.accuracy_score(gold, predicted),
        "mcc": oracle.matthews_corrcoef(gold, predicted),
        "auroc": oracle.roc_auc_score(gold, scores, multi_class="ovr"),
        "nll": oracle.log_loss(gold, probabilities),
        "majority_rate": np.bincount(gold).max() / len(gold),
    }
    for metric, value in expected.items():
        row = only(table, **{"class": None, "metric": metric})
        assert row["value"] == pytest.approx(value)
        assert row["n"] == 40
        if metric != "majority_rate":
            assert row["ci_low"] < row["value"] < row["ci_high"]
    each = oracle.f1_score(gold, predicted, average=None)
    for label, value in enumerate(each):
        row = only(table, **{"class": f"label{label}", "metric": "f1"})
        assert row["value"] == pytest.approx(value)
    macro = only(table, **{"class": "macro", "metric": "f1"})
    assert macro["value"] == pytest.approx(each.mean())
    assert macro["ci_low"] < macro["value"] < macro["ci_high"]


def test_columns_are_factors_then_classes_then_the_measure() -> None:
    table = performance_table(run_of(predictions=sample(2)[0]))
    assert table.columns == [*FACTORS, "class", "predicted_class", *TIDY.names]
    assert table["direction"].is_in(["higher", "lower", "none"]).all()


def test_the_confusion_matrix_has_all_cells_of_a_small_label_set() -> None:
    rows = [
        prediction("a", [0.9, 0.05, 0.05], 0),
        prediction("b", [0.9, 0.05, 0.05], 1),
        prediction("c", [0.9, 0.05, 0.05], 1),
    ]
    table = performance_table(run_of(predictions=rows)).filter(pl.col("metric") == "confusion")
    assert table.height == 9
    cell = only(table, **{"class": "label1", "predicted_class": "label0"})
    assert (cell["value"], cell["n"], cell["ci_low"]) == (2.0, 3, None)
    assert table["value"].sum() == 3


def test_probabilities_are_spread_over_ten_bins() -> None:
    rows = [
        prediction("a", [0.95, 0.05], 0),
        prediction("b", [0.41, 0.59], 0),
        prediction("c", [0.0, 1.0], 1),
    ]
    table = probabilities_table(run_of(predictions=rows))
    assert table.height == 20
    assert set(table["probability_of"]) == {"label1"}
    of_zero = table.filter(pl.col("class") == "label0")
    assert of_zero.filter(pl.col("value") > 0)["bin_low"].to_list() == pytest.approx([0.0, 0.5])
    assert of_zero["value"].sum() == pytest.approx(1.0)
    last = only(table, **{"class": "label1", "bin_high": 1.0})
    assert (last["value"], last["n"]) == (1.0, 1)


def test_probabilities_of_many_labels_are_those_of_the_gold_label() -> None:
    table = probabilities_table(run_of(predictions=sample(3)[0]))
    assert (table["class"] == table["probability_of"]).all()


def test_each_setting_of_the_factors_has_its_own_rows_and_random_numbers() -> None:
    rows, _, _ = sample(2)
    alone = performance_table(run_of(predictions=rows))
    both = performance_table(run_of(predictions=[*rows, *({**r, "model": "z"} for r in rows)]))
    assert both.filter(pl.col("model") == "tiny").equals(alone)
    # an interval of another setting comes from other resamples
    ours, theirs = (only(both, metric="nll", model=m)["ci_low"] for m in ("tiny", "z"))
    assert ours != theirs


def test_examples_without_a_gold_label_are_left_out() -> None:
    rows, _, _ = sample(2)
    table = performance_table(run_of(predictions=[*rows, prediction("x", [0.5, 0.5], None)]))
    assert only(table, metric="accuracy")["n"] == 40


@pytest.mark.parametrize("make", [performance_table, probabilities_table])
def test_without_gold_labels_the_table_is_empty_with_its_columns(
    make: Callable[[RunTables], pl.DataFrame],
) -> None:
    full = make(run_of(predictions=sample(2)[0]))
    empty = make(run_of(predictions=[prediction("a", [0.4, 0.6], None)]))
    assert empty.is_empty()
    assert empty.schema == full.schema
    assert make(run_of()).schema == full.schema


def test_a_single_label_and_a_single_example() -> None:
    table = performance_table(run_of(predictions=[prediction("a", [1.0], 0)]))
    accuracy = only(table, metric="accuracy")
    assert (accuracy["value"], accuracy["ci_low"]) == (1.0, None)
    assert only(table, metric="auroc")["value"] is None
    assert only(table, metric="mcc")["value"] == 0.0


def test_more_than_a_thousand_labels() -> None:
    n_labels = 1200
    rng = np.random.default_rng(0)
    rows = [
        prediction(f"e{i}", rng.dirichlet(np.ones(n_labels)).tolist(), int(rng.integers(n_labels)))
        for i in range(12)
    ]
    run = run_of(predictions=rows)
    table = performance_table(run)
    assert table.filter(pl.col("metric") == "confusion")["value"].sum() == 12
    assert 0 <= only(table, metric="auroc")["value"] <= 1
    assert table.height < 200
    assert probabilities_table(run).height <= 120


def test_groups_are_resampled_whole() -> None:
    rows, _, _ = sample(2)
    again = [
        {**row, "example": f"{row['example']}-{copy}", "group": row["example"]}
        for row in rows
        for copy in range(6)
    ]
    single = only(performance_table(run_of(predictions=rows)), metric="accuracy")
    naive = [{**row, "group": None} for row in again]
    apart = only(performance_table(run_of(predictions=naive)), metric="accuracy")
    whole = only(performance_table(run_of(predictions=again)), metric="accuracy")
    assert whole["ci_high"] - whole["ci_low"] > 1.5 * (apart["ci_high"] - apart["ci_low"])
    assert whole["ci_high"] - whole["ci_low"] == pytest.approx(single["ci_high"] - single["ci_low"])


def test_a_changing_label_set_is_refused() -> None:
    rows = [prediction("a", [0.5, 0.5], 0), prediction("b", [0.3, 0.3, 0.4], 0)]
    with pytest.raises(RunFolderError, match="more than one label set"):
        performance_table(run_of(predictions=rows))
