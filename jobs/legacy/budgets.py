"""Budgets of the original's size, which may be too small for this project's estimators.

The original explains whatever it is given; LIME and KernelSHAP here refuse a text that has more
unknowns than evaluations. A budget is one number for all texts of a sweep, so that the longest
explained text decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rich.console import Console

from engine.config import SweepConfig
from engine.context import ExplainerTask, StepContext
from engine.explainers.pool_design import smallest
from engine.features import split_features
from engine.plan import Plan
from engine.tokens import load_tokenizer
from jobs.estimate import planned

LEAST: Mapping[str, Callable[[int], int]] = {"kernel_shap": smallest, "lime": lambda f: f + 1}
"""Explainer -> fewest samples for F features; of the default profiles."""


class Raised(NamedTuple):
    """A budget that was too small.

    Attributes:
        asked: `num_samples` as it was asked for.
        num_samples: What the longest explained text needs.
        n_features: Its number of words, or whatever is kept or removed as one.
    """

    asked: int
    num_samples: int
    n_features: int

    def __str__(self) -> str:
        return (
            f"num_samples is {self.num_samples}, not the {self.asked} asked for: the longest "
            f"explained text has {self.n_features} words, and needs as many"
        )


def raised_budgets(plan: Plan) -> dict[str, Raised]:
    """Return the budgets that don't pay for every explained text, by the explainers' labels."""
    found: dict[str, Raised] = {}
    for pair in plan.pairs.values():
        lengths: dict[str, int] = {}
        for task in pair.context.explainers:
            asked = task.params.get("num_samples")
            if task.name not in LEAST or task.compat or asked is None:
                continue
            if task.features not in lengths:
                lengths[task.features] = _longest(plan, pair.context, task)
            needed = LEAST[task.name](lengths[task.features])
            if needed > max(asked, found[task.label].num_samples if task.label in found else 0):
                found[task.label] = Raised(asked, needed, lengths[task.features])
    return found


def _longest(plan: Plan, context: StepContext, task: ExplainerTask) -> int:
    """Return the number of features of the explained example that has most."""
    tokenizer = load_tokenizer(context.tokenizer)
    return max(
        (
            len(
                split_features(
                    example.fields, task.features, template=context.template, tokenizer=tokenizer
                )
            )
            for example in plan.examples
            if example.id in plan.explained
        ),
        default=0,
    )


def with_budgets(sweep: SweepConfig, raised: Mapping[str, Raised]) -> SweepConfig:
    """Return the sweep with these budgets."""
    explainers = [
        each.model_copy(update={"num_samples": raised[each.label].num_samples})
        if each.label in raised
        else each
        for each in sweep.explainers
    ]
    return sweep.model_copy(update={"explainers": explainers})


def print_cost(plan: Plan, console: Console) -> None:
    """Print what will be asked of the model, before it is asked."""
    by = ", ".join(
        f"{each.label} ({each.params['num_samples']} samples)"
        if "num_samples" in each.params
        else each.label
        for each in plan.config.explainers
    )
    if by:
        console.print(
            f"{len(plan.explained)} of {len(plan.examples)} examples are explained by {by}."
        )
    for pair, counts in planned(plan).items():
        adapter = plan.pairs[pair].context.factors["adapter"]
        console.print(
            f"Planned with adapter {adapter}: about {counts.evaluations:,} evaluations, "
            f"{counts.tokens:,} tokens",
            markup=False,
        )
    console.print("What is stored or done already is not asked for again.")
