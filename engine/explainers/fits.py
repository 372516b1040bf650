"""Fits that this process made already: a cache, nothing more.

A step is replayed with more answers until its unit is done. What an explainer fits changes no more
once its own coalitions are valued, so it is found here by all that it depends on; a step that finds
nothing, in another process, fits again and comes to the same.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from engine.explainers.coalitions import read_only
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF, FloatLF

if TYPE_CHECKING:
    from engine.explainers.base import Explainer

LIMIT_BYTES = 16 << 20
"""Of arrays: a thousand fits of 50 features and 5 labels, with room for the rest of them."""


class Fitted(NamedTuple):
    """An attribution and what it took.

    Attributes:
        attribution: As `Explainer.fit` returns it.
        used: The coalitions it rests on [C, F].
        seconds: What fitting took when it was done.
    """

    attribution: Attribution
    used: BoolCF
    seconds: float


class Fits:
    """Fits by explainer and values; those that were not asked for longest go first.

    Args:
        limit_bytes: Most bytes of their arrays.

    Attributes:
        seconds: What all fits that were made here took together; grows.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.seconds = 0.0
        self._limit = limit_bytes
        self._held: OrderedDict[bytes, tuple[Attribution, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def fitted(self, explainer: Explainer, pool: CoalitionPool) -> Fitted:
        """Return what `explainer.fit(pool)` returns, from here if it was fitted to these values.

        Args:
            explainer: With a fixed budget: what it uses depends on no value.
            pool: Has all it uses; what else it has makes no difference.
        """
        used = explainer.used(pool)
        values = pool.lookup(used)
        # by its name, not by being equal: 25 and 25.0 stand otherwise in the diagnostics
        named = f"{explainer!r} {used.shape} {values.shape}".encode()
        key = hashlib.blake2b(named + b"\0" + values.tobytes(), digest_size=16).digest()
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return Fitted(held[0], used, held[1])
        started = time.perf_counter()
        attribution = explainer.fit(pool)
        seconds = time.perf_counter() - started
        read_only(*_arrays(attribution))
        self._keep(key, attribution, seconds)
        return Fitted(attribution, used, seconds)

    def clear(self) -> None:
        """Forget all fits."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _keep(self, key: bytes, attribution: Attribution, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds
            if key not in self._held:
                self._bytes += _size(attribution)
            self._held[key] = attribution, seconds
            while self._bytes > self._limit:
                _, (oldest, _) = self._held.popitem(last=False)
                self._bytes -= _size(oldest)


def _arrays(attribution: Attribution) -> list[FloatLF]:
    kept = (attribution.values, attribution.base, attribution.std_error)
    return [array for array in kept if array is not None]


def _size(attribution: Attribution) -> int:
    """Return the bytes of its arrays, and about what the objects around them take."""
    return 1024 + sum(array.nbytes for array in _arrays(attribution))


FITS = Fits()
"""Of this process."""
