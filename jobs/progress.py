"""Progress on a terminal: units, evaluations a second, time left. Silent elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    """Evaluations a second since the start."""

    def render(self, task: Task) -> Text:
        sequences = task.fields.get("sequences", 0)
        rate = sequences / task.elapsed if task.elapsed else 0.0
        return Text(f"{sequences:,} evaluations, {rate:,.0f}/s")


class SweepProgress:
    """A bar of committed units.

    Args:
        console: Where to draw; nothing is drawn if it is no terminal.
        title: What runs.
        total: Units to run.
    """

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, sequences=0)
        self._sequences = 0

    def __enter__(self) -> SweepProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, units: int, sequences: int) -> None:
        """Add committed units and scored sequences."""
        self._sequences += sequences
        self._bar.update(self._task, advance=units, sequences=self._sequences)


class TrainingProgress:
    """A bar a training: optimizer steps, loss, tokens a second.

    Args:
        console: Where to draw; nothing is drawn if it is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps {task.fields[said]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, name: str, entry: Mapping[str, Any] | None) -> None:
        """Show the last entry of a training's log, or that it has none yet."""
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=None, said="")
        if entry is None:
            return
        rate = entry["tokens"] / max(entry["seconds"], 1e-9)
        loss = f"loss {entry['loss']:.3f}, " if "loss" in entry else ""
        self._bar.update(
            self._tasks[name],
            total=entry["steps"],
            completed=entry["step"],
            said=f"{loss}{rate:,.0f} tokens/s",
        )

    def end(self, name: str) -> None:
        """Take a training's bar away."""
        if (task := self._tasks.pop(name, None)) is not None:
            self._bar.remove_task(task)
