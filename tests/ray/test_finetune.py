"""Training as Ray tasks; test_zero_shot_vs_finetuned.py kills some."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actors.precision import resolve_precision
from actors.trainer import read_card
from actors.training_lock import alone
from analysis.load import RunTables
from engine.config import parse_config
from jobs.auto_precision import auto_here, auto_there
from jobs.finetune import finetune, train_all
from jobs.prepared import prepare
from jobs.sweep import run_sweep
from tests.models.trainings import raw_sweep, save_tiny, write_rows

pytestmark = pytest.mark.models

QUIET = Console(quiet=True)
ENTRY = {"batch_size": 8, "learning_rate": 0.03, "rank": 8, "validation": 0.25}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", 64)


def sweep(model: Path, rows: Path, tmp_path: Path, **entry: Any) -> dict[str, Any]:
    run = {"name": "t", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")}
    cluster = {"threads": 1, "num_cpus": 2}
    return raw_sweep(model, rows, {**ENTRY, **entry}, run=run, cluster=cluster)


@pytest.mark.usefixtures("local_ray")
class TestTrainings:
    def test_every_seed_is_trained_once(self, model: Path, rows: Path, tmp_path: Path) -> None:
        config = parse_config(sweep(model, rows, tmp_path, epochs=4, seeds=[0, 1]))
        assert finetune(config, QUIET) == 0
        trainings = prepare(config, auto_there).trainings
        cards = [read_card(training.folder) for training in trainings]
        assert [card["seed"] for card in cards if card] == [0, 1]
        assert all(card["validation"]["accuracy"] == 1.0 for card in cards if card)
        before = [(t.folder / "card.json").stat().st_mtime_ns for t in trainings]
        assert finetune(config, QUIET) == 0
        assert [(t.folder / "card.json").stat().st_mtime_ns for t in trainings] == before

    def test_auto_is_asked_where_it_is_trained(
        self, model: Path, rows: Path, tmp_path: Path
    ) -> None:
        """Ray is there already, so its machines could be others than this one."""
        raw = sweep(model, rows, tmp_path, epochs=0.2)
        raw["models"][0]["precision"] = "auto"
        config = parse_config(raw)
        assert auto_here(config.cluster) is None
        [training] = prepare(config, auto_there).trainings
        assert training.task.precision == resolve_precision("auto", "cpu")
        assert [t.task.precision for t in prepare(config).trainings] == ["auto"]

    def test_one_that_another_process_trains_is_waited_for_last(
        self, model: Path, rows: Path, tmp_path: Path
    ) -> None:
        config = parse_config(sweep(model, rows, tmp_path, epochs=0.2, seeds=[0, 1]))
        first, second = prepare(config, auto_there).trainings
        first.folder.mkdir(parents=True)
        out = io.StringIO()

        def release() -> None:
            with alone(first.folder, wait=False):
                while not second.is_done:
                    time.sleep(0.02)

        holding = threading.Thread(target=release)
        holding.start()
        try:
            assert train_all(config, [first, second], Console(file=out, width=200)) == {}
        finally:
            holding.join()
        said = out.getvalue()
        assert f"t-seed0 is trained by process {os.getpid()} on " in said
        ends = [said.index(f"Trained tiny/fp32 with {name}") for name in ("t-seed1", "t-seed0")]
        assert ends == sorted(ends)

    def test_one_that_fails_leaves_the_others(
        self, model: Path, rows: Path, tmp_path: Path
    ) -> None:
        raw = sweep(model, rows, tmp_path, epochs=1)
        bad = {"name": "bad", "data": str(rows), "learning_rate": 1e30, "warmup": 0}
        raw["finetune"].append(bad)
        raw["models"][0]["adapters"].insert(0, {"finetune": "bad"})
        config = parse_config(raw)
        trainings = {t.adapter: t for t in prepare(config, auto_there).trainings}
        failed = train_all(config, list(trainings.values()), QUIET)
        [(fingerprint, why)] = failed.items()
        assert fingerprint == trainings["bad-seed0"].fingerprint
        assert "diverged" in why
        assert trainings["t-seed0"].is_done
        assert finetune(config, QUIET) == 2

    def test_a_sweep_goes_on_without_what_could_not_be_trained(
        self, model: Path, rows: Path, tmp_path: Path
    ) -> None:
        raw = sweep(model, rows, tmp_path, learning_rate=1e30, warmup=0)
        raw["data"] = {"path": str(rows), "limit": 3}
        raw["metrics"] = {"faithfulness": False}
        outcome = run_sweep(parse_config(raw), QUIET)
        assert outcome.code == 2
        loaded = RunTables.load(outcome.folder)
        assert loaded.predictions["adapter"].to_list() == ["none"] * 3
        [failure] = loaded.failures.to_dicts()
        assert (failure["adapter"], failure["code"]) == ("t-seed0", "not_trained")
        assert "diverged" in failure["message"]
