from __future__ import annotations

import pytest

from cluster.resources import Resources, lay_out
from engine.config import ClusterConfig
from engine.errors import ModelError
from jobs.bench.devices import check_same, on_device


def test_both_sides_are_on_one_kind_of_device() -> None:
    check_same(ours="cpu", theirs="cpu")
    check_same(ray="cuda:0", process="cuda:1")
    with pytest.raises(ModelError, match=r"ray on cpu, process on cuda:0.*--device"):
        check_same(ray="cpu", process="cuda:0")


@pytest.mark.parametrize(
    ("device", "gpus"), [("auto", 1.0), ("cpu", 0.0), ("cuda", 1.0), ("cuda:1", 1.0)]
)
def test_hosts_in_ray_are_where_they_are_wanted(device: str, gpus: float) -> None:
    wanted = ClusterConfig(hosts=1, **on_device(device))
    assert lay_out(Resources(cpus=8.0, gpus=2.0, nodes=1), wanted).gpus == gpus
