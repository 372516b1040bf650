"""What precision `auto` is where adapters are trained: it is part of what names them."""

from __future__ import annotations

from typing import Any

import ray

from cluster.resources import HOST_CPUS, lay_out
from cluster.session import joins_a_cluster, ray_session
from engine.config import ClusterConfig


def auto_here(cluster: ClusterConfig) -> str | None:
    """Return the precision, or None where trainings run on machines that can't be seen from here.

    Args:
        cluster: Of the sweep.
    """
    if joins_a_cluster(cluster.address):
        return None
    return _auto("cpu" if cluster.gpus_per_host == 0 else "auto")


def auto_there(cluster: ClusterConfig) -> str:
    """Return the precision, found out in the place of a training where it can't be seen from here.

    Args:
        cluster: Of the sweep.

    Raises:
        ClusterError: Ray can't be reached, or has not what is wanted.
    """
    here = auto_here(cluster)
    if here is not None:
        return here
    with ray_session(cluster.address, cluster.num_cpus) as offered:
        place = _auto_task.options(num_gpus=lay_out(offered, cluster).gpus)
        found: str = ray.get(place.remote("auto"))
    return found


def _auto(device: str) -> str:
    from actors.loader import choose_device
    from actors.precision import resolve_precision

    return resolve_precision("auto", choose_device(device))


_auto_task: Any = ray.remote(num_cpus=HOST_CPUS)(_auto)
