"""Placement groups: the GPUs of one node that a single model is spread over."""

from __future__ import annotations

from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.resources import HOST_CPUS


def open_group(gpus: int) -> PlacementGroup:
    """Ask for GPUs of one node, a bundle each; the host itself finds room in the first.

    Ray makes the group when there is room: what is to run in it waits until then.

    Args:
        gpus: How many.
    """
    bundles = [{"GPU": 1.0} for _ in range(gpus)]
    bundles[0]["CPU"] = HOST_CPUS
    return placement_group(bundles, strategy="STRICT_PACK")


def in_group(group: PlacementGroup) -> Any:
    """Return the strategy that puts a host into a group, and what it starts there too."""
    return PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )


def close_group(group: PlacementGroup) -> None:
    """Give the GPUs of a group back, and end what still runs there."""
    remove_placement_group(group)
