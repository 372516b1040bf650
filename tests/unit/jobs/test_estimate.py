from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.commits import CommitLog
from engine.store import write_units
from jobs.estimate import count, print_plan
from jobs.prepared import prepare
from jobs.runfolder import RunFolder
from tests.unit.fake_sweep import CountingHost, examples_of, plan_of, sweep

TEXTS = ["A good film, but very very dull.", "awful", "", "fun", "a plot with no end in sight"]
MANY: list[Any] = [
    {"name": "lime", "num_samples": 40},
    {"name": "kernel_shap", "num_samples": 40},
    {"name": "occlusion", "operator": "mask", "replacement": "_"},
    {"name": "lime", "compat": "lime", "num_samples": 30},
    "random",
]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("calibration", ["none", "contextual"])
def test_counts_are_those_of_the_run(size: int, calibration: str) -> None:
    """Without metrics, whose order of removal follows the scores."""
    config = sweep(*MANY, cluster__shard_size=size, prompt__calibration=calibration)
    plan = plan_of(config, examples_of(TEXTS))
    [pair] = plan.pairs.values()
    with CountingHost(pair) as host:
        failures = sum(host.run(pair, u).tables["failures"].num_rows for u in plan.units)
    counts = count(pair, plan.examples, size)
    assert counts.evaluations == len(host.sequences)
    assert counts.tokens == sum(map(len, host.sequences))
    assert counts.failures == failures


def test_a_tolerance_counts_with_the_whole_budget() -> None:
    most = {"name": "kernel_shap", "num_samples": 60}
    counts = []
    for explainer in (most, {**most, "relative_error": 0.2}):
        plan = plan_of(sweep(explainer), examples_of(["seven words that tell of one film"]))
        [pair] = plan.pairs.values()
        counts.append(count(pair, plan.examples, 4))
    assert counts[0] == counts[1]


def test_metrics_are_counted_to_within_the_order_of_removal() -> None:
    config = sweep(*MANY, metrics={"faithfulness": True})
    plan = plan_of(config, examples_of(TEXTS))
    [pair] = plan.pairs.values()
    with CountingHost(pair) as host:
        for unit in plan.units:
            host.run(pair, unit)
    counts = count(pair, plan.examples, 4)
    assert counts.evaluations == pytest.approx(len(host.sequences), rel=0.1)


def test_failures_to_come_are_counted() -> None:
    model = {"path": "fake:linear", "options": {"max_tokens": 40}}
    plan = plan_of(sweep("occlusion", "exact", models=[model]), examples_of(TEXTS))
    [pair] = plan.pairs.values()
    assert count(pair, plan.examples, 4).failures == 2


class TestPrinted:
    @staticmethod
    def printed(tmp_path: Path, **changes: Any) -> str:
        config = sweep(
            *MANY,
            run={"name": "t", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")},
            data={"path": "bundled:reviews", "id": "id", "limit": 6},
            **changes,
        )
        out = io.StringIO()
        print_plan(config, Console(file=out, width=160))
        return out.getvalue()

    def test_whole_data(self, tmp_path: Path) -> None:
        said = self.printed(tmp_path)
        config = sweep(*MANY, data={"path": "bundled:reviews", "id": "id", "limit": 6})
        plan, _ = prepare(config).plan()
        [pair] = plan.pairs.values()
        counts = count(pair, plan.examples, 4)
        assert "6 examples of 240 in bundled:reviews; 2 units, 0 of them done" in said
        assert f"{counts.evaluations:,}" in said
        assert f"{counts.tokens:,}" in said
        assert not (tmp_path / "run").exists()
        assert not (tmp_path / "store").exists()

    def test_a_sample_of_more(self, tmp_path: Path) -> None:
        said = self.printed(tmp_path, data__limit=40)
        assert "40 examples of 240" in said
        assert "Counted on 8 examples and scaled up to 40." in said

    def test_what_is_done_counts_whatever_the_shards_are_now(self, tmp_path: Path) -> None:
        data = {"path": "bundled:reviews", "id": "id", "limit": 6}
        run = {"name": "t", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")}
        plan, _ = prepare(sweep(*MANY, data=data, run=run)).plan()
        folder = RunFolder(tmp_path / "run")
        plan = folder.open(plan)
        [pair] = plan.pairs.values()
        log = CommitLog(folder.path)
        with CountingHost(pair) as host:
            done = host.run(pair, plan.units[0])
        log.append(write_units(folder.path, "w-1", [done]))
        log.close()
        assert "2 units, 1 of them done" in self.printed(tmp_path, cluster__shard_size=1)


def test_those_that_are_predicted_only_count_one_evaluation() -> None:
    plan = plan_of(sweep(*MANY, data__explain_limit=0), examples_of(TEXTS))
    [pair] = plan.pairs.values()
    assert count(pair, plan.examples, 4, explain=False).evaluations == len(TEXTS)
