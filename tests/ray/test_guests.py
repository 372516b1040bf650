"""Guests on a real Ray: rounds land in any worker, rows are those of one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from analysis.load import RunTables
from engine.config import parse_config
from jobs.prepared import prepare
from jobs.sweep import run_sweep
from tests.unit.engine.guests.own_guests import PLACE
from tests.unit.fake_sweep import run_all

QUIET = Console(quiet=True)


@pytest.mark.usefixtures("local_ray")
def test_rows_are_those_of_one_process(sweep_config: Callable[..., dict[str, Any]]) -> None:
    raw = sweep_config(
        explainers=[
            {"name": "guest:lime", "num_samples": 60},
            {"name": f"{PLACE}:walk", "id": "walk", "steps": 12},
            {"name": f"{PLACE}:raises", "id": "raises"},
            {"name": "occlusion", "target": "probability"},
        ],
        data__limit=5,
        cluster={"hosts": 2, "shard_size": 1},
    )
    outcome = run_sweep(parse_config(raw), QUIET)
    assert outcome.code == 2
    config = parse_config(raw)
    alone = run_all(config, prepare(config).data.examples)
    loaded = RunTables.load(outcome.folder)
    for name, key in (("attributions", "values"), ("metrics", "value"), ("failures", "message")):
        found = {
            (r["example"], r["explainer"], r.get("metric"), r.get("n_removed")): r[key]
            for r in getattr(loaded, name).to_dicts()
        }
        expected = {
            (r["example"], r["explainer"], r.get("metric"), r.get("n_removed")): r[key]
            for r in alone[name]
        }
        assert found == expected
    assert len(loaded.failures) == 5
    assert (outcome.folder / "report.html").exists()
