"""All benchmarks in one run, each figure held against what it should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Target(NamedTuple):
    """What a figure should be.

    Attributes:
        bench: The benchmark that gives it.
        figure: Its key.
        least: The figure is to be at least this, or None.
        most: The figure is to be at most this, or None.
    """

    bench: str
    figure: str
    least: float | None = None
    most: float | None = None

    def met_by(self, value: float) -> bool:
        """Return whether a value is as it should be."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)


TARGETS = (
    Target("scoring", "packed_vs_padded_chat", least=5.2),
    Target("scoring", "packed_vs_padded_short", least=3.2),
    Target("scoring", "packed_vs_vllm_chat", least=1.8),
    Target("scoring", "tokens_over_floor", most=1.005),
    Target("scoring", "dense_rate_fraction", least=0.9),
    Target("scoring", "max_abs_dlogodds", most=1e-4),
    Target("estimators", "worst_vs_shap", most=1.02),
    Target("estimators", "worst_evaluations_of_shap", most=0.5),
    Target("estimators", "worst_pool_vs_own", most=1.1),
    Target("estimators", "least_coverage", least=0.9),
    Target("estimators", "most_coverage", most=0.98),
    Target("explainers", "vs_lime", least=8.0),
    Target("explainers", "vs_shap_kernel", least=4.0),
    Target("explainers", "vs_shap_kernel_equal_error", least=8.0),
    Target("explainers", "max_abs_dw", most=1e-4),
    Target("memory", "growth_megabytes", most=200),
    Target("overhead", "evaluations_per_second", least=100_000),
    Target("overhead", "assemble_tokens_per_second", least=10_000_000),
    Target("overhead", "units_per_second", least=200),
    Target("overhead", "driver_bytes_per_unit", most=512),
    Target("overhead", "ray_vs_inprocess", most=1.08),
)
"""What was asked of two CPU cores and SmolLM2-135M in single precision. A figure that a run doesn't
give (vLLM where it isn't installed) is left out."""


def run(model: str, device: str, samples: int | None, console: Console) -> dict[str, Any]:
    """Run the benchmarks one after the other and print which figures are as they should be.

    Args:
        model: Hub id or local folder.
        device: Of the model and of all that it is compared with, as of a host.
        samples: Of the explainers; each library's default if None (minutes a repeat on a CPU).
        console: Where it is printed.

    Returns:
        The figures by benchmark, and under `failed` the names of those that miss their target.
    """
    from jobs.bench import (
        estimators,
        explainers,
        memory,
        overhead,
        ray_against_process,
        ray_overhead,
        scoring,
    )
    from jobs.stages import physical_cores

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "scoring": lambda: scoring.run(model, device=device, console=console),
        "estimators": lambda: estimators.run(
            model, device=device, threads=physical_cores(), console=console
        ),
        "explainers": lambda: explainers.run(samples, 1, model, device=device, say=console.print),
        "memory": lambda: memory.run(model, device=device),
        "overhead": lambda: {
            **overhead.run(samples=5000),
            **ray_overhead.run(20_000),
            **ray_against_process.run(model, device=device),
        },
    }
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        console.rule(name)
        figures[name] = part()
    figures["failed"] = judge(figures, console)
    return figures


def judge(figures: dict[str, Any], console: Console) -> list[str]:
    """Print a line for every target whose figure is there, and return the names of those missed."""
    table = Table(title="Targets", title_justify="left")
    for column in ("figure", "measured", "target", ""):
        table.add_column(column)
    failed = []
    for target in TARGETS:
        value = figures.get(target.bench, {}).get(target.figure)
        if value is None:
            continue
        met = target.met_by(float(value))
        bound = f"≥ {target.least:g}" if target.least is not None else f"≤ {target.most:g}"
        table.add_row(
            f"{target.bench}: {target.figure}", f"{value:,.4g}", bound, "pass" if met else "FAIL"
        )
        if not met:
            failed.append(target.figure)
    console.print(table)
    return failed
