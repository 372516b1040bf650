"""Models that are spread over GPUs: groups of logical GPUs, on a Ray of this test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
import ray
from ray.util import get_current_placement_group
from cluster import fleet as fleets
from cluster.fleet import Fleet
from cluster.resources import lay_out
from cluster.session import ClusterError, Resources
from engine.config import ClusterConfig
from typing import NamedTuple

class Info(NamedTuple):
    numerics: str
    bundles: list

@ray.remote(num_gpus=1)
class Worker:
    def gpus(self):
        return ray.get_runtime_context().get_accelerator_ids()["GPU"]

class Spread:
    # holds a GPU of every bundle as vLLM's executor does: one worker a bundle of its own group
    def __init__(self):
        self.workers = []
    def ready(self):
        return True
    def load(self):
        group = get_current_placement_group()
        strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        self.workers = [
            Worker.options(num_cpus=0, scheduling_strategy=strategy(group, i)).remote()
            for i in range(len(group.bundle_specs))
        ]
        return Info("n", [list(b.items()) for b in group.bundle_specs])
    def gpus(self):
        return sorted(g for w in self.workers for g in ray.get(w.gpus.remote()))

ray.init(num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False)
Actor = ray.remote(concurrency_groups={"score": 4, "control": 2})(Spread)
layout = lay_out(Resources(2, 4, 1), ClusterConfig(), 2)
fleet = Fleet(Actor, lambda: (), layout)
found = {"bundles": fleet.start().bundles, "gpus": fleet.ask("gpus")}
found["strategies"] = [
    e["strategy"] for e in ray.util.placement_group_table().values() if e["state"] == "CREATED"
]
first = fleet.hosts[0]
ray.kill(first.actor)
found["replaced"] = fleet.replace(first)
found["gpus_after"] = fleet.ask("gpus")

fleets.PLACE_SECONDS = 3.0
late = Fleet(Actor, lambda: (), layout)
try:
    late.start()
except ClusterError as error:
    found["no_room"] = str(error)
late.stop()
fleet.stop()
found["states"] = sorted(e["state"] for e in ray.util.placement_group_table().values())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return result


def test_a_host_has_a_bundle_a_gpu_on_one_node(found: dict[str, Any]) -> None:
    assert [dict(bundle) for bundle in found["bundles"]] == [{"GPU": 1, "CPU": 0.1}, {"GPU": 1}]
    assert found["strategies"] == ["STRICT_PACK", "STRICT_PACK"]


def test_hosts_share_no_gpu(found: dict[str, Any]) -> None:
    assert sorted(gpu for host in found["gpus"] for gpu in host) == ["0", "1", "2", "3"]
    assert [len(host) for host in found["gpus"]] == [2, 2]


def test_a_host_in_place_of_a_dead_one_gets_its_gpus(found: dict[str, Any]) -> None:
    assert found["replaced"]
    assert found["gpus_after"] == found["gpus"]


def test_a_group_without_room_is_told(found: dict[str, Any]) -> None:
    assert "no room for host-0 (2 GPU)" in found["no_room"]


def test_groups_are_gone_at_the_end(found: dict[str, Any]) -> None:
    assert found["states"] == ["REMOVED"] * 4
