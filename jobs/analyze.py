"""From a run folder to its tables, figures and report: `python -m jobs.analyze runs/demo`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from analysis.answers import StoredAnswers
from analysis.figures import write_figures
from analysis.load import RunTables
from analysis.report import ReportInput, write_report
from analysis.tables import build_tables, write_tables
from engine.adapter_section import BASE
from engine.config import parse_config
from engine.errors import RunFolderError
from engine.schema import FACTORS
from jobs.folders import absolute
from jobs.runfolder import RunFolder


def analyze(path: Path, console: Console) -> Path:
    """Write tables, figures and report.html of a run; return the report's path.

    Raises:
        RunFolderError: There is no run, or its files are damaged.
    """
    record = RunFolder(path).record
    if not record:
        raise RunFolderError(f"{path}: no run.json; give the folder of a run, such as runs/demo")
    config = parse_config(record["config"], f"{path}/run.json")
    run = RunTables.load(path)
    answers = StoredAnswers(
        absolute(config.run.store), record.get("evaluation_fingerprints", {}), config
    )
    tables = build_tables(run, config, record.get("hosts"), answers)
    write_tables(tables, path)
    write_figures(tables, run.predictions, path / "figures")
    report = write_report(
        ReportInput(
            config.run.name, record, tables, run.predictions, run.attributions, run.failures
        ),
        path / "report.html",
    )
    print_summary(run, tables, record, console)
    console.print(f"Report: {report}", soft_wrap=True)
    return report


def print_summary(
    run: RunTables, tables: Mapping[str, pl.DataFrame], record: Mapping[str, Any], console: Console
) -> None:
    """Print the few figures one wants to see first."""
    for row in _rows(tables["performance"], metric="accuracy"):
        explained = run.attributions.filter(*(pl.col(name) == row[name] for name in FACTORS))[
            "example"
        ].n_unique()
        console.print(
            f"{_who(row)}: accuracy {_interval(row)} on {row['n']} examples, {explained} explained"
        )
    for row in _rows(tables["faithfulness"], metric="comprehensiveness", reference="minus_random"):
        own = {name: row[name] for name in ("model", "precision", "adapter", "prompt", "explainer")}
        frame = run.attributions.filter(
            *(pl.col(name) == value for name, value in own.items() if value is not None)
        )
        extra = [
            f"{label} {_median(values):.3g}"
            for label, values in (
                ("median weighted R²", frame["r2"]),
                ("median |additivity residual|", frame["residual"].abs()),
            )
            if values.count()
        ]
        console.print(
            f"  {row['explainer']}: comprehensiveness minus random {_interval(row)}"
            + (f"; {', '.join(extra)}" if extra else "")
            + f"; median {_median(frame['evaluations']):.0f} evaluations"
        )
    if len(run.failures):
        console.print(f"{len(run.failures)} failures; see the report or failures/:")
        for row in run.failures.head(5).to_dicts():
            place = " ".join(str(row[k]) for k in ("example", "explainer", "model") if row[k])
            console.print(f"  {row['stage']} {place}: {row['message']}", markup=False)


def _rows(frame: pl.DataFrame, **wanted: str) -> list[dict[str, Any]]:
    return frame.filter(*(pl.col(name) == value for name, value in wanted.items())).to_dicts()


def _median(values: pl.Series) -> float:
    return float(np.median(values.drop_nulls().to_numpy()))


def _who(row: Mapping[str, Any]) -> str:
    adapter = "" if row["adapter"] == BASE else f" with {row['adapter']}"
    return f"{row['model']}{adapter} ({row['precision']}, {row['prompt']}) on {row['data']}"


def _interval(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    if row["ci_low"] is None or row["ci_high"] is None:  # fewer than two groups of examples
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def main() -> int:
    """Analyze the run folder that the command line names."""
    from jobs.codes import guarded

    def action() -> int:
        if len(sys.argv) != 2:
            raise RunFolderError("give one run folder: python -m jobs.analyze runs/demo")
        analyze(Path(sys.argv[1]), Console(soft_wrap=True))
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
