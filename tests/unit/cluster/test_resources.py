from __future__ import annotations

import pytest

from cluster.resources import HOST_CPUS, STEP_CPUS, Layout, lay_out
from cluster.session import ClusterError, Resources
from engine.config import ClusterConfig


def laid_out(cpus: float, gpus: float, nodes: int, **wanted: float) -> Layout:
    return lay_out(Resources(cpus, gpus, nodes), ClusterConfig.model_validate(wanted))


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        # a machine without a GPU: one host; a cluster of them: one a node
        ((2, 0, 1), {}, Layout(1, 0.0, 1)),
        ((1, 0, 1), {}, Layout(1, 0.0, 1)),
        ((16, 0, 4), {}, Layout(4, 0.0, 1)),
        ((16, 0, 4), {"hosts": 2}, Layout(2, 0.0, 1)),
        ((16, 0, 4), {"hosts": 6}, Layout(6, 0.0, 2)),
        # GPUs: one host each, or the share that is asked for
        ((8, 2, 1), {}, Layout(2, 1.0, 2)),
        ((8, 2, 1), {"hosts": 1}, Layout(1, 1.0, 1)),
        ((8, 2, 1), {"gpus_per_host": 0.5}, Layout(4, 0.5, 4)),
        ((8, 1, 1), {"gpus_per_host": 0.1}, Layout(10, 0.1, 10)),
        ((8, 8, 2), {"gpus_per_host": 2}, Layout(4, 2, 2)),
        ((8, 2, 1), {"gpus_per_host": 0}, Layout(1, 0, 1)),
        # 2 × 0.6 don't fit on one GPU, whatever their sum
        ((8, 2, 1), {"gpus_per_host": 0.6}, Layout(2, 0.6, 2)),
        ((8, 3, 1), {"gpus_per_host": 0.4}, Layout(6, 0.4, 6)),
    ],
)
def test_layout(
    offered: tuple[float, float, int], wanted: dict[str, float], expected: Layout
) -> None:
    assert laid_out(*offered, **wanted) == expected


@pytest.mark.parametrize(
    ("offered", "wanted", "said"),
    [
        ((8, 2, 1), {"hosts": 3}, "3 hosts of 1 GPU are wanted, but the cluster has 2 GPU"),
        ((8, 0, 1), {"gpus_per_host": 1}, "but the cluster has 0 GPU"),
        ((8, 0, 1), {"gpus_per_host": 0.5, "hosts": 1}, "but the cluster has 0 GPU"),
        ((8, 2, 1), {"gpus_per_host": 0.6, "hosts": 3}, "3 hosts of 0.6 GPU"),
        ((8, 2, 1), {"gpus_per_host": 1.5}, "cluster.gpus_per_host: 1.5"),
        ((1, 0, 1), {"hosts": 8}, "8 hosts leave no CPU for steps on 1 logical CPUs"),
    ],
)
def test_what_there_is_no_room_for(
    offered: tuple[float, float, int], wanted: dict[str, float], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        laid_out(*offered, **wanted)


def test_a_model_that_is_spread_over_gpus() -> None:
    assert lay_out(Resources(8, 8, 2), ClusterConfig(), 4) == Layout(2, 4.0, 1, 4)
    assert lay_out(Resources(8, 7, 1), ClusterConfig(), 2) == Layout(3, 2.0, 3, 2)
    assert lay_out(Resources(8, 4, 1), ClusterConfig(gpus_per_host=2, hosts=1), 2).hosts == 1
    with pytest.raises(ClusterError, match="1 hosts of 4 GPU are wanted, but the cluster has 2"):
        lay_out(Resources(8, 2, 1), ClusterConfig(), 4)
    with pytest.raises(ClusterError, match="spread over 4 GPUs by tensor_parallel"):
        lay_out(Resources(8, 8, 1), ClusterConfig(gpus_per_host=1), 4)


@pytest.mark.parametrize("cpus", [1, 2, 8, 64])
def test_a_step_always_finds_room(cpus: int) -> None:
    """Or the sweep would wait for ever: hosts hold their share until the end."""
    for hosts in range(1, 700):
        try:
            layout = laid_out(cpus, 0, 1, hosts=hosts)
        except ClusterError:
            break
        assert layout.hosts * HOST_CPUS + STEP_CPUS <= cpus
    assert 1 < hosts < 699
