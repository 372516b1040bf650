"""What a host asks of the thing that computes: the contract between queue and model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engine.generations import GenerationAnswer, GenerationAsk
from engine.gradients import GradientAnswer, GradientAsk
from engine.ragged import Ragged
from engine.schema import ScoreTask


@dataclass(frozen=True, slots=True)
class HostSpec:
    """How to make a host.

    Attributes:
        model: Local folder, hub id, alias of an offline model, or `fake:…`.
        backend: `transformers`, `vllm` or `fake`.
        precision: `fp32`, `fp16`, `bf16`, `nf4`, `fp4`, `int8`, or `auto`; see `actors.precision`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: Threads of the model's CPU work; 0 leaves the library's own choice.
        options: Of the queue: `admit_tokens`, and `remember`, the number of answers kept for
            prompts that come again (0: none). Of the backends: `batch_tokens` of a padded batch; of
            transformers `prefix_cache`, the number of prefixes kept (0: none), `prepack` (False:
            stock layers on the CPU), `packing` (False: padded batches), `adapters_kept` and
            `adapter_bytes`, the most adapters in memory and the most bytes they take; of vLLM those
            of `actors.vllm_settings`; of the fake models their own.
        adapters: Digest of each LoRA adapter that may be asked for -> its folder.
        double_quant: Quantize the scales of 4-bit weights too.
        replicate: Other than 0: order what is scored together otherwise and cut it elsewhere, so
            that answers differ by rounding alone.
    """

    model: str
    backend: str = "transformers"
    precision: str = "fp32"
    device: str = "auto"
    threads: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    double_quant: bool = True
    replicate: int = 0


@dataclass(frozen=True, slots=True)
class HostInfo:
    """What a loaded host is.

    Attributes:
        model: As the specification names it.
        weights: Digest of the weights.
        parameters: Number of parameters.
        memory_bytes: Bytes of parameters, buffers and the scales of quantized weights.
        load_seconds: From the start of loading until ready.
        device: `cpu`, `cuda:0`, …
        scorer: How labels are read, for example `gathered+prefix`.
        numerics: Digest of everything that makes results differ in the last bits.
        numerics_text: What the digest stands for, for people.
        max_tokens: Longest sequence the model takes, or None where it has no bound.
        threads: Threads that the scorer's thread computes with on a CPU, as measured.
        adapters_kept: Most adapters in memory at a time; 0 where none is served.
        precision: What the weights are in, `auto` decided; "" where that means nothing.
        piece: Most nodes of a trie that go through the model as one; 0 where none do.
    """

    model: str
    weights: str
    parameters: int
    memory_bytes: int
    load_seconds: float
    device: str
    scorer: str
    numerics: str
    numerics_text: str
    max_tokens: int | None
    threads: int = 1
    adapters_kept: int = 0
    precision: str = ""
    piece: int = 0


class HostStats(NamedTuple):
    """Counters of a host since its start.

    Attributes:
        requests: Requests taken from the queue.
        sequences: Sequences asked for in them.
        sequences_computed: Sequences that went through the model; fewer where some were the same.
        tokens_asked: Prompt tokens of the sequences asked for.
        tokens_computed: Tokens that went through the model, padding included.
        tokens_distinct: Distinct prefixes within what was scored together: the floor of exact
            scoring.
        sequences_remembered: Sequences answered from the host's memory of earlier requests.
        busy_seconds: Time in the model.
        queue_depth: Requests without an answer, those being scored included.
        queue_tokens: Their prompt tokens.
        swaps: Times another adapter, or none, was switched on.
        swap_seconds: Time in that, loading and canary readings included; part of `busy_seconds`.
        adapter_loads: Times an adapter came from its files.
    """

    requests: int = 0
    sequences: int = 0
    sequences_computed: int = 0
    tokens_asked: int = 0
    tokens_computed: int = 0
    tokens_distinct: int = 0
    sequences_remembered: int = 0
    busy_seconds: float = 0.0
    queue_depth: int = 0
    queue_tokens: int = 0
    swaps: int = 0
    swap_seconds: float = 0.0
    adapter_loads: int = 0


class SwapCounts(NamedTuple):
    """What switching adapters cost so far: fields of `HostStats`."""

    swaps: int = 0
    swap_seconds: float = 0.0
    adapter_loads: int = 0


class SequenceBatch(NamedTuple):
    """S prompts.

    Attributes:
        sequences: Token ids.
        hidden: Positions of each prompt that nothing attends to, ascending; None where none is.
    """

    sequences: Ragged
    hidden: Ragged | None

    @property
    def n_rows(self) -> int:
        """S."""
        return self.sequences.n_rows

    def take(self, rows: npt.ArrayLike) -> SequenceBatch:
        """Return some of the prompts."""
        hidden = None if self.hidden is None else self.hidden.take(rows)
        return SequenceBatch(self.sequences.take(rows), hidden)


class Scores(NamedTuple):
    """Answers to S prompts.

    Attributes:
        log_probs: Of the label strings under the full vocabulary [S, L].
        log_z: Log of the sum of exponentiated logits where the first label token is read [S]; NaN
            where a backend can't tell.
        tokens_computed: Tokens that went through the model, padding included.
        tokens_distinct: Distinct prefixes of the prompts and labels: the fewest tokens that exact
            scoring computes.
        sequences_computed: Prompts that went through the model; fewer than S where some are equal.
        errors: Row -> why it could not be scored; its scores have no meaning.
    """

    log_probs: npt.NDArray[np.float32]
    log_z: npt.NDArray[np.float32]
    tokens_computed: int
    tokens_distinct: int
    sequences_computed: int
    errors: Mapping[int, str] = {}


class BackendOutOfMemoryError(Exception):
    """A batch didn't fit into memory."""


class Backend(Protocol):
    """A model. Every method but `__init__` is called from one thread, the scorer's."""

    def load(self) -> HostInfo:
        """Load the model; called once, first.

        Raises:
            ModelError: It can't be found or loaded.
        """
        ...

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        """Return row -> error of the prompts that can't be scored.

        Raises:
            ModelError: The task itself can't be served.
        """
        ...

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        """Score checked prompts, equal ones among them; batches are the backend's own affair."""
        ...


@runtime_checkable
class GradientBackend(Protocol):
    """A model that can be differentiated by its input embeddings."""

    def gradients(self, ask: GradientAsk, task: ScoreTask) -> GradientAnswer:
        """Return the answer to one row; called from the scorer's thread.

        Raises:
            ValueError: This row can't be answered: it becomes its error.
            ModelError: The model can't be differentiated.
        """
        ...


@runtime_checkable
class GenerationBackend(Protocol):
    """A model that can go on after a prompt."""

    def generate(self, ask: GenerationAsk, task: ScoreTask) -> GenerationAnswer:
        """Return the answer to one row; called from the scorer's thread.

        Raises:
            ValueError: This row can't be answered: it becomes its error.
            ModelError: The task can't be served.
        """
        ...


@runtime_checkable
class AdapterBackend(Protocol):
    """A model that switches adapters on and off."""

    def swap_counts(self) -> SwapCounts:
        """Return what that cost so far; may be called from any thread."""
        ...


def digest_text(text: str) -> str:
    """Return a short stable digest of a text: 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
