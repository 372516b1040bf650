"""`rayxai plan`: what a sweep will ask for, before any model loads.

The units themselves are run against a scorer that gives every sequence the same score: what is
asked does not depend on the scores but for the order in which metrics remove words, so the counts
are those of the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from engine import schema
from engine.config import SweepConfig
from engine.context import StepContext
from engine.generations import longest_generations, most_tokens
from engine.gradients import even_gradients, expected_tokens, no_gradients
from engine.plan import Pair, Plan, model_key, shard
from engine.step import run_in_process
from engine.types import Example
from jobs.family_plan import print_families
from jobs.folders import run_folder
from jobs.prepared import Prepared, prepare
from jobs.runfolder import RunFolder

SAMPLE = 8
"""Examples of each pair that are counted; the rest is scaled up from them."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a number of examples ask of a model."""

    evaluations: int
    tokens: int
    failures: int


def count(
    pair: Pair, examples: Sequence[Example], shard_size: int, *, explain: bool = True
) -> Counts:
    """Return what these examples will ask of the pair's model, deduplicated.

    Args:
        pair: The pair.
        examples: Some of its examples.
        shard_size: Examples a unit: each unit asks for the calibration's texts anew.
        explain: Whether they are explained, or predicted only.
    """
    asked: list[tuple[int, int]] = []

    def score(request: pa.Table) -> pa.Table:
        rows = request.num_rows
        tokens = len(request.column("ids").combine_chunks().flatten())
        asked.append((rows, tokens))
        even = np.full((rows, len(schema.task_of(request).label_ids)), -1.0, dtype=np.float32)
        cost = schema.ScoreCost(0.0, tokens, "counted")
        return schema.score_reply(even, np.zeros(rows, dtype=np.float32), {}, cost)

    def slopes(request: pa.Table) -> pa.Table:
        reply = no_gradients(request) if pair.model.is_fake else even_gradients(request)
        passes = sum(n or 0 for n in reply.column("evaluations").to_pylist())
        asked.append((passes, expected_tokens(request) if passes else 0))
        return reply

    def texts(request: pa.Table) -> pa.Table:
        asked.append((request.num_rows, most_tokens(request)))
        return longest_generations(request)

    failures = 0
    context = _spending_all(pair.context)
    for unit in shard(pair, examples, shard_size, explain=explain):
        result = run_in_process(context, unit, "counted", score, slopes, texts)
        failures += result.tables["failures"].num_rows
    return Counts(sum(rows for rows, _ in asked), sum(tokens for _, tokens in asked), failures)


def planned(plan: Plan) -> dict[str, Counts]:
    """Return what each pair of a plan asks for, whether or not it is stored or done already.

    Explained examples are counted on `SAMPLE` of them and scaled up, but for `failures`.
    """
    explained = [e for e in plan.examples if e.id in plan.explained]
    others = [e for e in plan.examples if e.id not in plan.explained]
    sample = explained[:: max(1, len(explained) // SAMPLE)][:SAMPLE]
    scale = len(explained) / max(len(sample), 1)
    size = plan.config.cluster.shard_size
    found = {}
    for key, pair in plan.pairs.items():
        counts = count(pair, sample, size)
        rest = count(pair, others, max(len(others), 1), explain=False)
        found[key] = Counts(
            int(counts.evaluations * scale) + rest.evaluations,
            int(counts.tokens * scale) + rest.tokens,
            counts.failures,
        )
    return found


def _spending_all(context: StepContext) -> StepContext:
    tasks = tuple(
        replace(task, params={k: v for k, v in task.params.items() if k != "relative_error"})
        for task in context.explainers
    )
    return replace(context, explainers=tasks)


def print_plan(config: SweepConfig, console: Console) -> None:
    """Print the models' families, then pairs with units, evaluations, tokens, estimated time."""
    print_families(config, console)  # first: it has something to say where no model can be had
    prepared = prepare(config)
    data = prepared.data
    plan, missing = prepared.plan()
    folder = RunFolder(run_folder(config))
    folder.check(plan)
    plan = folder.as_cut(plan)
    left = {unit.id for unit in folder.left(plan)}
    explained = [e for e in plan.examples if e.id in plan.explained]
    others = [e for e in plan.examples if e.id not in plan.explained]
    console.print(
        f"{len(data.examples)} examples of {data.n_total} in {config.data.path}"
        + (f" ({data.n_other_labels} with other labels left out)" if data.n_other_labels else "")
        + (f", {len(explained)} of them to be explained" if others else "")
        + "; "
        f"{len(plan.units)} units, {len(plan.units) - len(left)} of them done"
    )
    sample = min(SAMPLE, len(explained))
    table = Table("model and prompt", "units", "evaluations", "tokens", "time")
    for key, counts in planned(plan).items():
        table.add_row(
            key.replace("|none|", "|"),
            str(sum(1 for u in plan.units if u.pair == key)),
            f"{counts.evaluations:,}",
            f"{counts.tokens:,}",
            _duration(counts.tokens, prepared.facts[model_key(plan.pairs[key].model)].parameters),
        )
        if counts.failures:
            console.print(f"{key}: {counts.failures} failures are expected on {sample} examples")
    if config.finetune:
        _print_trainings(prepared, console)
    console.print(table)
    if sample < len(explained):
        console.print(f"Counted on {sample} examples and scaled up to {len(explained)}.")
    console.print(
        "Time: tokens ÷ what this machine's matrix products allow a model of that size, measured "
        "just now; loading, reuse of the template and stored evaluations are not counted."
    )
    warnings = [p.adapter.warning for p in plan.pairs.values() if p.adapter is not None]
    for warning in dict.fromkeys(filter(None, warnings)):
        console.print(f"warning: {warning}", markup=False)
    for failure in data.failures:
        console.print(f"failure: {failure.message}", markup=False)
    for lost in missing:
        console.print(f"failure: {lost.place}: {lost.message}", markup=False)


def _print_trainings(prepared: Prepared, console: Console) -> None:
    """Print what is trained before anything is explained."""
    facts, trainings = prepared.facts, prepared.trainings
    table = Table("adapter", "examples", "steps", "tokens", "time")
    for training in trainings:
        tokens = training.tokens()
        # forward, and backward through frozen weights: twice the products of scoring
        time_ = _duration(2 * tokens, facts[model_key(training.model)].parameters)
        if training.is_done:
            time_ = "trained"
        elif step := training.step_done:
            time_ += f", {step} steps done"
        n_examples = str(len(training.task.data.train))
        table.add_row(training.place, n_examples, str(training.steps), f"{tokens:,}", time_)
    console.print(table)
    if any(training.task.precision == "auto" for training in trainings):
        console.print(
            "What precision auto is on the cluster's devices isn't known here: adapters that are "
            "trained in it may be there already."
        )


def _duration(tokens: int, parameters: int | None) -> str:
    if not parameters:
        return "–"
    seconds = 2.0 * parameters * tokens / _flops()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _flops() -> float:
    """Return this machine's single-precision operations a second in a matrix product."""
    a = np.ones((1024, 1024), dtype=np.float32)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2.0 * 1024**3 / min(times)
