"""Where a sweep's outputs go."""

from __future__ import annotations

from pathlib import Path

from cluster.session import output_base
from engine.config import SweepConfig


def absolute(path: str) -> Path:
    """Return a folder of outputs as an absolute path."""
    return (output_base() / Path(path).expanduser()).resolve()


def run_folder(config: SweepConfig) -> Path:
    """Return the folder of a run."""
    return absolute(config.run.out or f"runs/{config.run.name}")
