"""What the baseline of integrated gradients changes: `python -m jobs.bench.gradients`.

Each baseline explains the same texts twice: once with 20 quadrature points, to see how far from
complete that is, and once doubling them up to the most, to see how many it takes. The converged
values are then compared with those of the default baseline.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.host import Host
from engine.config import SweepConfig, parse_config
from engine.data import load_examples
from engine.gradients import BASELINES
from engine.metrics.agreement import spearman
from engine.plan import build_plan, data_source, shard
from engine.step import run_in_process
from jobs.facts import facts_of, host_spec

STEPS = 20
Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""Attribution rows by (explainer, example)."""


@dataclass(frozen=True, slots=True)
class BaselineFigures:
    """What one baseline gives over all texts.

    Attributes:
        baseline: Its name.
        change: Median |F(x) − F(baseline)|.
        error: Median completeness error with `STEPS` points, in the unit of the target.
        relative: Median of that error ÷ |F(x) − F(baseline)|.
        steps: Median points of the last quadrature.
        converged: Share of texts within the bound.
        agreement: Mean Spearman correlation of the values with those of the first baseline.
    """

    baseline: str
    change: float
    error: float
    relative: float
    steps: float
    converged: float
    agreement: float | None


def run(
    model: str,
    data: str,
    examples: int,
    max_steps: int,
    baselines: Sequence[str] = BASELINES,
    device: str = "auto",
) -> list[BaselineFigures]:
    """Explain the same texts from every baseline, in this process.

    Args:
        model: As `models.path` in a sweep.
        data: As `data.path`.
        examples: How many texts, sampled by seed 0.
        max_steps: Most quadrature points.
        baselines: The first one is what the others are compared with.
        device: As of a host.
    """
    config = _config(model, data, examples, max_steps, baselines)
    loaded = load_examples(data_source(config))
    facts, _ = facts_of(config)
    plan = build_plan(config, loaded.examples, facts, "store")
    [pair] = plan.pairs.values()
    host = Host(host_spec(pair.model, device))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        numerics = host.load().numerics
        for unit in shard(pair, plan.examples, 1):
            result = run_in_process(pair.context, unit, numerics, host.score, host.gradients)
            for row in result.tables["attributions"].to_pylist():
                rows[row["explainer"], row["example"]] = row
    finally:
        host.stop()
    texts = [e.id for e in plan.examples if all((b, e.id) in rows for b in baselines)]
    return [_figures(rows, texts, baseline, baselines[0]) for baseline in baselines]


def _config(
    model: str, data: str, examples: int, max_steps: int, baselines: Sequence[str]
) -> SweepConfig:
    explainers = []
    for baseline in baselines:
        common = {"name": "integrated_gradients", "baseline": baseline, "steps": STEPS}
        explainers.append({**common, "id": f"{baseline}@{STEPS}", "max_steps": STEPS})
        explainers.append({**common, "id": baseline, "max_steps": max_steps})
    return parse_config(
        {
            "models": [model],
            "data": {"path": data, "limit": examples},
            "prompt": {
                "template": "Review: {text}\nSentiment:",
                "labels": {"negative": " negative", "positive": " positive"},
            },
            "explainers": explainers,
            "metrics": {"faithfulness": False},
        }
    )


def _figures(rows: Rows, texts: Sequence[str], baseline: str, first: str) -> BaselineFigures:
    coarse = [rows[f"{baseline}@{STEPS}", text] for text in texts]
    fine = [rows[baseline, text] for text in texts]
    change = np.array([abs(r["full_value"] - r["base"]) for r in fine])
    error = np.array([abs(r["residual"]) for r in coarse])
    pairs = [
        spearman(np.array(rows[first, text]["values"]), np.array(row["values"]))
        for text, row in zip(texts, fine, strict=True)
    ]
    known = [value for value in pairs if value is not None]
    return BaselineFigures(
        baseline=baseline,
        change=float(np.median(change)),
        error=float(np.median(error)),
        relative=float(np.median(error / np.maximum(change, 1e-9))),
        steps=float(np.median([json.loads(r["diagnostics"])["steps"] for r in fine])),
        converged=float(np.mean([r["status"] == "ok" for r in fine])),
        agreement=float(np.mean(known)) if known else None,
    )


def print_figures(figures: Sequence[BaselineFigures], console: Console) -> None:
    """Print a table, a row a baseline."""
    first = figures[0].baseline
    table = Table(
        "baseline",
        "|F(x) − F(x')|",
        f"error at {STEPS}",
        "÷ change",
        "steps needed",
        "converged",
        f"Spearman to {first}",
    )
    for row in figures:
        agreement = "–" if row.agreement is None else f"{row.agreement:.2f}"
        table.add_row(
            row.baseline,
            f"{row.change:.2f}",
            f"{row.error:.2f}",
            f"{row.relative:.0%}",
            f"{row.steps:.0f}",
            f"{row.converged:.0%}",
            agreement,
        )
    console.print(table)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="What the baseline of gradients changes.")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--data", default="bundled:reviews")
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--max-steps", type=int, default=160)
    parser.add_argument("--baselines", nargs="+", default=list(BASELINES), choices=BASELINES)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    given = parser.parse_args()
    figures = run(
        given.model, given.data, given.examples, given.max_steps, given.baselines, given.device
    )
    print_figures(figures, Console(width=100))


if __name__ == "__main__":
    main()
