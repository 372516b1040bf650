"""How far estimates of Shapley values are from the exact ones, against the evaluations they take.

A model is asked once for the values of all coalitions of words of a few short texts; the exact
values follow, and every estimator then draws from these tables. So errors are those of the
estimators alone, on the games of a real model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from engine.explainers import build, solve
from engine.types import Attribution
from jobs.bench.games import Game, score_games
from jobs.bench.workload import texts_of

MULTIPLES = (2.5, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
"""Budgets in evaluations a word; below them there is the smallest budget, 2 a word and 2."""

SMALLEST = 2.0

AGAINST = (5.0, 10.0, 20.0)
"""Budgets of shap whose error the surrogate is to reach with fewer evaluations."""

NOMINAL = 0.95
SURROGATE = {"surrogate": "gaussian_process"}

Estimate = Callable[[Game, int, int], npt.NDArray[np.float64]]
"""Game, evaluations, seed -> values [F]."""


@dataclass
class Errors:
    """Relative Euclidean errors and coverages of one estimator at one budget.

    Attributes:
        errors: One a text and seed.
        inside: Share of a text's values inside their interval, where there are intervals.
        evaluations: What was asked.
    """

    errors: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)

    def add(self, found: Attribution, exact: npt.NDArray[np.float64]) -> None:
        """Count one of our estimates."""
        self.errors.append(_relative(found.values[0], exact))
        self.evaluations.append(found.evaluations)
        interval = found.interval(NOMINAL)
        if interval is not None:
            low, high = interval
            self.inside.append(float(((low[0] <= exact) & (exact <= high[0])).mean()))


def run(
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    *,
    data: str = "bundled:reviews",
    field: str = "text",
    words: tuple[int, int] = (9, 12),
    n_texts: int = 30,
    seeds: int = 10,
    prompt: str = "short",
    tolerance: float = 0.1,
    device: str = "auto",
    threads: int = 0,
    games: Iterable[Game] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure the estimators and return the figures.

    Args:
        model: As of `models.path`.
        data: Where the texts are.
        field: Their column.
        words: Fewest and most words of a text; 2^words prompts are scored.
        n_texts: Number of texts.
        seeds: Estimates of each text at each budget.
        prompt: `chat` or `short`.
        tolerance: `relative_error` of the estimates that stop by themselves.
        device: As of a host.
        threads: As of a host.
        games: Scored already; no model is loaded then.
        console: Where tables are printed; None prints nothing.

    Returns:
        `error`: estimator -> evaluations a word -> median relative error; `vs_shap`: the same of
        our default over shap's; `evaluations_of_shap`: shap's evaluations a word -> the share of
        them at which the surrogate has the same median error; `coverage`: estimator ->
        evaluations a word -> share of exact values inside nominal 95 % intervals; `stopped`: the
        same after stopping at the tolerance, with error and evaluations; `worst_complete`: the
        largest error of our default once all coalitions are valued. `worst_vs_shap` and
        `worst_evaluations_of_shap`, the largest of their kind; `least_coverage` and
        `most_coverage`, of all budgets and after stopping.
    """
    if games is None:
        texts = texts_of(data, field, words, n_texts)
        games = score_games(texts, model, prompt, device, threads)
    scored = list(games)
    exact = [solve(build("exact"), game.value, game.n_features).values[0] for game in scored]
    measured = _fixed(scored, exact, seeds)
    figures: dict[str, Any] = {
        "model": model,
        "texts": len(scored),
        "seeds": seeds,
        "words": [game.n_features for game in scored],
        "error": _table(measured, lambda found: float(np.median(found.errors))),
        "coverage": _table(measured, lambda found: float(np.mean(found.inside or [np.nan]))),
        "stopped": _stopped(scored, exact, seeds, tolerance),
        "worst_complete": _worst_complete(scored, exact),
    }
    # peers have no intervals, small budgets have none either
    figures["coverage"] = {
        name: {m: c for m, c in row.items() if not np.isnan(c)}
        for name, row in figures["coverage"].items()
        if not all(np.isnan(c) for c in row.values())
    }
    error = figures["error"]
    figures["vs_shap"] = {m: error["kernel_shap"][m] / e for m, e in error["shap"].items()}
    figures["evaluations_of_shap"] = {
        m: reach(error["kernel_shap + surrogate"], error["shap"][m]) / m
        for m in AGAINST
        if m in error["shap"]
    }
    figures |= _extremes(figures)
    if console is not None:
        _print(console, figures)
    return figures


