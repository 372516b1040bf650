"""One command trains, then explains with and without adapters; a kill costs little."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import yaml
from rich.console import Console

from actors.trainer import PROGRESS, read_card
from analysis.load import RunTables
from engine.commits import committed
from engine.config import parse_config
from engine.errors import RunFolderError
from jobs.prepared import prepare
from jobs.runfolder import RunFolder
from jobs.status import print_status
from tests.models.trainings import raw_sweep, save_tiny, write_rows

pytestmark = pytest.mark.models

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {"batch_size": 8, "learning_rate": 0.03, "rank": 8, "epochs": 12, "save_steps": 5}
PIPES: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    model = save_tiny(tmp_path / "tiny")
    evaluated = write_rows(tmp_path / "dev.jsonl", 24, start=30)  # kept out of the training
    return raw_sweep(
        model,
        write_rows(tmp_path / "train.jsonl", 88),
        {**ENTRY, "seeds": [0, 1]},
        run={"name": "t", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")},
        data={"path": str(evaluated), "explain_limit": 16},
        explainers=["occlusion", {"name": "kernel_shap", "num_samples": 32}],
        cluster={"threads": 1, "num_cpus": 2, "shard_size": 1, "commit_seconds": 0.2},
    )


@pytest.fixture
def start(tmp_path: Path, raw: dict[str, Any]) -> Iterator[Start]:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    started: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "jobs.sweep", str(file)], **PIPES))
        return started[-1]

    yield run
    for each in started:
        each.kill()


def kill_when(
    process: subprocess.Popen[bytes], reached: Callable[[], bool], whole: bool = False
) -> None:
    """Kill a driver; `whole` also kills all that it started, as the loss of a machine does.

    A worker outlives its driver for some seconds, long enough to end a short training.
    """
    deadline = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)
    started = psutil.Process(process.pid).children(recursive=True) if whole else []
    os.kill(process.pid, signal.SIGKILL)
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def rows_in(folder: Path) -> int:
    try:
        return sum(part.table == "attributions" for part in committed(folder))
    except RunFolderError:  # not begun
        return 0


def test_a_run_killed_in_training_and_in_explaining(
    raw: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = prepare(parse_config(raw)).trainings
    kill_when(start(), lambda: first.step_done >= 10, whole=True)
    assert read_card(first.folder) is None
    said = told(run)
    assert "stopped: its process is gone" in said
    assert "tiny/fp32 with t-seed0: step " in said
    assert "tiny/fp32 with t-seed1: not trained yet" in said

    resumed = start()
    kill_when(resumed, lambda: rows_in(run) >= 4)
    assert resumed.stdout is not None
    assert "goes on at step" in resumed.stdout.read().decode()
    card = read_card(first.folder)
    assert card is not None
    assert card["resumed_at"] >= 10
    assert not (first.folder / PROGRESS).exists()
    assert read_card(second.folder) is not None
    made = [(t.folder / "card.json").stat().st_mtime_ns for t in (first, second)]
    begun = rows_in(run)

    last = start()
    said = last.communicate(timeout=280)[0].decode()
    assert last.returncode == 0, said
    assert [(t.folder / "card.json").stat().st_mtime_ns for t in (first, second)] == made
    assert begun >= 4
    check(RunTables.load(run), run)


def told(run: Path) -> str:
    out = io.StringIO()
    print_status(run, Console(file=out, width=200))
    return out.getvalue()


def test_a_second_job_is_refused_while_the_first_one_trains(
    raw: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    raw["finetune"][0]["epochs"] = 1000
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    first = start()
    deadline = time.monotonic() + 200
    folder = RunFolder(tmp_path / "run")
    while folder.record.get("status") != "training":
        assert first.poll() is None, "it ended before it trained"
        assert time.monotonic() < deadline, "it doesn't say that it trains"
        time.sleep(0.02)
    assert ": training (started " in told(tmp_path / "run")
    second = start()
    said = second.communicate(timeout=200)[0].decode()
    assert second.returncode == 3
    assert f"in use by process {first.pid}" in said


def check(rows: RunTables, run: Path) -> None:
    adapters = ["none", "t-seed0", "t-seed1"]
    for adapter in adapters:
        predicted = rows.predictions.filter(pl.col("adapter") == adapter)
        assert len(predicted) == predicted["example"].n_unique() == 24
    explained = {
        adapter: set(rows.attributions.filter(pl.col("adapter") == adapter)["example"])
        for adapter in adapters
    }
    assert len(explained["none"]) == 16
    assert explained["none"] == explained["t-seed0"] == explained["t-seed1"]
    assert len(rows.attributions) == 3 * 16 * 2
    assert not len(rows.failures)
    tuned = rows.predictions.filter(pl.col("adapter") != "none")
    assert (tuned["gold"] == tuned["predicted"]).mean() > 0.95
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    [host] = record["hosts"].values()  # one copy of the model answered for all
    assert host["hosts"] == 1
    table = pl.read_parquet(run / "tables" / "comparison.parquet")
    pairs = set(table.filter(pl.col("kind") == "adapter")["other_adapter"])
    assert pairs == {"t-seed0", "t-seed1", "t-seed*"}
    noise = table.filter(pl.col("kind") == "training_seed")
    assert set(noise["other_adapter"]) == {"t-seed1"}
