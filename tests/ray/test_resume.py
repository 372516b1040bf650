"""Kills of the driver: what was committed stays, the rest is done by the same command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from analysis.load import RunTables
from engine.commits import read_commits
from engine.config import load_config
from jobs.sweep import run_sweep

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., dict[str, Any]]


def sweep(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.sweep", str(config)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_commits(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(read_commits(folder)) < count:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline, "no commits"
        time.sleep(0.02)


@pytest.mark.usefixtures("local_ray")
def test_a_killed_run_continues_to_the_same_rows(sweep_config: Make, tmp_path: Path) -> None:
    """SIGKILL on the driver half way, then the same command: bit-equal to a run without a kill."""
    files = {}
    for name in ("killed", "whole"):
        raw = sweep_config(
            run={
                "name": "test",
                "out": str(tmp_path / name),
                "store": str(tmp_path / f"store-{name}"),
            },
            # Each token costs a little time, so that there is a half way.
            models=[{"path": "fake:linear", "options": {"seconds_per_token": 2e-5}}],
            cluster={"shard_size": 1, "commit_seconds": 0.05, "num_cpus": 2},
        )
        raw["data"]["limit"] = 16
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(raw), encoding="utf-8")

    process = sweep(files["killed"])
    wait_for_commits(tmp_path / "killed", 6, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = read_commits(tmp_path / "killed")
    units = 16
    assert 6 <= len(before) < units + 1
    assert not (tmp_path / "killed" / "report.html").exists()

    again = sweep(files["killed"])
    assert again.wait(timeout=280) == 0
    after = read_commits(tmp_path / "killed")
    assert {unit: after[unit] for unit in before} == before
    assert run_sweep(load_config(files["whole"]), Console(quiet=True)).code == 0

    killed, whole = (RunTables.load(tmp_path / name) for name in ("killed", "whole"))
    for name in ("predictions", "attributions", "metrics", "failures"):
        assert getattr(killed, name).equals(getattr(whole, name)), name
    for file in (tmp_path / "whole" / "tables").iterdir():
        if file.stem not in ("cost", "families"):  # they have seconds
            assert file.read_bytes() == (tmp_path / "killed" / "tables" / file.name).read_bytes()
