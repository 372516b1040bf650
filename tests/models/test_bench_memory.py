"""The memory benchmark on a tiny model: each number of perturbations has a process of its own."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from jobs.bench.memory import peak_memory, run
from jobs.bench.workload import LABELS
from tests.models.trainings import save_tiny

pytestmark = pytest.mark.models

MEGABYTES = 300


def keep_some() -> int:
    """Return the peak after this much memory was in use for a moment."""
    before = peak_memory()
    np.ones(MEGABYTES * 10**6 // 8)
    return peak_memory() - before


def test_peaks_of_processes_of_their_own(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny", window=512, words=list(LABELS.values()), vocabulary=2048)
    ballast = np.ones(MEGABYTES * 10**6 // 8)  # of this process, to be seen in neither figure
    figures = run(str(folder), samples=(16, 256), prompt="short", device="cpu", threads=1)
    json.dumps(figures)
    peaks, loaded = figures["peak_megabytes"], figures["loaded_megabytes"]
    assert peaks.keys() == loaded.keys() == {"16", "256"}
    assert all(peaks[n] >= loaded[n] > 0 for n in peaks)
    assert max(peaks.values()) < peak_memory() / 1e6
    assert ballast.nbytes > abs(figures["growth_megabytes"]) * 1e6
    assert figures["growth_megabytes"] == pytest.approx(peaks["256"] - peaks["16"])
    assert 0 < figures["tokens_computed"]["16"] < figures["tokens_computed"]["256"]


def test_a_peak_is_what_was_in_use_for_a_moment() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        grown = fresh.submit(keep_some).result()
    assert grown == pytest.approx(MEGABYTES * 1e6, rel=0.1)


def test_errors_of_the_process_come_back(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny", window=512, words=list(LABELS.values()), vocabulary=2048)
    with pytest.raises(ConfigError, match="no chat template"):
        run(str(folder), samples=(16,), prompt="chat", device="cpu", threads=1)
