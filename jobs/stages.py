"""The remote functions and the host actor: thin wrappers, Arrow in and Arrow out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray

from actors.host import Host, HostSpec
from cluster.remotes import Remotes, StepHeader, Written
from cluster.resources import STEP_CPUS, WRITE_CPUS
from engine.context import StepContext, Unit
from engine.exchange import HostReply, HostRequest
from engine.results import ResultBatch
from engine.step import Round, StepOutput, failed_unit, step
from engine.store import write_batches, write_stored
from engine.transport import Tables

Body = Sequence[HostRequest | None] | ResultBatch
"""Of a bundle's units: what each asks a host, or all results."""
StepReturn = tuple[StepHeader, Body, Tables]


@ray.remote(num_cpus=STEP_CPUS, num_returns=3, max_retries=3)
def step_task(
    context: StepContext, units: Sequence[Unit], attempt: int, numerics: str, *answered: Any
) -> StepReturn:
    """Run `engine.step.step` on each unit; `answered` alternates lookups and replies by unit."""
    outputs = []
    for number, unit in enumerate(units):
        rounds = [
            Round(lookups[number], reply.scores, reply.gradients, reply.generations)
            for lookups, replies in zip(answered[::2], answered[1::2], strict=True)
            if (reply := replies[number]) is not None
        ]
        outputs.append(step(context, unit, attempt, numerics, rounds))
    return _returned(outputs)


@ray.remote(num_cpus=STEP_CPUS, num_returns=3, max_retries=3)
def give_up_task(
    context: StepContext, unit: Unit, attempt: int, code: str, message: str
) -> StepReturn:
    """Return the failures of a unit that can't be finished."""
    return _returned([StepOutput(None, None, failed_unit(context, unit, attempt, code, message))])


def _returned(outputs: Sequence[StepOutput]) -> StepReturn:
    """Return the results once all units have theirs; a unit that is done early is replayed."""
    results = [output.result for output in outputs if output.result is not None]
    if len(results) == len(outputs):
        batch = ResultBatch.of(results)
        return StepHeader(True, 0, 0, batch.nbytes), batch, Tables()
    requests = [
        None
        if output.request is None
        else HostRequest(output.request, output.gradients, output.generations)
        for output in outputs
    ]
    asked = [request for request in requests if request is not None]
    header = StepHeader(
        False,
        sum(request.sequences for request in asked),
        sum(request.tokens for request in asked),
        sum(request.nbytes for request in asked),
    )
    return header, requests, Tables(output.lookups for output in outputs)


@ray.remote(num_cpus=WRITE_CPUS, max_retries=3)
def write_task(run_dir: str, stem: str, stores: Sequence[str], *batches: ResultBatch) -> Written:
    """Write results and new evaluations; nothing is visible before the driver commits it."""
    # A retry of this task must not write where a half-dead twin still writes.
    stem = f"{stem}-{os.urandom(3).hex()}"
    commits = write_batches(run_dir, stem, batches)
    stored = {}
    for folder in dict.fromkeys(stores):
        of_folder = [b for b, store in zip(batches, stores, strict=True) if store == folder]
        if made := write_stored(folder, stem, of_folder):
            stored[folder] = made
    return Written(commits, stored)


class PinnedHost(Host):
    """A host whose `score` runs on many threads, and which answers `stats` while it computes.

    Args:
        spec: What to load.
        threads: Threads of the model on a CPU; 0 for the node's physical cores divided by
            `per_node`. Ray's own setting follows the logical CPUs, of which a host declares few.
        per_node: Hosts on this node.
    """

    def __init__(self, spec: HostSpec, threads: int, per_node: int) -> None:
        share = threads or max(1, physical_cores() // per_node)
        super().__init__(replace(spec, threads=share))

    def gpu_ids(self) -> list[str]:
        """Return the GPUs that Ray gave this host."""
        return [str(i) for i in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]

    def answer(
        self, requests: Sequence[HostRequest | None]
    ) -> tuple[float, Sequence[HostReply | None]]:
        """Return the seconds spent, for the driver, and the replies, for the next step."""
        waiting = [None if r is None else self.submit(r.scores) for r in requests]
        replies: list[HostReply | None] = []
        for request, scores in zip(requests, waiting, strict=True):
            if request is None or scores is None:
                replies.append(None)
                continue
            slopes = None if request.gradients is None else self.gradients(request.gradients)
            asked = request.generations
            texts = None if asked is None else self.generate(asked)
            replies.append(HostReply(scores.result(), slopes, texts))
        return sum(reply.seconds for reply in replies if reply is not None), replies


# Ray's stubs don't know concurrency groups.
HostActor: Any = ray.remote(concurrency_groups={"score": 64, "control": 4})(PinnedHost)  # type: ignore[call-overload]


def physical_cores() -> int:
    """Return the physical cores this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, allowed or 1))


REMOTES = Remotes(step=step_task, give_up=give_up_task, write=write_task)


def host_arguments(spec: HostSpec, threads: int | None, per_node: int) -> tuple[Any, ...]:
    """Return the constructor's arguments of a `PinnedHost`."""
    return (spec, threads or 0, per_node)
