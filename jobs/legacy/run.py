"""Runs a command of the original: the sweep, its report, then the original's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from analysis.load import RunTables
from analysis.tables import build_tables
from jobs.legacy.budgets import print_cost, raised_budgets, with_budgets
from jobs.legacy.sweeps import LegacyRun
from jobs.prepared import prepare
from jobs.runfolder import RunFolder
from jobs.sweep import run_sweep

Writer = Callable[
    [RunTables, dict[str, pl.DataFrame], Path, Path | None, Mapping[str, str]], list[Path]
]
"""Rows, tables, folder, adapter's folder, explainer -> note on its budget -> files written."""


def run_legacy(run: LegacyRun, write: Writer, console: Console) -> int:
    """Run the sweep, or what is left of it, and write the original's files beside its report.

    Returns:
        The sweep's exit code.

    Raises:
        RayxaiError: Nothing could be done, or the sweep had to stop; the same call continues it.
    """
    if run.token is not None:
        os.environ["HF_TOKEN"] = run.token  # where the hub's library looks, here and in hosts
    plan, _ = prepare(run.sweep).plan()
    raised = raised_budgets(plan)
    sweep = with_budgets(run.sweep, raised)
    notes = {label: str(each) for label, each in raised.items()}
    for label, note in notes.items():
        console.print(f"{label}: {note}", markup=False)
    print_cost(prepare(sweep).plan()[0] if raised else plan, console)
    outcome = run_sweep(sweep, console)
    rows = RunTables.load(outcome.folder)
    adapter = trained_adapter(RunFolder(outcome.folder).record)
    for file in write(rows, build_tables(rows, sweep), run.output, adapter, notes):
        console.print(str(file), soft_wrap=True, markup=False)
    return outcome.code


def trained_adapter(record: dict[str, Any]) -> Path | None:
    """Return the folder of the adapter that a run trained, or None."""
    by_model = record.get("adapters", {}).values()
    folders = [Path(adapter["path"]) for each in by_model for adapter in each.values()]
    return folders[0] if folders else None
