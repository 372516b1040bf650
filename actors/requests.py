"""Requests on their way through a host: from tables to groups that are scored, and to replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.backend import Scores, SequenceBatch
from actors.batching import continuations
from engine import not_a_number
from engine.ragged import Ragged, concatenate
from engine.schema import ScoreCost, ScoreTask, score_reply, task_of

Rows = npt.NDArray[np.int64]


@dataclass(eq=False, slots=True)
class Pending:
    """A request, the answers it has so far, and who waits for them.

    Attributes:
        examples: Index of each row's example in its unit [S].
        log_probs: Answers [S, L].
        log_z: Answers [S].
        errors: Row -> why it can't be scored.
        missing: Rows without an answer.
        seconds: Its share of the model's time so far.
        tokens_computed: Its share of the computed tokens so far.
    """

    task: ScoreTask
    examples: npt.NDArray[np.int32]
    batch: SequenceBatch
    log_probs: npt.NDArray[np.float32]
    log_z: npt.NDArray[np.float32]
    missing: int
    future: Future[pa.Table] = field(default_factory=Future)
    errors: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    tokens_computed: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt tokens of all rows."""
        return len(self.batch.sequences.flat)

    def fail(self, error: BaseException) -> None:
        """Answer the whole request with an error."""
        if not self.future.done():
            self.future.set_exception(error)

    def refuse(self, errors: Mapping[int, str]) -> None:
        """Answer rows with errors."""
        self.errors.update(errors)
        self.missing -= len(errors)

    def resolve(self, numerics: str) -> None:
        """Hand the reply over once every row has its answer."""
        if self.missing or self.future.done():
            return
        cost = ScoreCost(self.seconds, round(self.tokens_computed), numerics)
        self.future.set_result(score_reply(self.log_probs, self.log_z, self.errors, cost))


class Part(NamedTuple):
    """Rows of one request."""

    request: Pending
    rows: Rows


class Group(NamedTuple):
    """Rows of several requests that are scored together.

    Attributes:
        batch: Their sequences, part after part.
    """

    task: ScoreTask
    parts: list[Part]
    batch: SequenceBatch

    def hand_out(self, scores: Scores, seconds: float) -> None:
        """Give every row its answer; the cost is shared by the length of the sequences."""
        lengths = self.batch.sequences.lengths.astype(np.float64)
        total = max(float(lengths.sum()), 1.0)
        start = 0
        for request, rows in self.parts:
            own = slice(start, start + len(rows))
            start += len(rows)
            request.log_probs[rows] = scores.log_probs[own]
            request.log_z[rows] = scores.log_z[own]
            failed = {
                int(rows[i - own.start]): message
                for i, message in scores.errors.items()
                if own.start <= i < own.stop
            }
            request.errors.update(failed)
            request.missing -= len(rows)
            share = float(lengths[own].sum()) / total
            request.seconds += seconds * share
            request.tokens_computed += scores.tokens_computed * share


def numbers_only(scores: Scores) -> Scores:
    """Return scores with an error in every row whose answer is not a number."""
    rows = np.flatnonzero(not_a_number.no_numbers(scores.log_probs, scores.log_z)).tolist()
    if not rows:
        return scores
    # a row that could not be scored has no meaning but its own error
    return scores._replace(errors=dict.fromkeys(rows, not_a_number.MESSAGE) | dict(scores.errors))


def admit(request: pa.Table) -> Pending:
    """Read a table of `SCORE_REQUEST`.

    Raises:
        ValueError: The task has no label, or a label without tokens.
    """
    task = task_of(request)
    continuations(task.label_ids)  # checks the labels
    hidden = request.column("hidden")
    batch = SequenceBatch(
        Ragged.from_arrow(request.column("ids")),
        None if hidden.null_count == len(hidden) else Ragged.from_arrow(hidden),
    )
    n_rows = request.num_rows
    return Pending(
        task=task,
        examples=request.column("example").to_numpy(),
        batch=batch,
        log_probs=np.full((n_rows, len(task.label_ids)), np.nan, dtype=np.float32),
        log_z=np.full(n_rows, np.nan, dtype=np.float32),
        missing=n_rows,
    )


def groups(requests: Iterable[Pending], adapter: str = "") -> Iterator[Group]:
    """Yield what can be scored together: rows of one task that have no error.

    Where a task asks for batches `by_example`, a group is one example of one request.

    Args:
        requests: In order of arrival.
        adapter: The one that is on: its groups come first, then those of one adapter after another,
            so that adapters are switched as seldom as can be.
    """
    parts: dict[object, list[Part]] = {}
    for order, request in enumerate(requests):
        task = request.task
        rows = np.arange(len(request.examples))
        if request.errors:
            rows = np.setdiff1d(rows, list(request.errors))
        if not task.by_example:
            parts.setdefault((task.label_ids, task.adapter), []).append(Part(request, rows))
            continue
        for example in np.unique(request.examples[rows]).tolist():
            own = rows[request.examples[rows] == example]
            parts[task.label_ids, task.adapter, order, example] = [Part(request, own)]
    ready = [found for own in parts.values() if (found := [part for part in own if len(part.rows)])]
    turns = dict.fromkeys([adapter, *(found[0].request.task.adapter for found in ready)])
    rank = {name: turn for turn, name in enumerate(turns)}
    for found in sorted(ready, key=lambda found: rank[found[0].request.task.adapter]):
        yield Group(found[0].request.task, found, join(found))


def join(parts: Sequence[Part]) -> SequenceBatch:
    """Return the sequences of all parts, in order."""
    taken = [part.request.batch.take(part.rows) for part in parts]
    sequences = concatenate([batch.sequences for batch in taken])
    if all(batch.hidden is None for batch in taken):
        return SequenceBatch(sequences, None)
    none = [Ragged.of([[]] * batch.n_rows) for batch in taken]
    hidden = [
        empty if batch.hidden is None else batch.hidden
        for batch, empty in zip(taken, none, strict=True)
    ]
    return SequenceBatch(sequences, concatenate(hidden))
