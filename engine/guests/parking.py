"""Where the stacks of guests wait for the next step of their unit: a cache, nothing more."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from engine.guests.stack import Stack

LIMIT = 64
"""Stacks of a process, a few megabytes each with their answers."""
IDLE_SECONDS = 600.0
"""A stack whose unit went on elsewhere is never asked for again."""


class Parking:
    """Stacks by what they explain; those that stand too long or are too many are closed.

    Args:
        limit: Most stacks.
        idle_seconds: Longest time one stands.
    """

    def __init__(self, limit: int = LIMIT, idle_seconds: float = IDLE_SECONDS) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._stacks: OrderedDict[str, tuple[float, Stack]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._stacks)

    def take(self, key: str) -> Stack | None:
        """Return a stack, which is then the caller's alone, or None."""
        with self._lock:
            self._drop_idle()
            _, stack = self._stacks.pop(key, (0.0, None))
            return stack

    def put(self, key: str, stack: Stack) -> None:
        """Keep a stack for the next step."""
        with self._lock:
            self._drop_idle()
            self._close(key)
            self._stacks[key] = (time.monotonic(), stack)
            while len(self._stacks) > self._limit:
                self._close(next(iter(self._stacks)))

    def clear(self) -> None:
        """Close all stacks."""
        with self._lock:
            for key in list(self._stacks):
                self._close(key)

    def _drop_idle(self) -> None:
        oldest = time.monotonic() - self._idle_seconds
        while self._stacks and next(iter(self._stacks.values()))[0] < oldest:
            self._close(next(iter(self._stacks)))

    def _close(self, key: str) -> None:
        _, stack = self._stacks.pop(key, (0.0, None))
        if stack is not None:
            stack.close()


PARKED = Parking()
"""Of this process."""
