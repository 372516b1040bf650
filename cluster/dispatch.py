"""The scheduler: keeps hosts fed with requests, steps running, and commits results.

Every object belongs to the driver, which holds references only: a step's request goes to a host,
the host's reply to the next step, and a finished unit's tables to a writer, without passing through
the driver's memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray

from cluster.faults import FaultKind, classify
from cluster.fleet import Fleet, HostHandle, nearest
from cluster.remotes import PairRef, Remotes, Written
from engine.commits import CommitLog
from engine.context import Unit
from engine.errors import ModelError, RayxaiError

QUEUED_TOKENS = 16384
"""Tokens kept queued at each host, and at least two requests: the next is there when one ends."""
AHEAD = 2
"""Units a host that are in a step or wait for a host. More would only make all of them late: a
crash loses what is open. Each also takes a worker process, and Ray's wake up a hundred times a
second, on cores that a host on a CPU computes with."""
FLUSH_BYTES = 16 << 20
FLUSH_UNITS = 1024
"""Of small units, so that they are written while others still run."""
BUNDLE_TOKENS = 8192
"""Small units go through steps and hosts together, as many as ask for about so many tokens: a call
through Ray costs milliseconds, whatever it carries."""
LARGEST_BUNDLE = 64
STALL_SECONDS = 300.0
"""After so long without any event, the hosts are asked whether they live."""


class Progress(Protocol):
    """Who is told how far the sweep is."""

    def update(self, units: int, sequences: int) -> None:
        """Called when `units` more were committed or `sequences` more scored."""


@dataclass(slots=True, eq=False)
class Bundle:
    """Open units of one pair that go through steps and hosts together.

    A bundle that fails is taken apart, and its units are tried again one by one: what is wrong with
    one of them must not be held against the others.

    Attributes:
        turn: Place of the pair in the order of pairs.
    """

    units: list[Unit]
    pair: PairRef
    turn: int
    attempt: int = 1
    rounds: list[Any] = field(default_factory=list)
    request: Any = None
    lookups: Any = None
    tokens: int = 0
    sequences: int = 0
    host: HostHandle | None = None


class Dispatcher:
    """Runs the units of one model on its fleet.

    Args:
        remotes: The remote functions.
        fleet: Started.
        run_dir: The run folder.
        log: The run's commit log.
        store_logs: Opens the commit log of a store folder.
        pairs: What the units of a pair share, by its key; in the order in which they are run.
        attempts: How often a unit is tried.
        commit_seconds: Longest time between a result and its commit.
        progress: Told of progress.
        cpus: Logical CPUs of the cluster; starving hosts get as many steps as these can run.
    """

    def __init__(
        self,
        remotes: Remotes,
        fleet: Fleet,
        run_dir: str,
        log: CommitLog,
        store_logs: Callable[[str], CommitLog],
        pairs: Mapping[str, PairRef],
        attempts: int,
        commit_seconds: float,
        progress: Progress,
        cpus: float,
    ) -> None:
        self._remotes = remotes
        self._fleet = fleet
        self._run_dir = run_dir
        self._log = log
        self._store_logs = store_logs
        self._pairs = pairs
        self._turns = {key: turn for turn, key in enumerate(pairs)}
        self._attempts = attempts
        self._commit_seconds = commit_seconds
        self._progress = progress
        self._cpus = cpus
        self._pending: dict[Any, tuple[Callable[[Any, Any], None], Any]] = {}
        self._ready: deque[Bundle] = deque()  # a request waits for a host
        self._suspects: deque[Bundle] = deque()  # was in flight when a host died: runs alone
        self._alone: set[str] = set()  # names of the hosts that serve a suspect
        self._open = 0
        self._tokens_per_unit = float(BUNDLE_TOKENS)
        self._results: list[tuple[Bundle, Any]] = []
        self._result_bytes = 0
        self._first_result = 0.0
        self._writes = 0
        self.sequences = 0

    def run(self, units: Sequence[Unit]) -> int:
        """Run all units to their commits; return the number of sequences scored.

        Raises:
            ModelError: The hosts die again and again.
            RayxaiError: Ray itself fails, or another driver took the run over.
        """
        waiting = deque(units)
        last_event = time.monotonic()
        while waiting or self._pending or self._ready or self._suspects or self._results:
            while waiting and self._has_room():
                self._start(self._next(waiting))
            self._feed()
            self._flush(force=not self._open and not waiting)
            done, _ = (
                ray.wait(list(self._pending), num_returns=1, timeout=1.0, fetch_local=False)
                if self._pending
                else ([], [])
            )
            for ref in done:
                handler, state = self._pending.pop(ref)
                handler(ref, state)
            now = time.monotonic()
            if done:
                last_event = now
            elif now - last_event > STALL_SECONDS:
                self._look_after_hosts()
                last_event = now
        return self.sequences

    def _has_room(self) -> bool:
        """Whether another unit should be opened: soon some host would have nothing to do."""
        hosts = self._fleet.hosts
        before_host = self._open - sum(h.in_flight for h in hosts)
        starving = any(h.in_flight < 2 for h in hosts)
        enough = AHEAD * len(hosts)
        return before_host < (max(enough, int(self._cpus)) if starving else enough)

    def _next(self, waiting: deque[Unit]) -> list[Unit]:
        """Take the next units of one pair, as many as make a bundle."""
        size = min(max(int(BUNDLE_TOKENS / self._tokens_per_unit), 1), LARGEST_BUNDLE)
        taken = [waiting.popleft()]
        while waiting and len(taken) < size and waiting[0].pair == taken[0].pair:
            taken.append(waiting.popleft())
        return taken

    def _start(self, units: list[Unit]) -> None:
        pair = units[0].pair
        self._open += 1
        self._step(Bundle(units, self._pairs[pair], self._turns[pair]))

    def _apart(self, state: Bundle, attempt: int) -> list[Bundle]:
        """Return the units of a bundle as bundles of their own, to be tried from the start."""
        self._open += len(state.units) - 1
        return [Bundle([unit], state.pair, state.turn, attempt) for unit in state.units]

    def _step(self, state: Bundle) -> None:
        header, body, lookups = self._remotes.step.remote(
            state.pair.context, state.units, state.attempt, self._fleet.info.numerics, *state.rounds
        )
        state.request, state.lookups = body, lookups
        self._pending[header] = (self._stepped, state)

    def _stepped(self, ref: Any, state: Bundle) -> None:
        header = self._get(ref, state)
        if header is None:
            return
        if header.done:
            self._finish(state, header.nbytes)
            return
        state.tokens, state.sequences = header.tokens, header.sequences
        if not state.rounds:
            self._tokens_per_unit = max(header.tokens / len(state.units), 1.0)
        (self._suspects if state.attempt > 1 else self._ready).append(state)

    def _finish(self, state: Bundle, nbytes: int) -> None:
        self._open -= 1
        if not self._results:
            self._first_result = time.monotonic()
        self._results.append((state, state.request))
        self._result_bytes += nbytes

    def _feed(self) -> None:
        """Hand waiting requests to the hosts; a suspect gets an idle host to itself."""
        while self._suspects:
            idle = next((h for h in self._fleet.hosts if not h.in_flight), None)
            if idle is None:
                break
            self._alone.add(idle.name)
            self._score(self._suspects.popleft(), idle)
        # One pair after another, so that hosts seldom switch adapters; of a pair, units that are
        # further come first, so that they end and are committed.
        self._ready = deque(sorted(self._ready, key=lambda state: (state.turn, -len(state.rounds))))
        while self._ready and not self._suspects:
            free = [h for h in self._fleet.hosts if h.name not in self._alone and _has_room(h)]
            if not free:
                break
            state = self._ready.popleft()
            self._score(state, nearest(free, state.pair.adapter, BUNDLE_TOKENS))

    def _score(self, state: Bundle, host: HostHandle) -> None:
        state.host = host
        host.in_flight += 1
        host.tokens += state.tokens
        host.send(state.pair.adapter, self._fleet.info.adapters_kept)
        ack, reply = host.actor.answer.options(concurrency_group="score", num_returns=2).remote(
            state.request
        )
        self._pending[ack] = (self._scored, (state, reply))

    def _scored(self, ref: Any, entry: tuple[Bundle, Any]) -> None:
        state, reply = entry
        host = state.host
        assert host is not None
        self._alone.discard(host.name)
        host.in_flight = max(host.in_flight - 1, 0)
        host.tokens = max(host.tokens - state.tokens, 0)
        try:
            ray.get(ref)
        except ray.exceptions.RayError as error:
            self._score_failed(error, state, host)
            return
        self.sequences += state.sequences
        self._progress.update(0, state.sequences)
        state.rounds += [state.lookups, reply]
        self._step(state)

    def _score_failed(self, error: Exception, state: Bundle, host: HostHandle) -> None:
        fault = classify(error)
        if fault.kind is FaultKind.LOST:
            self._lose(host, state, fault.message)
        elif fault.kind is FaultKind.ABORT:
            raise RayxaiError(f"Ray can't go on: {fault.message}")
        elif len(state.units) > 1:
            for alone in self._apart(state, state.attempt):
                self._step(alone)
        else:
            self._give_up(state, "host_error", fault.message)

    def _lose(self, host: HostHandle, state: Bundle, message: str) -> None:
        """A host died: start another, and run all that was in flight there again."""
        lost = [state]
        for ref, (_, entry) in list(self._pending.items()):
            if isinstance(entry, tuple) and entry[0].host is host:
                lost.append(entry[0])
                del self._pending[ref]
        self._alone.discard(host.name)
        if not self._fleet.replace(host):
            raise ModelError(f"{host.name} died too often; the last time: {message}")
        for other in lost:
            other.attempt += 1
            other.host = None
            if len(other.units) > 1:
                for alone in self._apart(other, other.attempt):
                    self._step(alone)
            elif other.attempt > self._attempts:
                self._give_up(
                    other, "host_lost", f"its host died {self._attempts} times: {message}"
                )
            else:
                self._suspects.append(other)

    def _give_up(self, state: Bundle, code: str, message: str) -> None:
        header, body, _ = self._remotes.give_up.remote(
            state.pair.context, state.units[0], state.attempt, code, message
        )
        state.request = body
        self._pending[header] = (self._given_up, state)

    def _given_up(self, ref: Any, state: Bundle) -> None:
        try:
            header = ray.get(ref)
        except ray.exceptions.RayError as error:
            raise RayxaiError(f"unit {state.units[0].id}: {classify(error).message}") from None
        self._finish(state, header.nbytes)

    def _get(self, ref: Any, state: Bundle) -> Any:
        try:
            return ray.get(ref)
        except ray.exceptions.RayError as error:
            fault = classify(error)
            state.attempt += 1
            if fault.kind is FaultKind.ABORT:
                raise RayxaiError(f"Ray can't go on: {fault.message}") from None
            if len(state.units) > 1:
                for alone in self._apart(state, state.attempt):
                    self._step(alone)
            elif fault.kind is FaultKind.LOST and state.attempt <= self._attempts:
                # Replies lost with their node are asked for again from the start.
                state.rounds = []
                self._step(state)
            else:
                self._give_up(state, "step_error", fault.message)
            return None

    def _flush(self, *, force: bool) -> None:
        if not self._results:
            return
        waited = time.monotonic() - self._first_result
        units = sum(len(state.units) for state, _ in self._results)
        full = self._result_bytes > FLUSH_BYTES or units >= FLUSH_UNITS
        if not (force or full or waited > self._commit_seconds):
            return
        results, self._results, self._result_bytes = self._results, [], 0
        self._writes += 1
        stem = f"{self._log.driver}-{self._writes:06d}"
        stores = [state.pair.store for state, _ in results]  # one a body
        ref = self._remotes.write.remote(
            self._run_dir, stem, stores, *[body for _, body in results]
        )
        self._pending[ref] = (self._written, results)

    def _written(self, ref: Any, results: list[tuple[Bundle, Any]]) -> None:
        try:
            written: Written = ray.get(ref)
        except ray.exceptions.RayError as error:
            fault = classify(error)
            if fault.kind is not FaultKind.LOST:
                raise RayxaiError(f"{self._run_dir}: can't write: {fault.message}") from None
            self._results += results  # under a new file name: a torn file is never read
            return
        # The store first: a unit that is committed never has to be evaluated again.
        for folder, commits in written.stored.items():
            self._store_logs(folder).append(commits)
        self._log.append(written.commits)
        self._fleet.forgive()
        self._progress.update(sum(len(state.units) for state, _ in results), 0)

    def _look_after_hosts(self) -> None:
        for host in self._fleet.hosts:
            if host.in_flight and not self._fleet.is_responsive(host):
                entry = next(
                    (
                        e
                        for _, e in self._pending.values()
                        if isinstance(e, tuple) and e[0].host is host
                    ),
                    None,
                )
                if entry is not None:
                    self._drop(entry[0])
                    self._lose(host, entry[0], "it stopped answering")

    def _drop(self, state: Bundle) -> None:
        for ref, (_, entry) in list(self._pending.items()):
            if isinstance(entry, tuple) and entry[0] is state:
                del self._pending[ref]


def _has_room(host: HostHandle) -> bool:
    """Whether a host's queue is short of what it should be."""
    return host.in_flight < 2 or host.tokens < QUEUED_TOKENS
