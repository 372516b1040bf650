"""How many hosts a cluster gets, and the share of it that each one holds."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.session import ClusterError, Resources
from engine.config import ClusterConfig

HOST_CPUS = 0.1
"""Logical CPUs a host declares: it sets its threads itself, and a step must always find room."""
STEP_CPUS = 0.25
WRITE_CPUS = 0.1


@dataclass(frozen=True, slots=True)
class Layout:
    """The hosts of one model.

    Attributes:
        hosts: How many.
        gpus: GPU share of each, 0 for none.
        per_node: Most hosts a node gets, by which a CPU host divides the node's cores.
        spread: GPUs that one host's model lies on; each is then held by a process of its own.
    """

    hosts: int
    gpus: float
    per_node: int
    spread: int = 1


def lay_out(offered: Resources, wanted: ClusterConfig, spread: int = 1) -> Layout:
    """Return the hosts for what a cluster offers and the configuration wants.

    Args:
        offered: By the cluster.
        wanted: By the configuration.
        spread: GPUs that one copy of the model is to lie on (tensor parallelism).

    Raises:
        ClusterError: More is wanted than the cluster has.
    """
    gpus = wanted.gpus_per_host
    if spread > 1:
        if gpus not in (None, spread):
            raise ClusterError(
                f"cluster.gpus_per_host: {gpus:g}, but the model is spread over {spread} GPUs by "
                "tensor_parallel; leave gpus_per_host out"
            )
        gpus = float(spread)
    if gpus is None:
        gpus = 1.0 if offered.gpus >= 1 else 0.0
    if gpus > 1 and gpus != int(gpus):
        raise ClusterError(f"cluster.gpus_per_host: {gpus} is neither below 1 nor a whole number")
    if gpus:
        # a host's share is of one GPU, or of whole ones: what is left over of each is no room
        room = int(offered.gpus) * int(1 / gpus + 1e-9) if gpus < 1 else int(offered.gpus / gpus)
        hosts = wanted.hosts or room
        if hosts > room or not room:
            raise ClusterError(
                f"{max(hosts, 1)} hosts of {gpus:g} GPU are wanted, but the cluster has "
                f"{offered.gpus:g} GPU; lower cluster.hosts or cluster.gpus_per_host"
            )
    else:
        hosts = wanted.hosts or offered.nodes
    if hosts * HOST_CPUS + STEP_CPUS > offered.cpus:
        raise ClusterError(
            f"{hosts} hosts leave no CPU for steps on {offered.cpus:g} logical CPUs; lower "
            "cluster.hosts"
        )
    per_node = -(-hosts // max(offered.nodes, 1))
    return Layout(hosts, gpus, per_node, spread)
