from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as oracle

from analysis.comparison import comparison_table
from analysis.levels import comparisons, levels
from analysis.load import RunTables
from engine.errors import RunFolderError
from engine.metrics.paired import mcnemar
from engine.schema import FACTORS, TIDY
from tests.unit.analysis.frames import Rows, only, prediction, run_of


def table(rows: Rows) -> pl.DataFrame:
    run = run_of(predictions=rows)
    return compared(run)


def compared(run: RunTables) -> pl.DataFrame:
    return comparison_table(run, comparisons(levels(run.predictions)))


def chosen(label: int, n_labels: int = 2) -> list[float]:
    return [0.8 if i == label else 0.2 / (n_labels - 1) for i in range(n_labels)]


def two_levels(n: int = 60, n_labels: int = 3, **more: Any) -> tuple[Rows, np.ndarray]:
    """Zero-shot right on half, tuned on most; gold, zero-shot, tuned [3, N]."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, n_labels, n)
    said = [np.where(rng.random(n) < p, gold, rng.integers(0, n_labels, n)) for p in (0.4, 0.9)]
    rows = [
        prediction(f"e{i:03d}", chosen(labels[i], n_labels), int(gold[i]), adapter=adapter, **more)
        for adapter, labels in zip(("none", "tuned"), said, strict=True)
        for i in range(n)
    ]
    return rows, np.stack([gold, *said])


def test_values_equal_sklearns_and_the_difference_is_theirs() -> None:
    rows, (gold, *said) = two_levels()
    found = table(rows)
    macro = {"average": "macro", "zero_division": 0.0}
    expected = {
        ("accuracy", None): [oracle.accuracy_score(gold, p) for p in said],
        ("precision", "macro"): [oracle.precision_score(gold, p, **macro) for p in said],
        ("recall", "macro"): [oracle.recall_score(gold, p, **macro) for p in said],
        ("f1", "macro"): [oracle.f1_score(gold, p, **macro) for p in said],
        ("mcc", None): [oracle.matthews_corrcoef(gold, p) for p in said],
    }
    for (metric, of), (reference, other) in expected.items():
        key = {"metric": metric, "class": of}
        wanted = {"reference": reference, "other": other, "difference": other - reference}
        for quantity, value in wanted.items():
            row = only(found, quantity=quantity, **key)
            assert row["value"] == pytest.approx(value)
            assert row["n"] == 60
            assert row["ci_low"] < row["value"] < row["ci_high"]


def test_mcnemar_counts_and_agreement() -> None:
    rows, (gold, a, b) = two_levels()
    found = table(rows)
    test = mcnemar(gold == a, gold == b)
    names = ("only_reference_right", "only_other_right", "mcnemar_p", "mcnemar_mid_p")
    for name, value in zip(names, test, strict=True):
        assert only(found, metric=name)["value"] == value
    assert only(found, metric="prediction_agreement")["value"] == pytest.approx((a == b).mean())


def test_the_interval_of_the_difference_is_a_paired_one() -> None:
    # both are wrong on the same third; the tuned one is right on one example more
    rows = []
    for adapter, wrong in (("none", set(range(0, 60, 3))), ("tuned", set(range(3, 60, 3)))):
        rows += [
            prediction(f"e{i:03d}", chosen(int(i in wrong)), 0, adapter=adapter) for i in range(60)
        ]
    found = table(rows)
    accuracy = {q: only(found, metric="accuracy", quantity=q) for q in ("other", "difference")}
    width = {q: row["ci_high"] - row["ci_low"] for q, row in accuracy.items()}
    assert accuracy["difference"]["value"] == pytest.approx(1 / 60)
    assert width["difference"] < width["other"] / 4


def test_only_examples_that_both_predicted_count() -> None:
    rows, _ = two_levels()
    rows = [r for r in rows if r["adapter"] == "tuned" or r["example"] >= "e030"]
    rows += [prediction("x", chosen(0, 3), None, adapter=a) for a in ("none", "tuned")]
    found = table(rows)
    assert only(found, metric="accuracy", quantity="other")["n"] == 30
    assert only(found, metric="prediction_agreement")["n"] == 31  # gold label or not


def test_columns_name_both_levels() -> None:
    found = table(two_levels()[0])
    names = ["kind", "other_model", "other_precision", "other_adapter"]
    names += ["n_seeds", "class", "quantity"]
    assert found.columns == [*FACTORS, *names, *TIDY.names]
    assert found.select("adapter", "other_adapter", "kind").unique().rows() == [
        ("none", "tuned", "adapter")
    ]


def test_without_anything_to_compare_the_table_is_empty_with_its_columns() -> None:
    full = table(two_levels()[0])
    one = table([r for r in two_levels()[0] if r["adapter"] == "none"])
    assert one.is_empty()
    assert one.schema == full.schema
    # no example in common
    apart = [prediction("a", chosen(0), 0), prediction("b", chosen(0), 0, adapter="tuned")]
    assert table(apart).is_empty()


def of_seeds(n: int = 60) -> tuple[Rows, np.ndarray]:
    """Zero-shot and three seeds of one training; gold and what each of the four says [5, N]."""
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 3, n)
    shares = {"none": 0.4, "t-seed0": 0.7, "t-seed1": 0.8, "t-seed2": 0.9}
    said = [np.where(rng.random(n) < p, gold, rng.integers(0, 3, n)) for p in shares.values()]
    rows = [
        prediction(f"e{i:03d}", chosen(labels[i], 3), int(gold[i]), adapter=adapter)
        for adapter, labels in zip(shares, said, strict=True)
        for i in range(n)
    ]
    return rows, np.stack([gold, *said])


def test_the_seeds_of_a_training_are_averaged() -> None:
    rows, (gold, *said) = of_seeds()
    found = table(rows)
    assert set(found.filter(pl.col("n_seeds") > 1)["other_adapter"]) == {"t-seed*"}
    assert set(found.filter(pl.col("n_seeds") == 1)["other_adapter"]) == {
        "t-seed0", "t-seed1", "t-seed2"
    }  # fmt: skip
    key = {"other_adapter": "t-seed*", "kind": "adapter", "n_seeds": 3}
    for metric, of, define in (
        ("accuracy", None, oracle.accuracy_score),
        ("f1", "macro", lambda a, b: oracle.f1_score(a, b, average="macro")),
        ("mcc", None, oracle.matthews_corrcoef),
    ):
        base, *each = (define(gold, labels) for labels in said)
        wanted = {"reference": base, "other": np.mean(each), "difference": np.mean(each) - base}
        for quantity, value in wanted.items():
            row = only(found, metric=metric, quantity=quantity, **{"class": of}, **key)
            assert row["value"] == pytest.approx(value)
            assert row["n"] == 60
            assert row["ci_low"] < row["value"] < row["ci_high"]
    alike = [(said[0] == labels).mean() for labels in said[1:]]
    row = only(found, metric="prediction_agreement", **key)
    assert row["value"] == pytest.approx(np.mean(alike))
    # an average is right or wrong about no example
    pooled = found.filter(pl.col("n_seeds") > 1)
    assert pooled.filter(pl.col("metric").str.contains("mcnemar|only")).is_empty()


def test_the_interval_over_seeds_is_wider_than_that_of_a_fixed_one() -> None:
    rows, (gold, *_) = of_seeds()
    wrong = {"t-seed0": 0.6, "t-seed1": 0.3, "t-seed2": 0.0}
    for row in rows:
        if (share := wrong.get(row["adapter"])) is not None:
            i = int(row["example"][1:])
            label = (gold[i] + 1) % 3 if i < share * 60 else gold[i]
            row["predicted"] = int(label)
    key = {"metric": "accuracy", "quantity": "other"}
    found = table(rows)
    width = {
        adapter: row["ci_high"] - row["ci_low"]
        for adapter in ("t-seed0", "t-seed1", "t-seed*")
        for row in [only(found, kind="adapter", other_adapter=adapter, **key)]
    }
    assert width["t-seed*"] > 1.3 * max(width["t-seed0"], width["t-seed1"])


def test_only_examples_that_every_seed_predicted_are_averaged() -> None:
    rows, _ = of_seeds()
    rows = [r for r in rows if r["adapter"] != "t-seed1" or r["example"] >= "e010"]
    key = {"metric": "accuracy", "quantity": "other", "kind": "adapter"}
    found = table(rows)
    assert only(found, other_adapter="t-seed*", **key)["n"] == 50
    assert only(found, other_adapter="t-seed0", **key)["n"] == 60


def test_continuations_have_nothing_to_be_right_about() -> None:
    token = [{"token": 1, "text": "x", "log_prob": -0.1}]
    rows = [prediction("a", [1.0], None, adapter=a, continuation=token) for a in ("none", "tuned")]
    assert table(rows).is_empty()


def test_other_label_sets_are_refused() -> None:
    rows = [prediction("a", chosen(0), 0), prediction("a", chosen(0, 3), 0, adapter="tuned")]
    with pytest.raises(RunFolderError, match="more than one label set"):
        table(rows)


def test_the_order_of_rows_changes_nothing() -> None:
    rows, _ = two_levels(group="g")
    assert table(rows).equals(table(rows[::-1]))
    assert table(rows)["ci_low"].null_count() == table(rows).height  # one group alone


def test_many_labels_of_which_few_occur() -> None:
    rows = [
        prediction(f"e{i}", chosen(i % 2, 900), 0, adapter=a)
        for i in range(8)
        for a in ("none", "tuned")
    ]
    row = only(table(rows), metric="f1", quantity="other")
    assert row["value"] == pytest.approx((2 / 3 + 0) / 2)
