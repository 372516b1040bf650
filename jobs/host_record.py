"""What `run.json` says of a model's hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.fleet import Fleet
from cluster.resources import Layout
from jobs.runfolder import RunFolder


def note_host(
    folder: RunFolder, key: str, info: Any, layout: Layout, gpu_ids: Sequence[Any]
) -> None:
    """Record what a model's hosts are.

    Args:
        folder: Of the run.
        key: Of the model.
        info: `HostInfo` of its hosts.
        layout: How many, and their share.
        gpu_ids: The GPUs of each host.
    """
    hosts = dict(folder.record.get("hosts", {}))
    hosts[key] = {
        "hosts": layout.hosts,
        "gpus_per_host": layout.gpus,
        "gpu_ids": list(gpu_ids),
        "threads": info.threads,
        "device": info.device,
        "parameters": info.parameters,
        "memory_bytes": info.memory_bytes,
        "load_seconds": round(info.load_seconds, 2),
        "scorer": info.scorer,
        "piece": info.piece,
        "precision": info.precision,
        "numerics": info.numerics,
        "numerics_text": info.numerics_text,
    }
    folder.update(hosts=hosts)


def note_rate(folder: RunFolder, key: str, fleet: Fleet, seconds: float) -> None:
    """Record what the hosts computed and how busy they were.

    Args:
        folder: Of the run.
        key: Of the model.
        fleet: Its hosts.
        seconds: From the first unit's start to the last one's commit.
    """
    stats = fleet.ask("stats")
    hosts = dict(folder.record["hosts"])
    hosts[key] |= {
        "sequences_computed": sum(s.sequences_computed for s in stats),
        "tokens_asked": sum(s.tokens_asked for s in stats),
        "tokens_computed": sum(s.tokens_computed for s in stats),
        "busy_fraction": round(sum(s.busy_seconds for s in stats) / (seconds * len(stats)), 3)
        if stats and seconds
        else None,
        "wall_seconds": round(seconds, 2),
        "swaps": sum(s.swaps for s in stats),
        "swap_seconds": round(sum(s.swap_seconds for s in stats), 3),
        "adapter_loads": sum(s.adapter_loads for s in stats),
    }
    folder.update(hosts=hosts)
