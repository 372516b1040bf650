"""The queue in front of a model: many callers wait, one thread packs and scores."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import pyarrow as pa

from actors.backend import AdapterBackend, Backend, HostInfo, HostStats
from actors.memory import ScoreMemory
from actors.requests import Group, Pending, admit, groups, numbers_only

T = TypeVar("T")

ADMIT_TOKENS = 65_536
"""Prompt tokens taken from the queue at a time: large enough to sort and deduplicate across
requests, small enough that a request that comes later doesn't wait long for its turn."""


REMEMBER = 1_000_000
"""Answers a host keeps; some 50 MB with two labels."""


class AdmissionQueue:
    """Hands waiting requests to a model together, on a thread of its own.

    The thread loads the model and is the only one to call it: OpenMP keeps its number of threads
    per thread, so a model loaded here and called there would run on the wrong number.

    Args:
        backend: The model.
        admit_tokens: Prompt tokens taken from the queue at a time; at least one request is.
        remember: Most answers kept for prompts that come again; 0 for none.
    """

    def __init__(
        self, backend: Backend, admit_tokens: int = ADMIT_TOKENS, remember: int = REMEMBER
    ) -> None:
        self._backend = backend
        self._memory = ScoreMemory(remember)
        self._admit_tokens = admit_tokens
        self._waiting: deque[Pending] = deque()
        self._current: list[Pending] = []
        self._calls: deque[tuple[str, Callable[[], Any], Future[Any]]] = deque()
        self._adapter = ""  # asked for last: what has the same comes first
        self._changed = threading.Condition()
        self._stopped = False
        self._stats = HostStats()
        self._loaded: Future[HostInfo] = Future()
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)

    def start(self) -> HostInfo:
        """Load the model on the scorer's thread and return what it is; call once.

        Raises:
            ModelError: The model can't be loaded.
        """
        self._thread.start()
        return self._loaded.result()

    def score(self, request: pa.Table) -> pa.Table:
        """Return the reply to a table of `SCORE_REQUEST`, blocking until it is there.

        Raises:
            ValueError: The task has no label, or a label without tokens.
            RuntimeError: The queue has been stopped.
        """
        return self.submit(request).result()

    def submit(self, request: pa.Table) -> Future[pa.Table]:
        """Queue a table of `SCORE_REQUEST` and return its reply to come.

        Raises:
            ValueError: The task has no label, or a label without tokens.
            RuntimeError: The queue has been stopped.
        """
        pending = admit(request)
        with self._changed:
            if self._stopped:
                raise RuntimeError("the host has been stopped; send the request to another host")
            self._waiting.append(pending)
            self._changed.notify()
        return pending.future

    def run(self, function: Callable[[], T], adapter: str = "") -> Future[T]:
        """Call a function on the scorer's thread, between two requests' batches.

        Args:
            function: Touches the model; may raise, which its caller then sees.
            adapter: The one that it switches on.

        Returns:
            Its result, once it was called.

        Raises:
            RuntimeError: The queue has been stopped.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._stopped:
                raise RuntimeError("the host has been stopped; send the request to another host")
            self._calls.append((adapter, function, future))
            self._changed.notify()
        return future

    def stats(self) -> HostStats:
        """Return the counters; never blocks on the model."""
        with self._changed:
            unanswered = [r for r in (*self._current, *self._waiting) if not r.future.done()]
            stats = self._stats._replace(
                queue_depth=len(unanswered), queue_tokens=sum(r.tokens for r in unanswered)
            )
        if isinstance(self._backend, AdapterBackend):
            stats = stats._replace(**self._backend.swap_counts()._asdict())
        return stats

    def stop(self) -> None:
        """End the thread after the batch it is in; requests without an answer fail."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        failure: BaseException = RuntimeError("the host was stopped before it could answer")
        try:
            info = self._backend.load()
            self._loaded.set_result(info)
            while self._take():
                self._call()
                self._serve(info.numerics)
        except BaseException as error:  # whatever ends this thread must not leave a caller waiting
            failure = error
        with self._changed:
            self._stopped = True
            for request in (*self._current, *self._waiting):
                request.fail(failure)
            for *_, future in self._calls:
                future.set_exception(failure)
            self._calls.clear()
            self._current = []
            self._waiting.clear()
        if not self._loaded.done():
            self._loaded.set_exception(failure)

    def _take(self) -> bool:
        """Wait for requests and take them in order of arrival; False when stopped."""
        with self._changed:
            while not (self._waiting or self._calls or self._stopped):
                self._changed.wait()
            if self._stopped:
                return False
            self._current, tokens = [], 0
            while self._waiting and (not self._current or tokens < self._admit_tokens):
                self._current.append(self._waiting.popleft())
                tokens += self._current[-1].tokens
            self._count(
                requests=len(self._current),
                sequences=sum(request.batch.n_rows for request in self._current),
                tokens_asked=tokens,
            )
            return True

    def _call(self) -> None:
        """Make the call that has waited longest, of those with the adapter that is on if any."""
        with self._changed:
            if not self._calls:
                return
            same = (i for i, (adapter, *_) in enumerate(self._calls) if adapter == self._adapter)
            place = next(same, 0)
            self._adapter, function, future = self._calls[place]
            del self._calls[place]
        started = time.perf_counter()
        try:
            future.set_result(function())
        except Exception as error:  # its caller's, not the queue's
            future.set_exception(error)
        self._count(busy_seconds=time.perf_counter() - started)

    def _serve(self, numerics: str) -> None:
        for request in self._current:
            self._check(request)
        open_requests = [request for request in self._current if not request.future.done()]
        for group in groups(open_requests, self._adapter):
            if self._stopped:
                return
            self._adapter = group.task.adapter
            self._score(group)
            for part in group.parts:
                part.request.resolve(numerics)
        for request in open_requests:  # those without a row that could be scored
            request.resolve(numerics)

    def _check(self, request: Pending) -> None:
        try:
            request.refuse(self._backend.check(request.batch, request.task))
        except Exception as error:  # not a row but the task is wrong: its caller is told
            request.fail(error)

    def _score(self, group: Group) -> None:
        """Score a group; its failure fails its requests only."""
        if all(part.request.future.done() for part in group.parts):
            return
        started = time.perf_counter()
        try:
            scores, remembered = self._memory.score(self._backend, group.batch, group.task)
        except Exception as error:
            for part in group.parts:
                part.request.fail(error)
            return
        seconds = time.perf_counter() - started
        group.hand_out(numbers_only(scores), seconds)
        self._count(
            sequences_computed=scores.sequences_computed,
            sequences_remembered=remembered,
            tokens_computed=scores.tokens_computed,
            tokens_distinct=scores.tokens_distinct,
            busy_seconds=seconds,
        )

    def _count(self, **added: float) -> None:
        with self._changed:
            for name, amount in added.items():
                total = getattr(self._stats, name) + amount
                self._stats = self._stats._replace(**{name: total})
