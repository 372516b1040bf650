"""Fine-tuning as a job: `python -m jobs.finetune sweep.yaml`, the same as `rayxai finetune`.

`rayxai run` trains what is missing before it plans; this trains and does nothing else. Exit codes:
0 all trained, 2 some failed, 3 aborted.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from actors.trainer import read_card, read_progress, train_adapter
from actors.training_lock import HeldError
from cluster.faults import FaultKind, classify
from cluster.resources import HOST_CPUS, lay_out
from cluster.session import ClusterError, ray_session
from engine.config import SweepConfig
from engine.errors import ConfigError
from engine.facts import Lost
from engine.plan import UNFIT
from engine.training import TrainingTask
from jobs.auto_precision import auto_there
from jobs.codes import DONE, SOME_FAILED
from jobs.facts import refused_adapters
from jobs.prepared import Prepared, prepare
from jobs.progress import TrainingProgress
from jobs.stages import physical_cores
from jobs.training_plan import Training

POLL_SECONDS = 1.0


# a worker of its own: what a training took of memory, on a GPU too, goes with it
@ray.remote(num_cpus=HOST_CPUS, max_calls=1)
def train_task(
    task: TrainingTask, folder: str, threads: int, per_node: int, wait: bool
) -> dict[str, Any] | str:
    """Train one adapter; a retry goes on at the last checkpoint.

    Returns:
        Its card; or who else trains it, where that isn't to be waited for.
    """
    share = threads or max(1, physical_cores() // per_node)
    try:
        return train_adapter(task, Path(folder), share, wait=wait)
    except HeldError as error:
        return error.holder


def train_all(
    config: SweepConfig, trainings: Sequence[Training], console: Console
) -> dict[str, str]:
    """Train what isn't trained yet, as many at a time as the sweep has hosts.

    Each takes a host's place: its GPU share, or its threads.

    Returns:
        Fingerprint -> why it failed, for those that did.

    Raises:
        ClusterError: Ray can't be reached, or has not what is wanted.
    """
    waiting = deque({t.fingerprint: t for t in trainings if not t.is_done}.values())
    held: set[str] = set()  # by other processes: last, so that they keep no place from the others
    failed: dict[str, str] = {}
    if not waiting:
        return failed
    wanted = config.cluster
    with (
        ray_session(wanted.address, wanted.num_cpus) as offered,
        TrainingProgress(console) as progress,
    ):
        layout = lay_out(offered, wanted)
        remote = train_task.options(
            num_gpus=layout.gpus,
            max_retries=wanted.attempts - 1,
            scheduling_strategy="DEFAULT" if layout.gpus else "SPREAD",
        )
        running: dict[Any, Training] = {}
        while waiting or running:
            while waiting and len(running) < layout.hosts:
                training = waiting.popleft()
                wait = training.fingerprint in held
                if not wait:
                    console.print(f"Training {training.place}: {_extent(training)}")
                place = (str(training.folder), wanted.threads or 0, layout.per_node)
                running[remote.remote(training.task, *place, wait)] = training
            done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for ref in done:
                training = running.pop(ref)
                progress.end(training.place)
                try:
                    card = ray.get(ref)
                    if isinstance(card, str):
                        console.print(f"{training.place} is trained by {card}: waiting for it")
                        held.add(training.fingerprint)
                        waiting.append(training)
                        continue
                    console.print(f"Trained {training.place}: {_outcome(card)}")
                except ray.exceptions.RayError as error:
                    fault = classify(error)
                    if fault.kind is FaultKind.ABORT:
                        raise ClusterError(fault.message) from None
                    failed[training.fingerprint] = fault.message
                    console.print(
                        f"failure: {training.place}: {fault.message}", style="red", markup=False
                    )
            for training in running.values():
                progress.update(training.place, read_progress(training.folder))
    return failed


def _extent(training: Training) -> str:
    data, step = training.task.data, training.step_done
    if read_card(training.folder) is not None:
        return "the adapter in the store is damaged and is trained again"
    begins = f", goes on at step {step}" if step else ""
    return f"{len(data.train)} examples, {training.steps} steps{begins}"


def _outcome(card: dict[str, Any]) -> str:
    curve = card["curves"]["loss"]
    loss = f"loss {curve[0]['loss']:.3f} to {curve[-1]['loss']:.3f}" if curve else "no loss"
    checked = card["validation"]
    accuracy = f", validation accuracy {checked['accuracy']:.3f}" if checked else ""
    rate = card["tokens"] / max(card["seconds"], 1e-9)
    return (
        f"{loss}{accuracy}, {card['steps']} steps in {card['seconds']:.0f} s ({rate:,.0f} tokens/s)"
    )


def _untrainable(prepared: Prepared) -> list[Lost]:
    """Return models and adapters that can't be had and would have been trained."""
    wanting = {
        (model.label, model.precision)
        for model in prepared.config.models
        if any(wanted.finetune for wanted in prepared.config.wanted_adapters(model))
    }
    return [
        each
        for each in prepared.lost
        if (each.model, each.precision) in wanting and (not each.adapter or each.code == UNFIT)
    ]


def finetune(config: SweepConfig, console: Console) -> int:
    """Train the adapters that a sweep wants and print where they are.

    Raises:
        RayxaiError: Nothing can be trained.
    """
    prepared = prepare(config, auto_there)
    trainings, lost = prepared.trainings, _untrainable(prepared)
    for each in lost:
        console.print(f"failure: {each.place}: {each.message}", style="red", markup=False)
    if not trainings and lost:
        raise ConfigError("none of the adapters can be trained")
    if not trainings:
        refused = [why for m in config.models for why in refused_adapters(config, m).values()]
        raise ConfigError(
            "\n".join(refused)
            or "no model has an adapter `finetune: NAME` of an entry of `finetune`: there is "
            "nothing to train"
        )
    failed = train_all(config, trainings, console)
    table = Table("model", "adapter", "examples", "steps", "validation", "folder")
    for training in trainings:
        card = read_card(training.folder)
        name = f"{training.model.label}/{training.model.precision}"
        if card is None:
            table.add_row(name, training.adapter, "–", "–", "–", "not trained")
            continue
        checked = card["validation"]
        table.add_row(
            name,
            training.adapter,
            str(card["data"]["trained_on"]),
            str(card["kept_step"]),
            f"{checked['accuracy']:.3f}" if checked else "–",
            str(training.folder),
        )
    console.print(table)
    return SOME_FAILED if failed or lost else DONE


def main() -> None:
    """Run `rayxai finetune` with this process's arguments."""
    from jobs.cli import app

    app(["finetune", *sys.argv[1:]])


if __name__ == "__main__":
    main()
