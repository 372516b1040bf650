"""A guest moved on as far as the answers go: from where it stands, or from its start.

A guest is taken for a function of its inputs and of the values it is answered with. A stack that
stands here is used only if the values it was answered with are those known now; otherwise, and
where there is none, the guest is run again on the answers so far.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.errors import ExampleError
from engine.guests.parking import PARKED
from engine.guests.stack import Body, Stack
from engine.types import BoolCF, FloatCL

Answer = Callable[[BoolCF], FloatCL | None]
"""Rows [n, width] -> their values [n, L], or None where one is not known yet."""


def advance(
    key: str,
    body: Body,
    seed: int,
    answer: Answer,
    earlier: Callable[[], set[bytes]],
    limit: int,
) -> Stack:
    """Return the guest's stack, ended or at a query that is not answered yet.

    Args:
        key: Of everything the guest is given but values.
        body: Runs the guest.
        seed: Of the global generators.
        answer: The values known now.
        earlier: Returns the keys of the rows the guest asked for in the rounds so far.
        limit: Most distinct rows it may ask for.

    Raises:
        ExampleError: The guest failed, asked for too much, or for other rows than before.
    """
    stack = PARKED.take(key)
    if stack is not None and not _agrees(stack, answer):
        stack.close()
        stack = None
    unseen: set[bytes] = set()
    if stack is None:
        unseen = earlier()
        stack = Stack(body, seed)
        stack.start()
    while stack.pending is not None:
        if len(stack.asked) > limit:
            stack.fail(_too_many(len(stack.asked), limit))
        else:
            values = answer(stack.pending.rows)
            if values is None:
                break
            stack.resume(values)
    if stack.failure is None and not unseen <= stack.asked.keys():
        stack.fail(_other_rows())
    PARKED.put(key, stack)
    if stack.failure is not None:
        raise ExampleError(stack.failure.code, str(stack.failure))
    return stack


def _agrees(stack: Stack, answer: Answer) -> bool:
    for rows, values in stack.calls:
        now = answer(rows)
        if now is None or not np.array_equal(now, values):
            return False
    return True


def _too_many(asked: int, limit: int) -> ExampleError:
    return ExampleError(
        "max_evaluations",
        f"the guest asked for {asked:,} distinct evaluations, the limit is {limit:,}: lower its "
        "number of samples or raise `max_evaluations`",
    )


def _other_rows() -> ExampleError:
    return ExampleError(
        "not_deterministic",
        "the guest is not deterministic: run again on the same answers, it asked for other "
        "evaluations; let it draw from the global generators or from its parameter `seed`",
    )
