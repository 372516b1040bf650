"""What the same explanations take through Ray over one host and over several."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.session import ray_session
from engine.config import parse_config
from engine.errors import ConfigError
from jobs.bench.devices import on_device
from jobs.stages import physical_cores
from jobs.sweep import run_sweep


def run(
    sweep: Mapping[str, Any], texts: Sequence[str], hosts: Sequence[int], device: str = "auto"
) -> dict[int, float]:
    """Run a sweep over texts with each number of hosts and return its seconds.

    Every host has as many threads, the cores divided by the most hosts, so that more hosts are more
    cores; each run loads its hosts anew and finds nothing stored.

    Args:
        sweep: Plain values of its models, prompt, explainers and metrics.
        texts: A unit each.
        hosts: Numbers of hosts, each at least 1.
        device: As of a host; a host takes a whole GPU.

    Returns:
        By number of hosts, the seconds from loaded hosts to the last result.

    Raises:
        ClusterError: So many hosts have no room here.
        RuntimeError: A text failed.
    """
    threads = max(1, physical_cores() // max(hosts))
    seconds = {}
    with tempfile.TemporaryDirectory() as folder, ray_session():
        data = Path(folder) / "texts.jsonl"
        rows = [{"id": f"text-{i}", "text": text, "label": 0} for i, text in enumerate(texts)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for count in hosts:
            run = {"out": f"{folder}/run-{count}", "store": f"{folder}/store-{count}"}
            cluster = {"hosts": count, "threads": threads, "shard_size": 1, **on_device(device)}
            config = parse_config(
                {**sweep, "data": {"path": str(data)}, "run": run, "cluster": cluster}
            )
            outcome = run_sweep(config, Console(quiet=True))
            if outcome.code:
                raise RuntimeError(f"a text could not be explained over {count} hosts")
            record = json.loads((outcome.folder / "run.json").read_text(encoding="utf-8"))
            [found] = record["hosts"].values()
            seconds[count] = float(found["wall_seconds"])
    return seconds


def parse_hosts(text: str) -> list[int]:
    """Return the numbers of hosts in `1,2`.

    Raises:
        ConfigError: It is no list of whole numbers from 1 on.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in found):
        raise ConfigError(f"--hosts {text}: give numbers of hosts with commas, for example 1,2")
    return sorted({int(part) for part in found})
