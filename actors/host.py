"""A host: one pinned model that many callers score sequences with.

It knows nothing of Ray; an actor wraps it and calls `score` from several threads, and the other
methods from a control thread, so that they answer while a long batch runs.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

import numpy as np
import pyarrow as pa

from actors.admission import ADMIT_TOKENS, REMEMBER, AdmissionQueue
from actors.backend import (
    Backend,
    GenerationBackend,
    GradientBackend,
    HostInfo,
    HostSpec,
    HostStats,
)
from engine.errors import ConfigError, ModelError
from engine.generations import (
    GenerationAnswer,
    GenerationAsk,
    generation_reply,
    no_generations,
    read_generation_request,
)
from engine.gradients import GradientAnswer, GradientAsk, gradient_reply, read_gradient_request
from engine.schema import ScoreCost, ScoreTask, score_reply, task_of

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
        self._backend = make_backend(spec)
        self._queue = AdmissionQueue(self._backend, admit_tokens, remember)
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
        return self.submit(request).result()

    def submit(self, request: pa.Table) -> Future[pa.Table]:
        """Queue a request; the future holds what `score` returns.

        Raises:
            RuntimeError: The host isn't loaded, or has been stopped.
        """
        if self._info is None:
            raise RuntimeError("load the host before asking it for scores")
        if not request.num_rows:  # beside another kind of question; its task may have no label yet
            return _nothing(request, self._info.numerics)
        return self._queue.submit(request)

    def gradients(self, request: pa.Table) -> pa.Table:
        """Answer a request for gradients; as `score` does, between its batches.

        Args:
            request: A table of `engine.gradients.GRADIENT_REQUEST` with its task in the metadata.

        Returns:
            A table of `engine.gradients.GRADIENT_REPLY`, one row a row of the request. A row that
            can't be answered says why in `error`.

        Raises:
            RuntimeError: The host isn't loaded, or has been stopped.
        """
        if self._info is None:
            raise RuntimeError("load the host before asking it for gradients")
        asks, task = read_gradient_request(request)
        backend = self._backend
        if not isinstance(backend, GradientBackend):
            refusal = (
                f"{self._info.model} gives no gradients here: only backend transformers has "
                "embeddings to differentiate by, vLLM and the fake models have none"
            )
            return gradient_reply([ask.key for ask in asks], [refusal] * len(asks))
        # a call a row, so that batches of scores get their turn
        calls = [
            self._queue.run(partial(_answer, backend, ask, task), task.adapter) for ask in asks
        ]
        return gradient_reply([ask.key for ask in asks], [call.result() for call in calls])

    def generate(self, request: pa.Table) -> pa.Table:
        """Answer a request for continuations; as `score` does, between its batches.

        Args:
            request: A table of `engine.generations.GENERATION_REQUEST` with its task in the
                metadata.

        Returns:
            A table of `engine.generations.GENERATION_REPLY`, one row a row of the request. A row
            that can't be answered says why in `error`.

        Raises:
            RuntimeError: The host isn't loaded, or has been stopped.
        """
        if self._info is None:
            raise RuntimeError("load the host before asking it for continuations")
        asks, task = read_generation_request(request)
        backend = self._backend
        if not isinstance(backend, GenerationBackend):
            return no_generations(request)
        calls = [
            self._queue.run(partial(_continue, backend, ask, task), task.adapter) for ask in asks
        ]
        return generation_reply([ask.key for ask in asks], [call.result() for call in calls])

    def stats(self) -> HostStats:
        """Return the counters; never blocks on the model."""
        return self._queue.stats()

    def stop(self) -> None:
        """End the scorer's thread; requests without an answer fail with a RuntimeError."""
        self._queue.stop()


def _answer(backend: GradientBackend, ask: GradientAsk, task: ScoreTask) -> GradientAnswer | str:
    try:
        return backend.gradients(ask, task)
    except (ValueError, ModelError) as error:
        return str(error)


def _continue(
    backend: GenerationBackend, ask: GenerationAsk, task: ScoreTask
) -> GenerationAnswer | str:
    try:
        return backend.generate(ask, task)
    except (ValueError, ModelError) as error:
        return str(error)


def _nothing(request: pa.Table, numerics: str) -> Future[pa.Table]:
    """Return the reply to a request without rows."""
    none = np.zeros((0, len(task_of(request).label_ids)), dtype=np.float32)
    future: Future[pa.Table] = Future()
    cost = ScoreCost(0.0, 0, numerics)
    future.set_result(score_reply(none, np.zeros(0, dtype=np.float32), {}, cost))
    return future


def make_backend(spec: HostSpec) -> Backend:
    """Return the backend that a specification names, nothing loaded.

    Raises:
        ConfigError: There is no such backend, or its options are wrong.
        ModelError: The backend's library isn't installed.
    """
    if spec.backend == "transformers":
        from actors.hf_host import TransformersBackend

        return TransformersBackend(spec)
    if spec.backend == "vllm":
        from actors.vllm_host import VllmBackend

        return VllmBackend(spec)
    if spec.backend == "fake":
        from actors.fake_host import FakeBackend

        return FakeBackend(spec)
    raise ConfigError(f"unknown backend {spec.backend!r}: use transformers, vllm or fake")
