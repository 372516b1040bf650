"""Many small units: they are written early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

import cluster.dispatch
from analysis.load import RunTables
from engine.commits import read_commits
from engine.config import parse_config
from jobs.sweep import run_sweep

Make = Callable[..., dict[str, Any]]


def test_many_small_units_are_written_before_the_last_is_done(
    local_ray: Any, sweep_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their bytes nor the time would have them written; each is committed once."""
    monkeypatch.setattr(cluster.dispatch, "FLUSH_UNITS", 2)
    monkeypatch.setattr(cluster.dispatch, "BUNDLE_TOKENS", 1)  # bundles of one unit
    small = {"shard_size": 1, "commit_seconds": 600.0, "num_cpus": 2}
    outcome = run_sweep(parse_config(sweep_config(cluster=small)), Console(quiet=True))
    files = list((outcome.folder / "predictions").glob("*.parquet"))
    assert len(files) > 1
    assert sum(bool(commit.parts) for commit in read_commits(outcome.folder).values()) == 12
    assert RunTables.load(outcome.folder).predictions["example"].n_unique() == 12
