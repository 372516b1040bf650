"""What the rungs of the scoring benchmark are held against, and what is printed of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from engine.ragged import Ragged

PADDED = "padded"
"""The rung that is what the model says: the others' log-odds are held against its."""

OURS = "packed: a host as it is"
"""The rung that is a host as it is: what the others are held against."""

Answer = npt.NDArray[np.float64]
"""Log-odds of the second label [S]."""

Scorer = Callable[[Ragged], tuple[Answer, int]]
"""Prompts -> (their log-odds in their order, tokens computed)."""


@dataclass
class Rung:
    """One way to score, and what it took.

    Attributes:
        name: What it is called.
        score: What scores.
        most: Most prompts of a text that are really run, the rest counted at the same rate; None
            runs all.
    """

    name: str
    score: Scorer
    most: int | None = None
    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    answers: list[Answer] = field(default_factory=list)

    def run(self, sequences: Ragged) -> None:
        """Score one text's prompts."""
        n_rows = sequences.n_rows
        taken = n_rows if self.most is None else min(self.most, n_rows)
        some = sequences if taken == n_rows else sequences.take(np.arange(taken))
        started = time.perf_counter()
        answer, tokens = self.score(some)
        self.seconds.append((time.perf_counter() - started) * n_rows / taken)
        self.tokens += round(tokens * n_rows / taken)
        self.rows += n_rows
        self.answers.append(answer)

    @property
    def rate(self) -> float:
        """Prompts a second over all texts."""
        return self.rows / sum(self.seconds)


def figures_of(
    rungs: list[Rung], floor: int, asked: int, dense: list[float], prepacked: list[float]
) -> dict[str, Any]:
    """Return what all rungs took for the same texts.

    Args:
        rungs: After their run; `PADDED` and `OURS` are among them.
        floor: Distinct prefixes of all prompts, in tokens.
        asked: Tokens of all prompts.
        dense: Measurements of the stock model's dense rate, in tokens/s.
        prepacked: Of the host's model.
    """
    best, best_prepacked = float(np.median(dense)), float(np.median(prepacked))
    plain = next(rung for rung in rungs if rung.name == PADDED)
    product = next(rung for rung in rungs if rung.name == OURS)
    figures: dict[str, Any] = {
        "tokens_asked": asked,
        "floor": floor,
        "dense_tokens_per_second": best,
        "dense_tokens_per_second_prepacked": best_prepacked,
        "rungs": {},
    }
    for rung in rungs:
        ratios = [theirs / ours for theirs, ours in zip(rung.seconds, product.seconds, strict=True)]
        tokens_per_second = rung.tokens / sum(rung.seconds)
        figures["rungs"][rung.name] = {
            "sequences_per_second": rung.rate,
            "tokens_computed": rung.tokens,
            "tokens_over_floor": rung.tokens / floor,
            "tokens_per_second": tokens_per_second,
            "dense_rate_fraction": tokens_per_second / best,
            "dense_rate_fraction_prepacked": tokens_per_second / best_prepacked,
            "max_abs_dlogodds": max(map(_gap, plain.answers, rung.answers)),
            "product_is_faster_by": sum(rung.seconds) / sum(product.seconds),
            "product_is_faster_by_median": float(np.median(ratios)),
        }
    return figures


def _gap(one: Answer, other: Answer) -> float:
    """Return the largest difference of a text's log-odds, over the prompts that both scored."""
    both = min(len(one), len(other))
    return float(np.abs(one[:both] - other[:both]).max())


def headline(prompts: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that a release is judged by, the worst over the prompts."""
    head: dict[str, Any] = {
        f"packed_vs_padded_{name}": figures["rungs"][PADDED]["product_is_faster_by"]
        for name, figures in prompts.items()
    }
    for name, figures in prompts.items():
        others = [r for rung, r in figures["rungs"].items() if rung.startswith("vllm")]
        if others:
            head[f"packed_vs_vllm_{name}"] = min(r["product_is_faster_by"] for r in others)
    ours = [figures["rungs"][OURS] for figures in prompts.values()]
    head["tokens_over_floor"] = max(rung["tokens_over_floor"] for rung in ours)
    head["dense_rate_fraction"] = min(rung["dense_rate_fraction"] for rung in ours)
    head["dense_rate_fraction_prepacked"] = min(
        rung["dense_rate_fraction_prepacked"] for rung in ours
    )
    head["max_abs_dlogodds"] = max(rung["max_abs_dlogodds"] for rung in ours)
    return head


def print_rungs(console: Console, prompt: str, figures: dict[str, Any]) -> None:
    """Print a table of one prompt's rungs."""
    table = Table(title=f"{prompt} prompt", title_justify="left")
    table.add_column("rung")
    for column in (
        "sequences/s",
        "tokens ÷ floor",
        "tokens/s ÷ dense",
        "÷ prepacked",
        "ours is faster by",
        "off by",
    ):
        table.add_column(column, justify="right")
    for name, rung in figures["rungs"].items():
        table.add_row(
            name,
            f"{rung['sequences_per_second']:.1f}",
            f"{rung['tokens_over_floor']:.4f}",
            f"{rung['dense_rate_fraction']:.3f}",
            f"{rung['dense_rate_fraction_prepacked']:.3f}",
            f"{rung['product_is_faster_by']:.2f}×",
            f"{rung['max_abs_dlogodds']:.1e}",
        )
    console.print(table)
    console.print(
        f"floor {figures['floor']:,} tokens of {figures['tokens_asked']:,} asked; dense "
        f"{figures['dense_tokens_per_second']:.0f} tokens/s, with prepacked weights "
        f"{figures['dense_tokens_per_second_prepacked']:.0f}; off by: the largest difference in "
        f"log-odds from the first rung"
    )
