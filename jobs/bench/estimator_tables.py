"""What `rayxai bench estimators` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_errors(console: Console, figures: dict[str, Any]) -> None:
    """Print the figures of `jobs.bench.estimators.run`."""
    console.print(
        f"{figures['texts']} texts of {min(figures['words'])} to {max(figures['words'])} words, "
        f"{figures['seeds']} seeds. Relative error of a text's values, median:"
    )
    multiples = list(figures["error"]["shap"])
    # the smallest budget is 2 a word and 2
    headings = [f"{m:g}n" if m > min(multiples) else "2n+2" for m in multiples]
    _rows(console, figures["error"], multiples, headings, "evaluations", ".3f")
    console.print("Median error from the pool over the one from a method's own coalitions:")
    _rows(console, figures["pool_vs_own"], multiples, headings, "evaluations", ".3f")
    console.print("Distinct evaluations from the pool over those of its own coalitions:")
    _rows(console, figures["evaluations_of_own"], multiples, headings, "evaluations", ".3f")
    console.print("Share of exact values inside nominal 95 % intervals:")
    _rows(console, figures["coverage"], multiples, headings, "evaluations", ".3f")
    table = Table("stopped at the tolerance", "inside", "error", "evaluations", "all coalitions")
    for name, row in figures["stopped"].items():
        table.add_row(
            name,
            f"{row['coverage']:.3f}",
            f"{row['error']:.4f}",
            f"{row['evaluations']:.0f}",
            f"{row['complete']:.0%}",
        )
    console.print(table)
    console.print(
        f"kernel_shap's error over shap's, largest of the budgets: {figures['worst_vs_shap']:.3f}"
    )
    for multiple, share in figures["evaluations_of_shap"].items():
        console.print(
            f"the surrogate has shap's error at {multiple:g}n with {share:.2f} of its evaluations"
        )
    console.print(f"kernel_shap with all coalitions: largest error {figures['worst_complete']:.1e}")


def _rows(
    console: Console,
    rows: dict[str, dict[float, float]],
    multiples: Sequence[float],
    headings: Sequence[str],
    corner: str,
    form: str,
) -> None:
    # ten budgets have to fit beside the names on a terminal of 80 columns
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(corner)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(name, *[f"{row[m]:{form}}" if m in row else "–" for m in multiples])
    console.print(table)
