"""Label scoring with a transformers causal language model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from actors.adapters import ADAPTER_BYTES, ADAPTERS_KEPT, AdapterPool
from actors.allocator import keep_freed_memory
from actors.backend import (
    BackendOutOfMemoryError,
    HostInfo,
    HostSpec,
    Scores,
    SequenceBatch,
    SwapCounts,
    digest_text,
)
from actors.batching import Ids, ScoreSequence, cut_elsewhere
from actors.bucketed import BatchScores, score_in_buckets
from actors.loader import load_model, model_window, resolve_model
from actors.memory_probe import fit_piece
from actors.out_of_memory import fitting
from actors.precision import FLOATS, QUANTIZED, footprint, precision_of
from actors.prompt_errors import prompt_errors
from actors.self_check import (
    compile_checked,
    make_scorer,
    packing_checked,
    prepack_checked,
    tolerance_of,
    vocabulary_size,
)
from actors.waiting import wait_briefly
from engine.errors import ConfigError, ModelError
from engine.generations import GenerationAnswer, GenerationAsk
from engine.gradients import GradientAnswer, GradientAsk
from engine.not_a_number import no_numbers
from engine.ragged import Ragged
from engine.schema import ScoreTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from actors.gradients import GradientRunner
    from actors.label_scorer import LabelScorer
    from actors.packed_forward import PackedForward

Rows = npt.NDArray[np.int64]

CPU_BATCH_TOKENS = 2048
"""Measured on two cores at 512, 1024 and 2048 tokens: docs/models.md."""

GPU_BATCH_TOKENS = 32_768
PREFIXES_KEPT = 8

_GRADIENT_SHARE = 4
"""Of the tokens of a batch, how many gradients are computed of at a time: the activations of all
layers are kept for the way back. SmolLM2-135M in fp32 on a CPU took 0.8 GB for 512 tokens."""

_OPTIONS = frozenset(
    {
        "batch_tokens",
        "prefix_cache",
        "prepack",
        "packing",
        "compile",
        "adapters_kept",
        "adapter_bytes",
        "admit_tokens",
        "remember",
    }
)


class TransformersBackend:
    """A causal language model behind the contract of a host.

    Args:
        spec: Options: `batch_tokens`, `prefix_cache`, `prepack`, `packing`, `compile`,
            `adapters_kept`, `adapter_bytes`.

    Raises:
        ConfigError: An option is unknown, or doesn't go with another.
    """

    def __init__(self, spec: HostSpec) -> None:
        unknown = sorted(set(spec.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"the transformers backend has no option {unknown[0]!r}: use "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        self._compile = bool(spec.options.get("compile", False))
        if self._compile and (spec.adapters or not spec.options.get("packing", True)):
            raise ConfigError(
                "options.compile is for models without adapters, and with packing: leave it out"
            )
        self._spec = spec
        self.model: PreTrainedModel | None = None
        self._scorer: LabelScorer | None = None
        self._packed: PackedForward | None = None
        self._packed_up_to: int | None = None
        self._takes_positions = False
        self._runners: dict[str, GradientRunner] = {}  # by adapter
        self.adapters: AdapterPool | None = None
        self._adapters_kept = int(spec.options.get("adapters_kept", ADAPTERS_KEPT))
        if self._adapters_kept < 1:
            raise ConfigError("adapters_kept: at least the adapter that is on must be kept")
        self._max_tokens: int | None = None
        self._vocabulary = 0
        self.batch_tokens = int(spec.options.get("batch_tokens", CPU_BATCH_TOKENS))

    def load(self) -> HostInfo:
        """Load the model on the calling thread, which alone may then score with it.

        Raises:
            ModelError: It can't be found or loaded, or its family can't be scored in batches.
        """
        wait_briefly()
        import torch

        started = time.perf_counter()
        if self._spec.threads:
            # of the calling thread: OpenMP would otherwise follow the OMP_NUM_THREADS that Ray sets
            torch.set_num_threads(self._spec.threads)
        source = resolve_model(self._spec.model)
        self.model = model = load_model(
            source, self._spec.precision, self._spec.device, self._spec.double_quant
        )
        if model.device.type == "cpu":
            keep_freed_memory()
        if model.device.type == "cuda" and "batch_tokens" not in self._spec.options:
            self.batch_tokens = GPU_BATCH_TOKENS
        self.batch_tokens = cut_elsewhere(self.batch_tokens, self._spec.replicate)
        kept = int(self._spec.options.get("prefix_cache", PREFIXES_KEPT))
        self._vocabulary = vocabulary_size(model)
        tolerance = tolerance_of(model)
        if self._spec.adapters:
            # before anything that keeps hold of the layers which it wraps
            self.adapters = AdapterPool(
                model,
                self._vocabulary,
                self._spec.adapters,
                self._adapters_kept,
                int(self._spec.options.get("adapter_bytes", ADAPTER_BYTES)),
                tolerance,
            )
        self._scorer, scorer = make_scorer(model, kept, tolerance)
        # now that quantized layers have had their first pass, at which some are laid out anew, and
        # before others are put into a layout whose bytes can't be counted
        parameters, memory = model.num_parameters(), footprint(model)
        unpacked = self.adapters.unpacked if self.adapters else ()
        # what torch compiles are products of its own
        wanted = self._spec.options.get("prepack", True) and not self._compile
        if wanted and prepack_checked(model, self._scorer, unpacked):
            scorer = f"{scorer}+prepacked"
        self._takes_positions = self._scorer.takes_positions
        if self._spec.options.get("packing", True):
            packed = packing_checked(
                model, self._scorer.reading, kept, self._spec.replicate, tolerance, self._compile
            )
            if packed is not None:
                self._packed, self._packed_up_to = packed
                fit_piece(self._packed, self._vocabulary)
                if self._compile:
                    scorer = f"compiled+{scorer}"
                    compile_checked(model, self._packed, tolerance)
                scorer = f"packed+{self._packed.route}+{scorer}"
            elif self._compile:
                raise ModelError(
                    f"{type(model).__name__} isn't packed by tree attention, and nothing else is "
                    "compiled: leave out options.compile"
                )
        self._max_tokens = model_window(model.config)
        if self.adapters:
            self.adapters.start()
        numerics = _numerics(model, scorer)
        return HostInfo(
            model=self._spec.model,
            weights=source.digest,
            parameters=parameters,
            memory_bytes=memory,
            load_seconds=time.perf_counter() - started,
            device=str(model.device),
            scorer=scorer,
            numerics=digest_text(numerics),
            numerics_text=numerics,
            max_tokens=self._max_tokens,
            threads=torch.get_num_threads(),
            adapters_kept=self._adapters_kept if self.adapters else 0,
            precision=precision_of(model),
            piece=self._packed.piece if self._packed else 0,
        )

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        """Return the errors of prompts that are empty, too long, or outside the vocabulary."""
        if self.adapters:
            self.adapters.check(task.adapter)
        elif task.adapter:
            raise ModelError(
                f"this host of {self._spec.model} was started without adapters, but is asked for "
                f"{task.adapter[:12]}"
            )
        errors = prompt_errors(batch, task, self._max_tokens, self._vocabulary)
        if batch.hidden is not None and not self._takes_positions:
            for row in np.flatnonzero(batch.hidden.lengths).tolist():
                errors[row] = (
                    "this model family takes no position ids, so positions can't be hidden: use "
                    "another masking operator than pad"
                )
        return errors

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        """Score checked prompts: packed, or in padded batches where that can't be.

        Raises:
            ModelError: The adapter can't be loaded, or doesn't read as it did.
        """
        assert self._scorer is not None, "load the model before asking it for scores"
        self._switch_to(task.adapter)
        if self._packed is None:
            return self._in_buckets(batch, task)
        if self._packed_up_to is None:
            return self._packed_or_in_buckets(batch, task)
        longest = batch.sequences.lengths + max(map(len, task.label_ids)) - 1
        long = longest > self._packed_up_to
        short, rest = np.flatnonzero(~long), np.flatnonzero(long)
        if not len(rest):
            return self._packed_or_in_buckets(batch, task)
        packed = self._packed_or_in_buckets(batch.take(short), task)
        return _interleaved(packed, short, self._in_buckets(batch.take(rest), task), rest)

    def _packed_or_in_buckets(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        assert self._packed is not None
        try:
            found = self._packed.score(batch, task.label_ids, task.by_example, task.adapter)
        except BackendOutOfMemoryError:
            found = None
        if found is None:  # some prompt may still fit: there each has an answer or its own error
            return self._in_buckets(batch, task)
        spoilt = no_numbers(found.log_probs, found.log_z)
        spoilt[list(found.errors)] = False
        if not spoilt.any():
            return found
        # one that overflows spoils all it is packed with: a hidden state times 0 is no number
        kept, again = np.flatnonzero(~spoilt), np.flatnonzero(spoilt)
        rest = self._in_buckets(batch.take(again), task)
        return _interleaved(_rows_of(found, kept), kept, rest, again)

    def _in_buckets(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        padded = partial(self._padded, task.adapter)
        return score_in_buckets(padded, batch, task.label_ids, self.batch_tokens)

    def _padded(
        self, adapter: str, prompts: list[ScoreSequence], label_ids: Sequence[Ids], prefix: int
    ) -> BatchScores:
        assert self._scorer is not None
        return fitting(partial(self._scorer.score, prompts, label_ids, prefix, adapter))

    def gradients(self, ask: GradientAsk, task: ScoreTask) -> GradientAnswer:
        """Return the gradients that one explainer needs of one prompt.

        Raises:
            ValueError: The prompt can't be scored, or its gradients can't be had.
            ModelError: The family can't be differentiated.
        """
        from actors.gradients import GradientRunner

        errors = self.check(SequenceBatch(Ragged.of([ask.ids]), None), task)
        if errors:
            raise ValueError(errors[0])
        self._switch_to(task.adapter)
        if task.adapter not in self._runners:
            runner = GradientRunner(self.model, self.batch_tokens // _GRADIENT_SHARE)
            self._runners[task.adapter] = runner
        return self._runners[task.adapter].run(ask, task.label_ids)

    def generate(self, ask: GenerationAsk, task: ScoreTask) -> GenerationAnswer:
        """Return the model's greedy continuation of one prompt.

        Raises:
            ValueError: The prompt can't be scored, has no room behind it, or memory ran out.
            ModelError: The task can't be served.
        """
        from actors.generation import continue_greedily

        # room is asked for as if the longest continuation were a label
        longest = replace(task, label_ids=((0,) * ask.max_new_tokens,))
        errors = self.check(SequenceBatch(Ragged.of([ask.ids]), None), longest)
        if errors:
            raise ValueError(errors[0])
        self._switch_to(task.adapter)
        return continue_greedily(self.model, ask)

    def compare_adapters(
        self, batch: SequenceBatch, label_ids: Sequence[Ids], adapters: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """Return log-probabilities [A, S, L] of checked prompts under A adapters, side by side.

        Raises:
            ModelError: The host has not the adapters, or they can't be mixed in one batch.
            ValueError: A prompt doesn't fit into memory.
        """
        from actors.mixed_batch import compare_adapters

        if self.model is None or self.adapters is None:
            raise ModelError(f"this host of {self._spec.model} was started without adapters")
        return compare_adapters(
            self.model, self.adapters, batch, label_ids, adapters, self.batch_tokens
        )

    def swap_counts(self) -> SwapCounts:
        """Return what switching adapters cost so far."""
        return self.adapters.counts if self.adapters else SwapCounts()

    def _switch_to(self, adapter: str) -> None:
        if self.adapters:
            self.adapters.use(adapter)


def _rows_of(scores: Scores, rows: Rows) -> Scores:
    """Return some rows, which have all errors and cost among them."""
    errors = {int(np.searchsorted(rows, row)): why for row, why in scores.errors.items()}
    return scores._replace(
        log_probs=scores.log_probs[rows], log_z=scores.log_z[rows], errors=errors
    )


def _interleaved(a: Scores, rows_a: Rows, b: Scores, rows_b: Rows) -> Scores:
    """Return the scores of two parts of a batch as those of the whole."""
    order = np.argsort(np.concatenate([rows_a, rows_b]))
    errors = {int(rows_b[i]): message for i, message in b.errors.items()}
    return Scores(
        np.concatenate([a.log_probs, b.log_probs])[order],
        np.concatenate([a.log_z, b.log_z])[order],
        a.tokens_computed + b.tokens_computed,
        a.tokens_distinct + b.tokens_distinct,
        a.sequences_computed + b.sequences_computed,
        errors | {int(rows_a[i]): message for i, message in a.errors.items()},
    )


def _numerics(model: PreTrainedModel, scorer: str) -> str:
    """Return what makes results differ in the last bits, for people."""
    import torch
    import transformers

    if model.device.type == "cuda":
        kind = torch.cuda.get_device_name(model.device)
    else:
        kind = f"{model.device.type} {torch.backends.cpu.get_cpu_capability()}"
    dtype = str(model.dtype).removeprefix("torch.")
    precision = precision_of(model)
    if precision in QUANTIZED:
        import bitsandbytes

        dtype = f"{precision} and {dtype}; bitsandbytes {bitsandbytes.__version__}"
    elif precision not in FLOATS:
        dtype = f"{precision} and {dtype}"
    attention = model.config._attn_implementation
    return (
        f"{dtype}; {kind}; {attention}; {scorer}; torch {torch.__version__}; "
        f"transformers {transformers.__version__}"
    )
