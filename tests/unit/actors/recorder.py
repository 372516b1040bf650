"""A backend that answers with functions of the ids and writes down what it is asked."""

from __future__ import annotations

import threading

import numpy as np

from actors.backend import HostInfo, Scores, SequenceBatch
from actors.batching import ScoreSequence
from engine.errors import ModelError
from engine.ragged import Ragged
from engine.schema import ScoreTask

INFO = HostInfo("m", "w", 1, 1, 0.0, "cpu", "s", "digest", "text", None)


def batch_of(*rows: tuple[int, ...] | ScoreSequence) -> SequenceBatch:
    """Return prompts as a batch; rows with hidden positions come as `ScoreSequence`."""
    many = [row if isinstance(row, ScoreSequence) else ScoreSequence(tuple(row)) for row in rows]
    hidden = Ragged.of([row.hidden for row in many]) if any(row.hidden for row in many) else None
    return SequenceBatch(Ragged.of([row.ids for row in many]), hidden)


def rows_of(batch: SequenceBatch) -> list[ScoreSequence]:
    """Return the prompts of a batch one by one."""
    hidden = batch.hidden.to_lists() if batch.hidden is not None else [[]] * batch.n_rows
    return [
        ScoreSequence(tuple(ids), tuple(off))
        for ids, off in zip(batch.sequences.to_lists(), hidden, strict=True)
    ]


def sums(rows: list[ScoreSequence]) -> np.ndarray:
    """Return the answer's log Z: the sum of the ids, 100 less for each hidden position."""
    return np.array([sum(s.ids) - 100 * len(s.hidden) for s in rows], dtype=np.float32)


class Recorder:
    """Waits in `score` when told to, fails on tokens in `broken`, errs on those in `wrong`.

    Answers what is not a number to those in `overflows`.
    """

    def __init__(self) -> None:
        self.groups: list[list[ScoreSequence]] = []
        self.tasks: list[ScoreTask] = []
        self.threads: set[int] = set()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.broken: set[int] = set()
        self.wrong: set[int] = set()
        self.overflows: set[int] = set()

    def load(self) -> HostInfo:
        self.threads.add(threading.get_ident())
        return INFO

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        self.threads.add(threading.get_ident())
        if task.adapter == "unknown":
            raise ModelError("no adapters here")
        empty = np.flatnonzero(batch.sequences.lengths == 0)
        return dict.fromkeys(empty.tolist(), "the prompt is empty")

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.go_on.wait(30)
        rows = rows_of(batch)
        if any(self.broken & set(row.ids) for row in rows):
            raise RuntimeError("device lost")
        self.groups.append(rows)
        self.tasks.append(task)
        log_z = sums(rows)
        log_probs = np.stack([-log_z - label[0] for label in task.label_ids], axis=1)
        for i, row in enumerate(rows):
            if self.overflows & set(row.ids):
                log_probs[i, -1] = np.nan
        errors = {i: "too wrong" for i, row in enumerate(rows) if self.wrong & set(row.ids)}
        tokens = len(batch.sequences.flat)
        return Scores(log_probs, log_z, tokens, tokens - 1, len(rows), errors)
