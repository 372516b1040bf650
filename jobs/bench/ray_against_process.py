"""A real model through Ray and in one process: what the same explanations cost on either side."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from actors.host import Host
from cluster.fleet import Fleet
from engine.commits import CommitLog
from engine.config import SweepConfig
from engine.context import Unit
from engine.plan import Pair, Plan
from engine.step import run_in_process
from jobs.bench.devices import check_same, on_device
from jobs.bench.ray_overhead import bench_config
from jobs.facts import host_spec
from jobs.folders import run_folder
from jobs.prepared import prepare
from jobs.runfolder import RunFolder
from jobs.stages import physical_cores
from jobs.sweep import run_units

SAMPLE_SECONDS = 0.5
"""Between two looks at the hosts' counters."""

STARTING_SECONDS = 20.0
"""From the first request on Ray starts more workers for steps, which import for some seconds on the
same cores; what comes later is the steady state."""

ENDING = 0.95
"""Of all tokens; behind it the queue runs dry and the host waits for the last units' steps."""


class Sample(NamedTuple):
    """The hosts' counters at one time.

    Attributes:
        seconds: Since the units began.
        tokens: Computed so far.
    """

    seconds: float
    tokens: int


def run(
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    n_texts: int = 100,
    samples: int = 256,
    device: str = "auto",
) -> dict[str, Any]:
    """Explain the same texts through Ray and in this process, and return how fast either was.

    One half of the texts is explained in this process before Ray runs, the other half behind it, so
    that a machine that drifts has less to say.

    Args:
        model: As of `models.path`; in single precision.
        n_texts: Of the bundled reviews.
        samples: Of `lime` and of `kernel_shap`.
        device: Of the one host on either side.

    Raises:
        ModelError: The host in Ray was on another kind of device than the one in this process.
        ValueError: Ray was through before its steady state began; take more texts.

    Returns:
        `device`: of both; `ray_vs_inprocess`: tokens a second in this process over those of Ray's
        host in its steady state, `steady_seconds` of it; `ray_seconds` and `process_seconds`: from
        the loaded model to the last result; `ray_vs_inprocess_whole`: their ratio;
        `cold_seconds`: starting Ray and loading the model there; `busy_fraction`: of Ray's host.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = bench_config(
            folder,
            models=[{"path": model, "precision": "fp32"}],
            data={"path": "bundled:reviews", "limit": n_texts},
            explainers=[
                {"name": "lime", "num_samples": samples},
                {"name": "kernel_shap", "num_samples": samples},
            ],
            cluster={"hosts": 1, **on_device(device)},
        )
        plan, _ = prepare(config).plan()
        [pair] = plan.pairs.values()
        host = Host(replace(host_spec(pair.model, device), threads=physical_cores()))
        info = host.load()
        half = len(plan.units) // 2
        in_process = _explain(host, pair, plan.units[:half], info.numerics)
        found, cold, counters = _through_ray(config, plan)
        in_process += _explain(host, pair, plan.units[half:], info.numerics)
        tokens = host.stats().tokens_computed
        host.stop()
    check_same(ray=found["device"], process=info.device)
    rate, steady = steady_rate(counters)
    return {
        "device": info.device,
        "ray_vs_inprocess": tokens / in_process / rate,
        "steady_seconds": steady,
        "ray_seconds": found["wall_seconds"],
        "process_seconds": in_process,
        "ray_vs_inprocess_whole": found["wall_seconds"] / in_process,
        "tokens_of_ray_over_process": found["tokens_computed"] / tokens,
        "busy_fraction": found["busy_fraction"],
        "cold_seconds": cold,
    }


def steady_rate(counters: list[Sample]) -> tuple[float, float]:
    """Return the tokens a second in steady state, and its seconds.

    Args:
        counters: In the order of time, the first ones before any token was computed.

    Raises:
        ValueError: It was over before its steady state began.
    """
    seconds, tokens = (np.array(column) for column in zip(*counters, strict=True))
    asked = int(np.argmax(tokens > 0)) - 1
    inside = (seconds >= seconds[max(asked, 0)] + STARTING_SECONDS) & (
        tokens <= ENDING * tokens[-1]
    )
    # counters move when a request is answered: between two such times nothing is cut in two
    answered = np.flatnonzero(inside & (np.diff(tokens, prepend=tokens[0]) > 0))
    if len(answered) < 2:
        raise ValueError(
            f"{seconds[-1]:.0f} s were too few for a steady state, which begins {STARTING_SECONDS} "
            "s after the first request; take more texts"
        )
    first, last = answered[0], answered[-1]
    spent = float(seconds[last] - seconds[first])
    return float(tokens[last] - tokens[first]) / spent, spent


def _explain(host: Host, pair: Pair, units: Sequence[Unit], numerics: str) -> float:
    """Explain units on a host of this process, and return the seconds."""
    started = time.perf_counter()
    for unit in units:
        run_in_process(pair.context, unit, numerics, host.score)
    return time.perf_counter() - started


def _through_ray(config: SweepConfig, plan: Plan) -> tuple[dict[str, Any], float, list[Sample]]:
    """Return the record of the host, the seconds until the units began, and its counters."""
    run_dir = RunFolder(run_folder(config))
    log = CommitLog(run_dir.path)
    plan = run_dir.open(plan)
    started = time.perf_counter()
    began: list[float] = []
    counters: list[Sample] = []

    @contextmanager
    def watch(fleet: Fleet) -> Iterator[None]:
        began.append(time.perf_counter())
        done = threading.Event()

        def look() -> None:
            while not done.wait(SAMPLE_SECONDS):
                tokens = sum(stats.tokens_computed for stats in fleet.ask("stats"))
                counters.append(Sample(time.perf_counter() - began[0], tokens))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    try:
        run_units(plan, plan.units, run_dir, log, Console(quiet=True), watch)
    finally:
        log.close()
    [found] = run_dir.record["hosts"].values()
    return found, began[0] - started, counters
