from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.context import BETTER, CONTEXT_COLUMNS, NOT_ABOVE_MAJORITY, WORSE, Context
from analysis.faithfulness import faithfulness_table
from analysis.load import RunTables
from engine.schema import FACTORS, GAME, TIDY
from tests.unit.analysis.frames import Rows, attribution, metric, only, prediction, run_of

N = 20


def table_of(run: RunTables) -> pl.DataFrame:
    return faithfulness_table(run, Context.of(run.predictions))


def right(n: int = N) -> Rows:
    return [prediction(f"e{i:02d}", [1 - i % 2, i % 2], i % 2) for i in range(n)]


def measured(name: str, shift: float, **more: object) -> Rows:
    rng = np.random.default_rng(0)
    base = rng.random(N)
    noise = rng.normal(scale=0.01, size=N)
    return [
        metric(f"e{i:02d}", name, base[i] + shift + noise[i], base[i], **more) for i in range(N)
    ]


def test_the_difference_to_random_is_paired() -> None:
    run = run_of(predictions=right(), metrics=measured("comprehensiveness", 0.1))
    table = table_of(run)
    plain = only(table, reference="none")
    over = only(table, reference="minus_random")
    values = run.metrics["value"].to_numpy()
    assert plain["value"] == pytest.approx(values.mean())
    assert over["value"] == pytest.approx((values - run.metrics["random"].to_numpy()).mean())
    # pairing takes the examples' own spread away
    assert over["ci_high"] - over["ci_low"] < 0.1 * (plain["ci_high"] - plain["ci_low"])
    assert over["ci_low"] > 0
    assert (plain["verdict"], over["verdict"]) == (None, BETTER)
    assert (over["accuracy"], over["majority_rate"]) == (1.0, 0.5)


@pytest.mark.parametrize("name", ["sufficiency", "deletion_auc"])
def test_lower_is_better_where_the_metric_says_so(name: str) -> None:
    table = table_of(run_of(predictions=right(), metrics=measured(name, 0.1)))
    assert only(table, reference="minus_random")["verdict"] == WORSE
    assert set(table["direction"]) == {"lower"}


def test_a_model_of_guesses_gets_no_verdict() -> None:
    guesses = [prediction(f"e{i:02d}", [0.9, 0.1], i % 2) for i in range(N)]
    table = table_of(run_of(predictions=guesses, metrics=measured("comprehensiveness", 0.1)))
    assert set(table["verdict"]) == {NOT_ABOVE_MAJORITY}


def test_sizes_have_rows_of_their_own() -> None:
    rows = [
        metric("e00", "comprehensiveness_at_k", 0.5, 0.1, n_removed=1),
        metric("e01", "comprehensiveness_at_k", 0.7, 0.1, n_removed=1),
        metric("e00", "comprehensiveness_at_k", 0.9, 0.2, n_removed=3),
    ]
    table = table_of(run_of(predictions=right(), metrics=rows))
    one = only(table, n_removed=1, reference="minus_random")
    assert (one["value"], one["n"]) == (pytest.approx(0.5), 2)
    assert only(table, n_removed=3, reference="none")["n"] == 1


def test_values_that_are_not_defined_are_not_counted() -> None:
    rows = [metric("e00", "deletion_gain", 0.4, 0.0), metric("e01", "deletion_gain", None, None)]
    table = table_of(run_of(predictions=right(), metrics=rows))
    row = only(table, reference="none")
    assert (row["value"], row["n"]) == (0.4, 1)
    # accuracy is of the same single example
    assert row["accuracy_ci_low"] is None


def test_all_values_undefined_stay_a_row_without_a_value() -> None:
    table = table_of(run_of(metrics=[metric("e00", "sufficiency", None, None)]))
    assert only(table, reference="none")["value"] is None
    assert only(table, reference="minus_random")["n"] == 0


def test_fits_are_medians_of_the_explainers_that_have_them() -> None:
    rows = [
        *[attribution(f"e{i:02d}", [1.0], r2=v) for i, v in enumerate([0.1, 0.9, 0.8])],
        *[
            attribution(f"e{i:02d}", [1.0], explainer="shap", residual=v)
            for i, v in enumerate([-3e-6, 1e-6, 2e-6])
        ],
    ]
    table = table_of(run_of(predictions=right(), attributions=rows))
    assert table.height == 2
    assert only(table, metric="r2", explainer="lime")["value"] == 0.8
    residual = only(table, metric="abs_residual", explainer="shap")
    assert (residual["value"], residual["direction"]) == (2e-6, "lower")


def test_the_version_of_the_rows_definition_is_kept_apart() -> None:
    rows = [
        metric("e00", "sufficiency", 0.1, 0.0, definition_version=7),
        metric("e01", "sufficiency", 0.3, 0.0),
    ]
    table = table_of(run_of(metrics=rows)).filter(pl.col("reference") == "none")
    assert only(table, definition_version=7)["value"] == 0.1
    assert only(table, definition_version=1)["value"] == 0.3


def test_different_games_are_never_averaged() -> None:
    rows = [
        metric("e00", "sufficiency", 0.1, 0.0),
        metric("e00", "sufficiency", 0.2, 0.0, target="probability"),
        metric("e00", "sufficiency", 0.3, 0.0, class_rule="gold"),
        metric("e00", "sufficiency", 0.4, 0.0, operator="mask"),
    ]
    table = table_of(run_of(metrics=rows)).filter(pl.col("reference") == "none")
    assert sorted(table["value"]) == [0.1, 0.2, 0.3, 0.4]


def test_columns_also_of_an_empty_table() -> None:
    names = [*FACTORS, *GAME, "n_removed", "reference", *CONTEXT_COLUMNS, *TIDY.names]
    table = table_of(run_of(predictions=right()))
    assert table.is_empty()
    assert table.columns == names
