"""`rayxai explain`: one text, in this process, without Ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from actors.host import Host
from analysis.heatmap import explanation_json, print_explanation
from engine.config import SweepConfig, apply_overrides, load_config, parse_config
from engine.context import Unit
from engine.errors import ConfigError, ModelError
from engine.explainers import method_names, parameters
from engine.guests.names import is_guest
from engine.plan import Plan, build_plan
from engine.step import run_in_process
from engine.types import Example
from jobs.facts import facts_of, host_spec
from jobs.stages import physical_cores

DEFAULT: dict[str, Any] = {
    "models": ["HuggingFaceTB/SmolLM2-135M-Instruct"],
    "data": {"path": "bundled:reviews"},
    "prompt": {
        "name": "review",
        "template": "Review: {text}\nSentiment:",
        "labels": {"negative": " negative", "positive": " positive"},
    },
    "explainers": [],
    "metrics": {"faithfulness": False},
}
"""What is explained with if no sweep is named."""

SAMPLES = 256
"""Samples where the command line names none: seconds on a laptop, where the methods' own defaults
take minutes."""


def explain_text(
    text: str,
    explainer: str,
    *,
    config: Path | None,
    model: str | None,
    samples: int | None,
    overrides: Sequence[str],
    as_json: bool,
    console: Console,
) -> int:
    """Print the explanation of one text; return the exit code.

    Args:
        text: The text; it stands in for the first input of the prompt.
        explainer: A method.
        config: A sweep whose first model and prompt are used, or None for SmolLM2 on reviews.
        model: In place of the sweep's.
        samples: `num_samples` of the method.
        overrides: `k=v` changes of the configuration.
        as_json: Print JSON.
        console: Where to print.
    """
    sweep = _sweep(explainer, config, model, samples, overrides)
    plan, unit = _plan(sweep, text)
    pair = plan.pairs[unit.pair]
    adapters = [] if pair.adapter is None else [pair.adapter]
    host = Host(replace(host_spec(pair.model, adapters=adapters), threads=physical_cores()))
    try:
        info = host.load()
        result = run_in_process(
            pair.context, unit, info.numerics, host.score, host.gradients, host.generate
        )
    finally:
        host.stop()
    failures = result.tables["failures"].to_pylist()
    for row in failures:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {row['message']}", style="red", markup=False
        )
    predictions = result.tables["predictions"].to_pylist()
    attributions = result.tables["attributions"].to_pylist()
    if not predictions or not attributions:
        return 2
    if as_json:
        document = explanation_json(predictions[0], attributions[0])
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    else:
        print_explanation(console, predictions[0], attributions[0])
    return 0


def _sweep(
    explainer: str,
    config: Path | None,
    model: str | None,
    samples: int | None,
    overrides: Sequence[str],
) -> SweepConfig:
    spec: dict[str, Any] = {"name": explainer}
    if explainer in method_names() and "num_samples" in parameters(explainer):
        spec["num_samples"] = samples or SAMPLES
    elif samples is not None and is_guest(explainer):
        raise ConfigError("--samples: guests name it otherwise; use --set explainers.0.KEY=NUMBER")
    elif samples is not None and explainer in method_names():
        raise ConfigError(f"--samples: {explainer} has no number of samples")
    changes = [f"explainers={json.dumps([spec])}", "metrics.faithfulness=false"]
    if model is not None:
        changes.append(f"models={json.dumps([{'path': model}])}")
    # --set comes last, so that it can name what the other options brought
    changes += overrides
    if config is not None:
        return load_config(config, changes)
    return parse_config(apply_overrides(json.loads(json.dumps(DEFAULT)), changes), "explain")


def _plan(sweep: SweepConfig, text: str) -> tuple[Plan, Unit]:
    inputs = list(sweep.data.inputs)
    if len(inputs) != 1:
        raise ConfigError(f"explain takes one text, but the prompt has the inputs {inputs}")
    example = Example("text", {inputs[0]: text})
    sweep = sweep.model_copy(update={"models": sweep.models[:1], "prompts": sweep.prompts[:1]})
    facts, lost = facts_of(sweep)
    plan = build_plan(sweep, [example], facts, "store")
    if not plan.units:
        trained = "the sweep trains its adapters: name one by --set models.0.adapters=[FOLDER]"
        raise ModelError("\n".join(each.message for each in lost) or trained)
    return plan, plan.units[0]
