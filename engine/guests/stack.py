"""A guest's call on a thread of its own, which stops wherever the guest asks for values."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from engine.errors import ExampleError
from engine.guests.random_state import GlobalRandom, seed_all
from engine.pool import keys
from engine.types import BoolCF, FloatCL

_TURN = threading.Lock()
"""One guest of a process runs at a time: they share the global generators."""


class Query(NamedTuple):
    """What a guest asks for.

    Attributes:
        rows: One a value wanted, with repeats [n, width].
        texts: What the rows stand for, or None where they are coalitions.
    """

    rows: BoolCF
    texts: tuple[str, ...] | None


Body: TypeAlias = Callable[[Callable[[Query], FloatCL]], Any]
"""Runs the guest: gets `ask`, which blocks until its values [n, L] are there."""


class _Closed(BaseException):
    """Unwinds the stack of a guest nobody waits for any more."""


class _Asked(NamedTuple):
    query: Query


class _Returned(NamedTuple):
    result: Any


class _Raised(NamedTuple):
    error: BaseException


class Stack:
    """A guest that runs while somebody waits in `resume`, and stands still otherwise.

    Args:
        body: Runs the guest.
        seed: Of the global generators, which the guest finds as it left them at each resumption.

    Attributes:
        pending: The query it stands at, or None before the start and after the end.
        ended: It has returned or failed.
        result: What it returned.
        failure: Why it failed, or None.
        calls: Rows and values of its answered calls, in order.
        asked: Keys of all rows it asked for.
        seconds: It has run.
    """

    def __init__(self, body: Body, seed: int) -> None:
        self._body = body
        self._seed = seed
        self._random: GlobalRandom | None = None
        self._events: queue.SimpleQueue[_Asked | _Returned | _Raised] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[FloatCL | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="guest", daemon=True)
        self.pending: Query | None = None
        self.ended = False
        self.result: Any = None
        self.failure: ExampleError | None = None
        self.calls: list[tuple[BoolCF, FloatCL]] = []
        self.asked: dict[bytes, None] = {}
        self.seconds = 0.0

    def start(self) -> None:
        """Run the guest to its first query or its end."""
        self._take_turn(self._thread.start)

    def resume(self, values: FloatCL) -> None:
        """Answer the pending query with values [n, L] and run to the next or to the end."""
        assert self.pending is not None
        self.calls.append((self.pending.rows, values))
        self.pending = None
        # a copy: a guest may write into what it was given
        self._take_turn(lambda: self._answers.put(values.copy()))

    def fail(self, error: ExampleError) -> None:
        """End the guest: what it asks can't be answered."""
        self.close()
        self.failure, self.pending, self.ended = error, None, True

    def close(self) -> None:
        """Unwind the guest's stack, if it stands; does not wait for it."""
        if self.pending is not None and not self._closed:
            self._closed = True
            self._answers.put(None)

    def _take_turn(self, go: Callable[[], None]) -> None:
        with _TURN:
            started = time.perf_counter()
            outside = GlobalRandom.capture()
            if self._random is None:
                seed_all(self._seed)
            else:
                self._random.restore()
            try:
                go()
                event = self._events.get()
                self._random = GlobalRandom.capture()
            finally:
                outside.restore()
                self.seconds += time.perf_counter() - started
        if isinstance(event, _Asked):
            self.pending = event.query
            self.asked.update(dict.fromkeys(keys(event.query.rows)))
            return
        self.ended = True
        if isinstance(event, _Returned):
            self.result = event.result
        elif isinstance(event.error, ExampleError):
            self.failure = event.error
        else:
            kind = type(event.error).__name__
            self.failure = ExampleError("guest_failed", f"the guest failed: {kind}: {event.error}")

    def _run(self) -> None:
        try:
            result = self._body(self._ask)
        except _Closed:
            return
        except BaseException as error:  # whatever ends the guest must not leave a step waiting
            self._events.put(_Raised(error))
        else:
            self._events.put(_Returned(result))

    def _ask(self, query: Query) -> FloatCL:
        if self._closed:  # the guest caught what was to unwind it
            raise _Closed
        self._events.put(_Asked(query))
        values = self._answers.get()
        if values is None:
            raise _Closed
        return values
