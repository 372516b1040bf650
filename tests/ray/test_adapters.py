"""A sweep over the base and two adapters: one copy of the model, few switches, the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from analysis.load import RunTables
from engine.commits import read_commits
from engine.config import parse_config
from jobs.sweep import Outcome, run_sweep
from tests.models.lora import ATTENTION, WIDE, edit_config, save_adapter
from tests.models.trainings import save_tiny, write_rows

pytestmark = pytest.mark.models

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters")
    base = save_tiny(path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    save_adapter(model, path / "a", **ATTENTION)
    save_adapter(model, path / "b", seed=2, **WIDE)
    write_rows(path / "rows.jsonl", 6)
    return path


def sweep(folder: Path, out: Path, adapters: list[Any], **cluster: Any) -> dict[str, Any]:
    return {
        "run": {"name": "t", "out": str(out / "run"), "store": str(out / "store")},
        "models": [{"name": "tiny", "path": str(folder / "base"), "adapters": adapters}],
        "data": {"path": str(folder / "rows.jsonl")},
        "prompt": {
            "template": "{text} ->",
            "labels": {"negative": " bad", "positive": " good"},
        },
        "explainers": [{"name": "kernel_shap", "num_samples": 48}, "occlusion"],
        "metrics": {"faithfulness": False},
        "cluster": {"threads": 1, "num_cpus": 2, "hosts": 1, "shard_size": 1, **cluster},
    }


def run(raw: dict[str, Any]) -> Outcome:
    return run_sweep(parse_config(raw), QUIET)


def attributions(outcome: Outcome) -> pl.DataFrame:
    return RunTables.load(outcome.folder).attributions


def values(frame: pl.DataFrame, adapter: str) -> np.ndarray:
    rows = frame.filter(pl.col("adapter") == adapter).sort("example", "explainer")["values"]
    return np.concatenate([np.asarray(row) for row in rows])


@pytest.mark.usefixtures("local_ray")
class TestAdapters:
    def test_one_host_answers_for_all(self, folder: Path, tmp_path: Path) -> None:
        paths = [str(folder / name) for name in ("a", "b")]
        outcome = run(sweep(folder, tmp_path / "all", ["none", *paths]))
        assert outcome.code == 0
        found = attributions(outcome)
        assert sorted(found["adapter"].unique()) == ["a", "b", "none"]
        assert np.abs(values(found, "a") - values(found, "none")).max() > 1e-3

        [host] = json.loads((outcome.folder / "run.json").read_text())["hosts"].values()
        # few units: were they served as they come, nearly every one would be a switch
        assert 2 <= host["swaps"] <= 9
        assert host["adapter_loads"] == 2
        cost = pl.read_parquet(outcome.folder / "tables" / "cost.parquet")
        [swaps] = cost.filter(pl.col("metric") == "total_swaps")["value"]
        assert swaps == host["swaps"]

        # each alone on a host of its own says the same
        for adapter, written in (("none", "none"), ("b", paths[1])):
            alone = attributions(run(sweep(folder, tmp_path / adapter, [written])))
            np.testing.assert_allclose(
                values(found, adapter), values(alone, adapter), atol=2e-4, rtol=0
            )

    def test_resumed_it_has_the_same_tables(self, folder: Path, tmp_path: Path) -> None:
        adapters = ["none", str(folder / "a")]
        whole = run(sweep(folder, tmp_path / "whole", adapters))
        raw = sweep(folder, tmp_path / "cut", adapters)
        cut = run(raw)
        for log in (cut.folder / "commits").glob("*.log"):  # as if it had ended in the middle
            lines = log.read_text().splitlines(keepends=True)
            log.write_text("".join(lines[: len(lines) // 2]))
        for lease in (cut.folder / "commits").glob("*.lease"):
            lease.unlink()
        left = set(read_commits(whole.folder)) - set(read_commits(cut.folder))
        assert left
        assert run(raw).code == 0
        for name in ("predictions", "attributions"):
            one, other = (getattr(RunTables.load(o.folder), name) for o in (whole, cut))
            keys = [c for c in ("adapter", "example", "explainer") if c in one.columns]
            assert one.select(keys).equals(other.select(keys))
        np.testing.assert_allclose(
            values(attributions(whole), "a"), values(attributions(cut), "a"), atol=2e-4
        )

    def test_one_that_is_broken_leaves_the_others(self, folder: Path, tmp_path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
        idle = save_adapter(model, tmp_path / "idle", scale=0.0, **ATTENTION)
        wrong = save_adapter(model, tmp_path / "wrong", **ATTENTION)
        edit_config(wrong, r=16)
        adapters = [str(folder / "a"), str(idle), str(wrong), str(tmp_path / "gone")]
        outcome = run(sweep(folder, tmp_path, adapters))
        assert outcome.code == 2
        loaded = RunTables.load(outcome.folder)
        assert loaded.attributions["adapter"].unique().to_list() == ["a"]
        said = {row["adapter"]: (row["code"], row["message"]) for row in loaded.failures.to_dicts()}
        assert said["gone"][0] == "no_adapter"
        assert "r = 16" in said["wrong"][1]
        code, message = said["idle"]
        assert code == "host_error"
        assert "no effect" in message
        assert loaded.failures.filter(pl.col("adapter") == "idle")["example"].n_unique() == 6

    def test_two_hosts(self, folder: Path, tmp_path: Path) -> None:
        raw = sweep(folder, tmp_path, ["none", str(folder / "a"), str(folder / "b")], hosts=2)
        outcome = run(raw)
        assert outcome.code == 0
        [noted] = json.loads((outcome.folder / "run.json").read_text())["hosts"].values()
        assert noted["hosts"] == 2
        assert noted["adapter_loads"] <= 4
        assert len(attributions(outcome)) == 3 * 6 * 2
