"""A host: one pinned model that many callers score sequences with.

It knows nothing of Ray; an actor wraps it and calls `score` from several threads, and the other
methods from a control thread, so that they answer while a long batch runs.
"""

from __future__ import annotations

import threading

import pyarrow as pa

from actors.admission import ADMIT_TOKENS, REMEMBER, AdmissionQueue
from actors.backend import Backend, HostInfo, HostSpec, HostStats
from engine.errors import ConfigError

__all__ = ["Host", "HostInfo", "HostSpec", "HostStats", "make_backend"]


class Host:
    """One model behind an admission queue.

    Args:
        spec: What to load; nothing is loaded before `load`.

    Raises:
        ConfigError: The specification names an unknown backend, or its options are wrong.
    """

    def __init__(self, spec: HostSpec) -> None:
        admit_tokens = int(spec.options.get("admit_tokens", ADMIT_TOKENS))
        remember = int(spec.options.get("remember", REMEMBER))
        self._queue = AdmissionQueue(make_backend(spec), admit_tokens, remember)
        self._loading = threading.Lock()
        self._started = False
        self._info: HostInfo | None = None

    def load(self) -> HostInfo:
        """Load the model, once, and return what it is.

        Raises:
            ModelError: It can't be found or loaded; make a new host to try again.
        """
        with self._loading:
            if self._info is None:
                if self._started:
                    raise RuntimeError("this host failed to load; make a new one to try again")
                self._started = True
                self._info = self._queue.start()
            return self._info

    def ready(self) -> bool:
        """Return whether `load` has finished; never blocks."""
        return self._info is not None

    def score(self, request: pa.Table) -> pa.Table:
        """Score a request; may be called from many threads, and blocks until the answer is there.

        Args:
            request: A table of `engine.schema.SCORE_REQUEST` with its task in the metadata.

        Returns:
            A table of `engine.schema.SCORE_REPLY`, one row a row of the request, its cost in the
            metadata. A row that can't be scored says why in `error`.

        Raises:
            RuntimeError: The host isn't loaded, or has been stopped.
        """
        if self._info is None:
            raise RuntimeError("load the host before asking it for scores")
        return self._queue.score(request)

    def stats(self) -> HostStats:
        """Return the counters; never blocks on the model."""
        return self._queue.stats()

    def stop(self) -> None:
        """End the scorer's thread; requests without an answer fail with a RuntimeError."""
        self._queue.stop()


def make_backend(spec: HostSpec) -> Backend:
    """Return the backend that a specification names, nothing loaded.

    Raises:
        ConfigError: There is no such backend, or its options are wrong.
    """
    if spec.backend == "transformers":
        from actors.hf_host import TransformersBackend

        return TransformersBackend(spec)
    if spec.backend == "fake":
        from actors.fake_host import FakeBackend

        return FakeBackend(spec)
    raise ConfigError(f"unknown backend {spec.backend!r}: use transformers or fake")
