"""The third kind of question to a host: how the model itself would go on after a prompt.

A step asks for one row an example, before it can ask for any score; the answer comes back under the
row's key.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from engine.schema import ScoreTask, task_of


@dataclass(frozen=True, slots=True)
class GenerationAsk:
    """One row: the greedy continuation of one prompt.

    Attributes:
        key: Who asks: the digest of the example's input texts; comes back with the answer.
        ids: Tokens of the full prompt [T].
        max_new_tokens: Most tokens of the continuation.
    """

    key: str
    ids: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationAnswer:
    """The answer to one row.

    Attributes:
        ids: The likeliest token after the prompt, the likeliest after that, and so on, until the
            model would end its text or `max_new_tokens` are reached. The token that ends a text is
            no part of it, so that there may be no token at all.
        tokens: Tokens that went through the model.
        seconds: Time in the model.
    """

    ids: tuple[int, ...]
    tokens: int
    seconds: float = 0.0


class Generations:
    """Answers by key, and why the others have none."""

    def __init__(self) -> None:
        self._answers: dict[str, GenerationAnswer] = {}
        self._errors: dict[str, str] = {}

    def get(self, key: str) -> GenerationAnswer | None:
        """Return the answer to a row, or None where there is none yet."""
        return self._answers.get(key)

    def error(self, key: str) -> str | None:
        """Return why a row could not be answered, or None."""
        return self._errors.get(key)

    def add(self, reply: pa.Table) -> None:
        """Add a table of `GENERATION_REPLY`."""
        for row in reply.to_pylist():
            if row["error"] is not None:
                self._errors[row["key"]] = row["error"]
            else:
                answer = GenerationAnswer(tuple(row["ids"]), row["tokens"], row["seconds"])
                self._answers[row["key"]] = answer


GENERATION_REQUEST = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        pa.field("max_new_tokens", pa.int32(), nullable=False),
    ]
)
"""Rows of `GenerationAsk`, with a `ScoreTask` without labels in the metadata."""

GENERATION_REPLY = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.int32())),  # null where error
        pa.field("tokens", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("error", pa.string()),  # why this row could not be answered, or null
    ]
)
"""Rows of `GenerationAnswer`, in the order of the request."""


def generation_request(asks: Iterable[GenerationAsk], task: ScoreTask) -> pa.Table:
    """Return a request table, the task in its metadata."""
    table = pa.Table.from_pylist([dataclasses.asdict(ask) for ask in asks], GENERATION_REQUEST)
    return table.replace_schema_metadata({"task": json.dumps(dataclasses.asdict(task))})


def read_generation_request(request: pa.Table) -> tuple[list[GenerationAsk], ScoreTask]:
    """Return the rows of a request and its task."""
    asks = [GenerationAsk(**{**row, "ids": tuple(row["ids"])}) for row in request.to_pylist()]
    return asks, task_of(request)


def generation_reply(keys: Sequence[str], answers: Sequence[GenerationAnswer | str]) -> pa.Table:
    """Return a reply table.

    Args:
        keys: Of the request's rows.
        answers: The answer to each row, or why it has none.
    """
    rows = [
        {"key": key, "error": answer}
        if isinstance(answer, str)
        else {"key": key, **dataclasses.asdict(answer)}
        for key, answer in zip(keys, answers, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GENERATION_REPLY)


def no_generations(request: pa.Table) -> pa.Table:
    """Answer every row with an error: for hosts that only score."""
    keys = request.column("key").to_pylist()
    return generation_reply(keys, ["this host only scores and generates no text"] * len(keys))


def longest_generations(request: pa.Table) -> pa.Table:
    """Answer every row with as many tokens as it may have: to count what would be asked."""
    asks, _ = read_generation_request(request)
    answers = [
        GenerationAnswer((0,) * ask.max_new_tokens, len(ask.ids) + ask.max_new_tokens)
        for ask in asks
    ]
    return generation_reply([ask.key for ask in asks], answers)


def most_tokens(request: pa.Table) -> int:
    """Return how many tokens a request costs if no continuation ends early."""
    asks, _ = read_generation_request(request)
    return sum(len(ask.ids) + ask.max_new_tokens for ask in asks)
