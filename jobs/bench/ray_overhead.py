"""What Ray and the dispatcher cost: units a second, the driver's memory, and a real model."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from engine.commits import CommitLog
from engine.config import SweepConfig, parse_config
from engine.seeds import generator
from jobs.folders import run_folder
from jobs.prepared import prepare
from jobs.runfolder import RunFolder
from jobs.sweep import run_units

WORDS = (
    *("good", "bad", "not", "fun", "dull", "great", "movie", "film", "plot", "story", "actors"),
    *("slow", "quick", "never", "ever", "always", "the", "a", "of", "and"),
)
SETTLED = 2000
"""Units after which the driver's memory is watched: by then every library is loaded."""


def run(units: int = 4000) -> dict[str, Any]:
    """Send units of one short text each through Ray to a fake host, and return the figures.

    Tables and report, which a sweep ends with, are left out.

    Args:
        units: How many. Memory is watched from `SETTLED` on, where there are more.

    Returns:
        `units_per_second`: committed units, two steps and a score each, from the loaded host to
        the last commit; `steady_units_per_second`: from the first commit seen to the last;
        `driver_bytes_per_unit`: slope of the driver's resident memory; `first_commit_seconds`:
        from the start of Ray until the first commit is seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "texts.jsonl"
        data.write_text("".join(_lines(units)), encoding="utf-8")
        config = bench_config(
            folder,
            models=["fake:linear"],
            data={"path": str(data)},
            explainers=["occlusion"],
            metrics={"faithfulness": False},
            cluster={"shard_size": 1},
        )
        plan, _ = prepare(config).plan()
        run_dir = RunFolder(run_folder(config))
        log = CommitLog(run_dir.path)
        plan = run_dir.open(plan)
        watch = _Watch(run_dir.path)
        with watch.running():
            run_units(plan, plan.units, run_dir, log, Console(quiet=True))
        log.close()
        [host] = run_dir.record["hosts"].values()
        return {"units_per_second": units / host["wall_seconds"], **watch.figures()}


def bench_config(folder: str, **sections: Any) -> SweepConfig:
    """Return a sweep with a short prompt and its outputs in `folder`."""
    prompt = {
        "template": "Review: {text}\nSentiment:",
        "labels": {"negative": " negative", "positive": " positive"},
    }
    run = {"name": "bench", "out": f"{folder}/run", "store": f"{folder}/store"}
    return parse_config({"run": run, "prompt": prompt, **sections})


def _lines(count: int) -> Iterator[str]:
    random = generator("bench", "texts")
    for number, words in enumerate(random.integers(0, len(WORDS), (count, 8)).tolist()):
        text = " ".join(WORDS[word] for word in words)
        yield json.dumps({"text": f"{text} n{number}", "label": number % 2}) + "\n"


class _Watch:
    """Samples committed units and the driver's memory while a sweep runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = psutil.Process()
        self._samples: list[tuple[float, int, int]] = []  # seconds, units, bytes
        self._done = threading.Event()
        self._started = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch until the body ends."""
        self._started = time.perf_counter()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _run(self) -> None:
        units, read = 0, 0
        [log] = self._folder.glob("commits/*.log")
        while not self._done.wait(0.5):
            with open(log, "rb") as file:
                file.seek(read)
                fresh = file.read()
            read += len(fresh)
            units += fresh.count(b"\n")
            memory = self._process.memory_info().rss
            self._samples.append((time.perf_counter() - self._started, units, memory))

    def figures(self) -> dict[str, Any]:
        seconds, units, memory = (np.array(column) for column in zip(*self._samples, strict=True))
        growing = np.flatnonzero(np.diff(units) > 0)
        first, last = growing[0] + 1, growing[-1] + 1
        found = {"first_commit_seconds": float(seconds[first])}
        if last > first:
            spent = seconds[last] - seconds[first]
            found["steady_units_per_second"] = float((units[last] - units[first]) / spent)
        settled = (units >= SETTLED) & (np.arange(len(units)) <= last)
        if len(set(units[settled].tolist())) > 2:
            found["driver_bytes_per_unit"] = float(
                np.polyfit(units[settled], memory[settled], 1)[0]
            )
        return found
