"""Requests on their way through a host: from tables to batches and back to replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from actors.backend import Scores
from actors.batching import (
    Ids,
    ScoreSequence,
    by_length,
    continuations,
    dedupe,
    shared_prefix,
    token_batches,
    tokens_to_run,
)
from engine.schema import ScoreCost, ScoreTask, score_reply, task_of


@dataclass(eq=False, slots=True)
class Pending:
    """A request, the answers it has so far, and who waits for them.

    Attributes:
        missing: Rows without an answer.
        seconds: Its share of the model's time so far.
        tokens_computed: Its share of the computed tokens so far.
    """

    task: ScoreTask
    examples: list[int]
    sequences: list[ScoreSequence]
    continuations: list[Ids]
    tokens: int
    future: Future[pa.Table] = field(default_factory=Future)
    log_probs: list[Sequence[float] | None] = field(default_factory=list)
    log_z: list[float | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    missing: int = 0
    seconds: float = 0.0
    tokens_computed: float = 0.0

    def fail(self, error: BaseException) -> None:
        """Answer the whole request with an error."""
        if not self.future.done():
            self.future.set_exception(error)

    def refuse(self, row: int, message: str) -> None:
        """Answer one row with an error."""
        self.errors[row] = message
        self.missing -= 1

    def resolve(self, numerics: str) -> None:
        """Hand the reply over once every row has its answer."""
        if self.missing or self.future.done():
            return
        cost = ScoreCost(self.seconds, round(self.tokens_computed), numerics)
        self.future.set_result(score_reply(self.log_probs, self.log_z, self.errors, cost))


class Row(NamedTuple):
    """A row of a request."""

    request: Pending
    place: int


class Batch(NamedTuple):
    """Distinct sequences of one task, and the rows that wait for each.

    Attributes:
        prefix: Number of first tokens that all sequences share with those they go with.
    """

    task: ScoreTask
    sequences: list[ScoreSequence]
    rows: list[list[Row]]
    prefix: int

    def part(self, indices: Iterable[int]) -> Batch:
        """Return a batch of some of the sequences."""
        chosen = list(indices)
        return self._replace(
            sequences=[self.sequences[i] for i in chosen], rows=[self.rows[i] for i in chosen]
        )

    def requests(self) -> list[Pending]:
        """Return the requests that wait for this batch, each once."""
        return list(dict.fromkeys(row.request for rows in self.rows for row in rows))


def admit(request: pa.Table) -> Pending:
    """Read a table of `SCORE_REQUEST`.

    Raises:
        ValueError: The task has no label, or a label without tokens.
    """
    task = task_of(request)
    columns = (request.column(name).to_pylist() for name in ("ids", "hidden"))
    sequences = [
        ScoreSequence(tuple(ids), tuple(sorted(hidden or ())))
        for ids, hidden in zip(*columns, strict=True)
    ]
    n_rows = len(sequences)
    return Pending(
        task=task,
        examples=request.column("example").to_pylist(),
        sequences=sequences,
        continuations=continuations(task.label_ids),
        tokens=sum(len(sequence.ids) for sequence in sequences),
        log_probs=[None] * n_rows,
        log_z=[None] * n_rows,
        errors=[None] * n_rows,
        missing=n_rows,
    )


def pack(requests: Iterable[Pending], batch_tokens: int) -> Iterator[Batch]:
    """Yield the batches of all rows that have no error, from short to long within a task.

    Requests of one task are packed together and equal sequences run once, except where a task
    asks for batches `by_example`: these hold one example of one request.
    """
    rows_by_key: dict[object, list[Row]] = {}
    for order, request in enumerate(requests):
        task = request.task
        for index, example in enumerate(request.examples):
            if request.errors[index] is None:
                alone = (order, example) if task.by_example else None
                key = (task.label_ids, task.adapter, alone)
                rows_by_key.setdefault(key, []).append(Row(request, index))
    for rows in rows_by_key.values():
        yield from _cut(_gather(rows), rows[0].request.continuations, batch_tokens)


def _gather(rows: Sequence[Row]) -> Batch:
    sequences, places = dedupe([request.sequences[index] for request, index in rows])
    waiting: list[list[Row]] = [[] for _ in sequences]
    for row, place in zip(rows, places, strict=True):
        waiting[place].append(row)
    return Batch(rows[0].request.task, sequences, waiting, shared_prefix(sequences))


def _cut(group: Batch, conts: Sequence[Ids], batch_tokens: int) -> Iterator[Batch]:
    order = by_length(group.sequences)
    sizes = [tokens_to_run(len(group.sequences[i].ids) - group.prefix, conts) for i in order]
    for batch in token_batches(sizes, batch_tokens):
        yield group.part(order[batch.start : batch.stop])


def hand_out(batch: Batch, scores: Scores, seconds: float) -> None:
    """Give every waiting row its answer and its share of the cost.

    A batch's cost is shared by length, and a sequence's equally by the rows that asked for it.
    """
    total = sum(len(sequence.ids) for sequence in batch.sequences)
    answers = zip(
        batch.sequences, batch.rows, scores.log_probs.tolist(), scores.log_z.tolist(), strict=True
    )
    for sequence, rows, log_probs, log_z in answers:
        share = len(sequence.ids) / total / len(rows)
        for request, index in rows:
            request.log_probs[index] = log_probs
            request.log_z[index] = log_z
            request.missing -= 1
            request.seconds += seconds * share
            request.tokens_computed += scores.tokens_computed * share
