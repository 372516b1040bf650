"""How far a run is, from its folder alone; Ray need not run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from actors.trainer import read_card, read_progress
from engine.commits import CommittedPart, has_live_driver, read_commits
from engine.errors import RunFolderError
from engine.store import read_results
from jobs.runfolder import RunFolder


def print_status(path: Path, console: Console) -> int:
    """Print committed and open units and failures; return 0, or 2 if there are failures.

    Raises:
        RunFolderError: There is no run.
    """
    folder = RunFolder(path)
    record = folder.record
    if not record:
        raise RunFolderError(f"{path}: no run.json; give the folder of a run, such as runs/demo")
    units = pq.read_table(path / "plan.parquet").to_pylist()
    commits = read_commits(path)
    done = [u for u in units if u["unit"] in commits and not commits[u["unit"]].failed]
    state = record.get("status")
    if state in ("running", "training") and not has_live_driver(path):
        state = "stopped: its process is gone"
    console.print(f"{path}: {state} (started {record.get('started')})", markup=False)
    if record.get("status") != "finished":
        for training in record.get("trainings", ()):
            console.print(f"  {_training_line(training)}", markup=False)
    for pair in dict.fromkeys(u["pair"] for u in units):
        of_pair = [u for u in units if u["pair"] == pair]
        finished = sum(1 for u in done if u["pair"] == pair)
        examples = sum(len(u["examples"]) for u in of_pair)
        console.print(
            f"  {pair}: {finished} of {len(of_pair)} units ({examples} examples)", markup=False
        )
    failures: dict[str, list[CommittedPart]] = {}
    for part in (part for c in commits.values() for part in c.parts if part.table == "failures"):
        failures.setdefault(part.file, []).append(part)
    rows = sum(
        read_results(pq.ParquetFile(path / file), parts, ["unit"]).num_rows
        for file, parts in failures.items()
    )
    if rows:
        console.print(f"  {rows} failures; see {path / 'failures'} or the report", markup=False)
    if len(done) < len(units) or record.get("status") == "training":
        console.print("  the same `rayxai run` command continues it")
    return 2 if rows else 0


def _training_line(training: Mapping[str, Any]) -> str:
    """Return what a training's folder says of it; other runs may train there, too."""
    folder, begin = Path(training["folder"]), f"adapter {training['place']}: "
    if read_card(folder) is not None:
        return f"{begin}trained"
    entry = read_progress(folder)
    if entry is None:
        return f"{begin}not trained yet ({training['steps']} steps)"
    rate = entry["tokens"] / max(entry["seconds"], 1e-9)
    loss = f", loss {entry['loss']:.3f}" if "loss" in entry else ""
    return f"{begin}step {entry['step']} of {entry['steps']}{loss}, {rate:,.0f} tokens/s"
