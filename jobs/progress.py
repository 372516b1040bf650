"""Progress on a terminal: units, evaluations a second, time left. Silent elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
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
