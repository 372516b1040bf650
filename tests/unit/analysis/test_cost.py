from __future__ import annotations

import pytest

from analysis.cost import cost_table
from engine.schema import FACTORS, TIDY
from tests.unit.analysis.frames import only, prediction, run_of, timing


def test_means_totals_and_sharing() -> None:
    timings = [
        timing("a", "lime", evaluations_asked=10, evaluations_new=10, host_seconds=2.0),
        timing("b", "lime", evaluations_asked=30, evaluations_new=10, host_seconds=4.0),
        timing("a", "shap", evaluations_asked=10, evaluations_new=0, host_seconds=0.0),
    ]
    table = cost_table(run_of(timings=timings))

    def value(explainer: str, metric: str) -> float:
        return only(table, explainer=explainer, metric=metric)["value"]

    assert value("lime", "marginal_seconds") == 3.0
    assert value("lime", "evaluations_asked") == 20.0
    assert value("lime", "total_evaluations_asked") == 40.0
    assert value("lime", "sharing_rate") == pytest.approx(0.5)
    assert value("shap", "sharing_rate") == 1.0
    assert value("all", "sharing_rate") == pytest.approx(1 - 20 / 50)
    assert value("all", "total_marginal_seconds") == 6.0
    # an example's measures are added up: (10 + 10, 30)
    assert value("all", "evaluations_asked") == 25.0
    assert only(table, explainer="all", metric="evaluations_asked")["n"] == 2


def test_the_sharing_rate_is_split_by_where_values_came_from() -> None:
    counts = {"evaluations_asked": 50, "evaluations_first": 40, "evaluations_stored": 25}
    timings = [timing(e, "lime", **counts, evaluations_new=10) for e in "ab"]
    table = cost_table(run_of(timings=timings))
    rates = {
        name: only(table, explainer="lime", metric=name)["value"]
        for name in (
            "shared_across_explainers", "shared_across_runs", "shared_in_round", "sharing_rate"
        )
    }  # fmt: skip
    assert rates == pytest.approx(
        {
            "shared_across_explainers": 0.2,
            "shared_across_runs": 0.5,
            "shared_in_round": 0.1,
            "sharing_rate": 0.8,
        }
    )


def test_means_have_intervals_and_totals_none() -> None:
    table = cost_table(run_of(timings=[timing(e, "lime", host_seconds=ord(e)) for e in "abcdefg"]))
    mean = only(table, explainer="lime", metric="marginal_seconds")
    assert mean["ci_low"] < mean["value"] < mean["ci_high"]
    assert only(table, explainer="lime", metric="total_marginal_seconds")["ci_low"] is None


def test_groups_come_from_the_predictions() -> None:
    timings = [timing(e, "lime", host_seconds=float(i)) for i, e in enumerate("abcd")]
    predictions = [prediction(e, [0.5, 0.5], None, group="g") for e in "abcd"]
    grouped = cost_table(run_of(timings=timings, predictions=predictions))
    assert only(grouped, explainer="lime", metric="marginal_seconds")["ci_low"] is None
    alone = cost_table(run_of(timings=timings))
    assert only(alone, explainer="lime", metric="marginal_seconds")["ci_low"] is not None


def test_nothing_asked_has_no_sharing_rate() -> None:
    timings = [timing(e, "lime", evaluations_asked=0, evaluations_new=0) for e in "ab"]
    row = only(cost_table(run_of(timings=timings)), explainer="lime", metric="sharing_rate")
    assert row["value"] is None


def test_empty() -> None:
    table = cost_table(run_of())
    assert table.is_empty()
    assert table.columns == [*FACTORS, "explainer", *TIDY.names]


def test_weights_are_the_hosts() -> None:
    hosts = {
        "owner/m/fp32": {"memory_bytes": 538_060_800, "hosts": 2},
        "owner/m/nf4": {"memory_bytes": 134_000_000, "hosts": 1, "swaps": 1, "swap_seconds": 1.0},
        "fake/fp32": {"memory_bytes": 0, "hosts": 1},
        "died/fp32": {},
    }
    table = cost_table(run_of(timings=[timing("a", "lime")]), hosts)
    rows = table.filter(table["explainer"] == "weights")
    assert rows.select("model", "precision", "metric", "value", "n").rows() == [
        ("owner/m", "fp32", "weight_bytes", 538_060_800.0, 2),
        ("owner/m", "nf4", "weight_bytes", 134_000_000.0, 1),
    ]
    assert rows["adapter"].null_count() == rows["prompt"].null_count() == 2


def test_switches_of_adapters_are_the_hosts() -> None:
    hosts = {
        "m/fp32": {"swaps": 4, "swap_seconds": 2.0},
        "n/nf4": {"swaps": 0, "swap_seconds": 0.0},
        "died/fp32": {},
    }
    table = cost_table(run_of(timings=[timing("a", "lime")]), hosts)
    rows = table.filter(table["explainer"] == "swaps")
    assert rows["model"].unique().to_list() == ["m"]
    assert rows["adapter"].null_count() == len(rows)
    values = dict(rows.select("metric", "value").iter_rows())
    assert values == {"swap_seconds": 0.5, "total_swap_seconds": 2.0, "total_swaps": 4.0}
