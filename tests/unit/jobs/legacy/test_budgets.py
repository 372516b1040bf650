"""A budget that is too small for the longest text is raised, and everybody is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.plan import Plan
from jobs.legacy import flags, sweeps
from jobs.legacy.budgets import print_cost, raised_budgets, with_budgets
from jobs.prepared import prepare
from tests.unit.fake_sweep import CountingHost

TEXTS = ["a film", "one two three four five six seven", "", "not, in the least, a good one"]


@pytest.fixture
def common(tmp_path: Path) -> list[str]:
    file = tmp_path / "data.jsonl"
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [
        *("--model-name", "fake:linear"),
        *("--output-dir", str(tmp_path / "out")),
        *("--eval-data", str(file)),
        *("--set", f"run.store={tmp_path / 'store'}"),
        "--no-finetune",
        "--no-load-in-4bit",
    ]


def shap(*arguments: str) -> sweeps.LegacyRun:
    return sweeps.shap_run(flags.shap_parser().parse_args(arguments))


def planned_for(run: sweeps.LegacyRun) -> Plan:
    plan, _ = prepare(run.sweep).plan()
    return plan


def rows_of(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    [pair] = plan.pairs.values()
    rows: dict[str, list[dict[str, Any]]] = {"attributions": [], "failures": []}
    with CountingHost(pair) as host:
        for unit in plan.units:
            tables = host.run(pair, unit).tables
            for name in rows:
                rows[name] += tables[name].to_pylist()
    return rows


def test_no_text_fails_for_want_of_evaluations(common: list[str]) -> None:
    run = shap("--shap-max-evals", "4", *common)
    plan = planned_for(run)
    assert len(rows_of(plan)["failures"]) == 2  # the two of seven words
    raised = raised_budgets(plan)
    assert {label: each.num_samples for label, each in raised.items()} == {"kernel_shap": 16}
    assert str(raised["kernel_shap"]) == (
        "num_samples is 16, not the 4 asked for: the longest explained text has 7 words, and needs "
        "as many"
    )
    rows = rows_of(prepare(with_budgets(run.sweep, raised)).plan()[0])
    assert rows["failures"] == []
    assert {row["evaluations"] for row in rows["attributions"] if row["n_features"] == 7} == {16}


def test_a_budget_that_suffices_is_left_alone(common: list[str]) -> None:
    run = shap("--shap-max-evals", "16", *common)
    assert raised_budgets(planned_for(run)) == {}
    assert with_budgets(run.sweep, {}) == run.sweep


def test_only_texts_that_are_explained_count(common: list[str]) -> None:
    def needed(count: int) -> int:
        run = shap("--shap-max-evals", "1", "--shap-example-count", str(count), *common)
        plan = planned_for(run)
        chosen = [len(e.fields["text"].split()) for e in plan.examples if e.id in plan.explained]
        found = raised_budgets(plan)
        assert [each.n_features for each in found.values()] == [max(chosen)] * len(found)
        return len(chosen)

    assert [needed(n) for n in (2, 4)] == [2, 4]


def test_lime_needs_a_sample_more_than_words(common: list[str]) -> None:
    small = ("--set", "explainers.0.num_samples=3", "--set", "explainers.1.num_samples=9")
    options = flags.modular_parser().parse_args([*common, *small])
    raised = raised_budgets(planned_for(sweeps.modular_run(options)))
    assert {label: each.num_samples for label, each in raised.items()} == {
        "lime": 8,
        "kernel_shap": 16,
    }


def test_libraries_that_are_reproduced_keep_their_budget(common: list[str]) -> None:
    run = shap("--shap-max-evals", "4", "--set", "explainers.0.compat=shap", *common)
    assert raised_budgets(planned_for(run)) == {}


def test_the_cost_is_printed(common: list[str]) -> None:
    run = shap("--shap-max-evals", "16", *common)
    out = io.StringIO()
    print_cost(planned_for(run), Console(file=out, width=200))
    first, second, _ = out.getvalue().splitlines()
    assert first == "4 of 4 examples are explained by kernel_shap (16 samples)."
    # 2 + 14 of each of the two texts of 7 words, 4 of the one of two, 1 of the empty one
    assert second.startswith("Planned with adapter none: about 37 evaluations")
