"""How far estimates of Shapley values are from the exact ones, against the evaluations they take.

A model is asked once for the values of all coalitions of words of a few short texts; the exact
values follow, and every estimator then draws from these tables. So errors are those of the
estimators alone, on the games of a real model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console

from engine.explainers import build, solve
from engine.types import Attribution
from jobs.bench.estimator_tables import print_errors
from jobs.bench.games import Game, score_games
from jobs.bench.workload import texts_of

MULTIPLES = (2.5, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
"""Budgets in evaluations a word; below them there is the smallest budget, 2 a word and 2."""

SMALLEST = 2.0

AGAINST = (5.0, 10.0, 20.0)
"""Budgets of shap whose error the surrogate is to reach with fewer evaluations."""

NOMINAL = 0.95
SURROGATE = {"surrogate": "gaussian_process"}

Exact = dict[str, npt.NDArray[np.float64]]
"""Method -> its own values [F] from all coalitions: Shapley values of `kernel_shap`."""

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
        largest error of our default once all coalitions are valued; `pool_vs_own`: method ->
        evaluations a word -> median error from the pool of a sweep over the one from its own
        coalitions; `evaluations_of_own`: the same of distinct evaluations, of which lime's own
        draws need fewer. `worst_vs_shap`, `worst_evaluations_of_shap` and `worst_pool_vs_own`, the
        largest of their kind; `least_coverage` and `most_coverage`, of all budgets and after
        stopping.
    """
    if games is None:
        texts = texts_of(data, field, words, n_texts)
        games = score_games(texts, model, prompt, device, threads)
    scored = list(games)
    exact = [_exact(game) for game in scored]
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
    figures["pool_vs_own"] = {
        name: {m: e / error[name][m] for m, e in error[pooled].items()}
        for pooled, name in _POOLED.items()
        if pooled in error
    }
    figures["evaluations_of_own"] = _evaluations(measured)
    figures |= _extremes(figures)
    if console is not None:
        print_errors(console, figures)
    return figures


def _extremes(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that a release is judged by; none of what was not measured."""
    inside = [c for row in figures["coverage"].values() for c in row.values()]
    inside += [row["coverage"] for row in figures["stopped"].values()]
    found: dict[str, list[float]] = {
        "worst_vs_shap": list(figures["vs_shap"].values()),
        "worst_evaluations_of_shap": list(figures["evaluations_of_shap"].values()),
        "worst_pool_vs_own": [e for row in figures["pool_vs_own"].values() for e in row.values()],
        "most_coverage": inside,
    }
    worst = {name: max(values) for name, values in found.items() if values}
    return {**worst, **({"least_coverage": min(inside)} if inside else {})}


def _evaluations(measured: dict[str, dict[float, Errors]]) -> dict[str, dict[float, float]]:
    """Return the evaluations from the pool over those of a method's own coalitions."""
    mean = _table(measured, _mean_evaluations)
    return {
        name: {m: count / mean[name][m] for m, count in mean[pooled].items()}
        for pooled, name in _POOLED.items()
        if pooled in mean
    }


def _mean_evaluations(found: Errors) -> float:
    return float(np.mean(found.evaluations)) if found.evaluations else np.nan


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
    games: Sequence[Game], exact: Sequence[Exact], seeds: int
) -> dict[str, dict[float, Errors]]:
    measured: dict[str, dict[float, Errors]] = {}
    for multiple in (SMALLEST, *MULTIPLES):
        for game, truth in zip(games, exact, strict=True):
            n = game.n_features
            budget = max(int(multiple * n), 2 * n + 2)
            if budget >= 2**n:
                continue
            for seed in range(seeds):
                for name, ours in _OURS.items():
                    explainer = build(ours.name, num_samples=budget, seed=seed, **ours.params)
                    if name in _POOLED and not explainer.pool_samples(n):
                        continue  # too few for the pool: it would draw its own
                    found = solve(explainer, game.value, n)
                    _at(measured, name, multiple).add(found, truth[ours.name])
                for name, estimate in _PEERS.items():
                    values = estimate(game, budget, seed)
                    error = _relative(values, truth["kernel_shap"])
                    _at(measured, name, multiple).errors.append(error)
    return measured


def _at(measured: dict[str, dict[float, Errors]], name: str, multiple: float) -> Errors:
    return measured.setdefault(name, {}).setdefault(multiple, Errors())


def _stopped(
    games: Sequence[Game],
    exact: Sequence[Exact],
    seeds: int,
    tolerance: float,
) -> dict[str, dict[str, float]]:
    rows = {}
    for name, ours in _OURS.items():
        found = Errors()
        complete = 0
        for game, truth in zip(games, exact, strict=True):
            for seed in range(seeds):
                explainer = build(ours.name, seed=seed, relative_error=tolerance, **ours.params)
                estimate = solve(explainer, game.value, game.n_features)
                if estimate.diagnostics["exact"]:
                    complete += 1  # an interval of width 0, which says nothing of coverage
                else:
                    found.add(estimate, truth[ours.name])
        if found.errors:
            rows[name] = {
                "coverage": float(np.mean(found.inside)),
                "error": float(np.median(found.errors)),
                "evaluations": float(np.mean(found.evaluations)),
                "complete": complete / (len(games) * seeds),
            }
    return rows


def _worst_complete(games: Sequence[Game], exact: Sequence[Exact]) -> float:
    return max(
        _relative(_of_all(game, "kernel_shap"), truth["kernel_shap"])
        for game, truth in zip(games, exact, strict=True)
    )


def _exact(game: Game) -> Exact:
    shapley = solve(build("exact"), game.value, game.n_features).values[0]
    return {"kernel_shap": shapley, "lime": _of_all(game, "lime")}


def _of_all(game: Game, name: str) -> npt.NDArray[np.float64]:
    whole = build(name, num_samples=2**game.n_features)
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


class _Ours(NamedTuple):
    name: str
    params: dict[str, Any]


_OURS: dict[str, _Ours] = {
    "kernel_shap": _Ours("kernel_shap", {}),
    "kernel_shap + surrogate": _Ours("kernel_shap", SURROGATE),
    "lime": _Ours("lime", {}),
    "kernel_shap, pool": _Ours("kernel_shap", {"sampling": "pool"}),
    "lime, pool": _Ours("lime", {"sampling": "pool"}),
}
"""LIME is held against its own values from all coalitions, not against Shapley values."""

_POOLED = {"kernel_shap, pool": "kernel_shap", "lime, pool": "lime"}
"""What takes the coalitions that explainers of a sweep share, and the same with its own."""

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