def _extremes(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that a release is judged by; none of what was not measured."""
    inside = [c for row in figures["coverage"].values() for c in row.values()]
    inside += [row["coverage"] for row in figures["stopped"].values()]
    found = {
        "worst_vs_shap": list(figures["vs_shap"].values()),
        "worst_evaluations_of_shap": list(figures["evaluations_of_shap"].values()),
        "most_coverage": inside,
    }
    worst = {name: max(values) for name, values in found.items() if values}
    return {**worst, **({"least_coverage": min(inside)} if inside else {})}


def reach(errors: dict[float, float], error: float) -> float:
    """Return the evaluations a word at which an error is reached, between budgets as a power law.

    Args:
        errors: Evaluations a word -> error.
        error: What is to be reached.

    Returns:
        The smallest budget where that suffices; infinite where none does.
    """
    budgets = sorted(errors)
    for before, after in zip([None, *budgets], budgets, strict=False):
        if errors[after] > error:
            continue
        if before is None or errors[after] == error:
            return after
        slope = np.log(errors[before] / error) / np.log(errors[before] / errors[after])
        return float(before * (after / before) ** slope)
    return float("inf")


def _fixed(
    games: Sequence[Game], exact: Sequence[npt.NDArray[np.float64]], seeds: int
) -> dict[str, dict[float, Errors]]:
    measured: dict[str, dict[float, Errors]] = {}
    for multiple in (SMALLEST, *MULTIPLES):
        for game, truth in zip(games, exact, strict=True):
            n = game.n_features
            budget = max(int(multiple * n), 2 * n + 2)
            if budget >= 2**n:
                continue
            for seed in range(seeds):
                for name, own in _OURS.items():
                    explainer = build(own["name"], num_samples=budget, seed=seed, **own["params"])
                    found = solve(explainer, game.value, n)
                    target = truth if own["name"] == "kernel_shap" else _lime(game)
                    _at(measured, name, multiple).add(found, target)
                for name, estimate in _PEERS.items():
                    values = estimate(game, budget, seed)
                    _at(measured, name, multiple).errors.append(_relative(values, truth))
    return measured


def _at(measured: dict[str, dict[float, Errors]], name: str, multiple: float) -> Errors:
    return measured.setdefault(name, {}).setdefault(multiple, Errors())


def _stopped(
    games: Sequence[Game],
    exact: Sequence[npt.NDArray[np.float64]],
    seeds: int,
    tolerance: float,
) -> dict[str, dict[str, float]]:
    rows = {}
    for name, own in _OURS.items():
        found = Errors()
        complete = 0
        for game, truth in zip(games, exact, strict=True):
            target = truth if own["name"] == "kernel_shap" else _lime(game)
            for seed in range(seeds):
                explainer = build(own["name"], seed=seed, relative_error=tolerance, **own["params"])
                estimate = solve(explainer, game.value, game.n_features)
                if estimate.diagnostics["exact"]:
                    complete += 1  # an interval of width 0, which says nothing of coverage
                else:
                    found.add(estimate, target)
        if found.errors:
            rows[name] = {
                "coverage": float(np.mean(found.inside)),
                "error": float(np.median(found.errors)),
                "evaluations": float(np.mean(found.evaluations)),
                "complete": complete / (len(games) * seeds),
            }
    return rows


def _worst_complete(games: Sequence[Game], exact: Sequence[npt.NDArray[np.float64]]) -> float:
    errors = [
        _relative(
            solve(
                build("kernel_shap", num_samples=2**game.n_features), game.value, game.n_features
            ).values[0],
            truth,
        )
        for game, truth in zip(games, exact, strict=True)
    ]
    return max(errors)


def _lime(game: Game) -> npt.NDArray[np.float64]:
    whole = build("lime", num_samples=2**game.n_features)
    return np.asarray(solve(whole, game.value, game.n_features).values[0])


def _shap(game: Game, budget: int, seed: int) -> npt.NDArray[np.float64]:
    from guests.shap_kernel import explain

    np.random.seed(seed)  # shap draws from the global generator
    with warnings.catch_warnings():  # the smallest budgets leave its regression singular
        warnings.simplefilter("ignore")
        found = explain(game.n_features, game.value, ("",), nsamples=budget - 2, l1_reg=False)
    return np.asarray(found.values[0])


def _captum(game: Game, budget: int, seed: int) -> npt.NDArray[np.float64]:
    from guests.captum_kernel_shap import explain

    # two of captum's samples are the empty and the full coalition
    found = explain(game.n_features, game.value, ("",), seed=seed, n_samples=budget)
    return np.asarray(found.values[0])


_OURS: dict[str, dict[str, Any]] = {
    "kernel_shap": {"name": "kernel_shap", "params": {}},
    "kernel_shap + surrogate": {"name": "kernel_shap", "params": SURROGATE},
    "lime": {"name": "lime", "params": {}},
}
"""LIME is held against its own values from all coalitions, not against Shapley values."""

_PEERS: dict[str, Estimate] = {"shap": _shap, "captum": _captum}


def _relative(values: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(values - exact) / np.linalg.norm(exact))


def _table(
    measured: dict[str, dict[float, Errors]], summary: Callable[[Errors], float]
) -> dict[str, dict[float, float]]:
    return {
        name: {multiple: summary(found) for multiple, found in row.items()}
        for name, row in measured.items()
    }


def _print(console: Console, figures: dict[str, Any]) -> None:
    console.print(
        f"{figures['texts']} texts of {min(figures['words'])} to {max(figures['words'])} words, "
        f"{figures['seeds']} seeds. Relative error of a text's values, median:"
    )
    multiples = list(figures["error"]["shap"])
    headings = [f"{m:g}n" if m > SMALLEST else "2n+2" for m in multiples]
    _rows(console, figures["error"], multiples, headings, "evaluations", ".4f")
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
    table = Table(corner, *headings)
    for name, row in rows.items():
        table.add_row(name, *[f"{row[m]:{form}}" if m in row else "–" for m in multiples])
    console.print(table)
