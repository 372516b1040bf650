"""Label scoring with a transformers causal language model."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from actors.backend import (
    BackendOutOfMemoryError,
    HostInfo,
    HostSpec,
    Scores,
    SequenceBatch,
    digest_text,
)
from actors.batching import Ids, ScoreSequence
from actors.bucketed import BatchScores, score_in_buckets
from actors.loader import load_model, model_window, resolve_model
from actors.precision import FLOATS, QUANTIZED, footprint, precision_of
from actors.out_of_memory import free_memory, is_out_of_memory
from actors.self_check import make_scorer, packing_checked, prepack_checked, vocabulary_size
from engine.errors import ConfigError, ModelError
from engine.generations import GenerationAnswer, GenerationAsk
from engine.gradients import GradientAnswer, GradientAsk
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
    {"batch_tokens", "prefix_cache", "prepack", "packing", "admit_tokens", "remember"}
)


class TransformersBackend:
    """A causal language model behind the contract of a host.

    Args:
        spec: Options: `batch_tokens`, `prefix_cache`, `prepack`, `packing`.

    Raises:
        ConfigError: An option is unknown.
    """

    def __init__(self, spec: HostSpec) -> None:
        unknown = sorted(set(spec.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"the transformers backend has no option {unknown[0]!r}: use "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        self._spec = spec
        self.model: PreTrainedModel | None = None
        self._scorer: LabelScorer | None = None
        self._packed: PackedForward | None = None
        self._packed_up_to: int | None = None
        self._takes_positions = False
        self._runner: GradientRunner | None = None
        self._max_tokens: int | None = None
        self._vocabulary = 0
        self.batch_tokens = int(spec.options.get("batch_tokens", CPU_BATCH_TOKENS))

    def load(self) -> HostInfo:
        """Load the model on the calling thread, which alone may then score with it.

        Raises:
            ModelError: It can't be found or loaded, or its family can't be scored in batches.
        """
        # Read when torch is first imported, so of no effect where something else did that before.
        # Threads that spin while they wait for one another take the cores that step tasks want: on
        # two cores with two other busy processes 6 to 30 sequences a second, asleep a steady 15 to
        # 25, in six interleaved runs.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        started = time.perf_counter()
        if self._spec.threads:
            # of the calling thread: OpenMP would otherwise follow the OMP_NUM_THREADS that Ray sets
            torch.set_num_threads(self._spec.threads)
        source = resolve_model(self._spec.model)
        self.model = model = load_model(
            source, self._spec.precision, self._spec.device, self._spec.double_quant
        )
        if model.device.type == "cuda" and "batch_tokens" not in self._spec.options:
            self.batch_tokens = GPU_BATCH_TOKENS
        kept = int(self._spec.options.get("prefix_cache", PREFIXES_KEPT))
        self._scorer, scorer = make_scorer(model, kept)
        # now that quantized layers have had their first pass, at which some are laid out anew, and
        # before others are put into a layout whose bytes can't be counted
        parameters, memory = model.num_parameters(), footprint(model)
        if self._spec.options.get("prepack", True) and prepack_checked(model, self._scorer):
            scorer = f"{scorer}+prepacked"
        self._takes_positions = self._scorer.takes_positions
        if self._spec.options.get("packing", True):
            packed = packing_checked(model, self._scorer.reading, kept)
            if packed is not None:
                self._packed, self._packed_up_to = packed
                scorer = f"packed+{scorer}"
        self._max_tokens = model_window(model.config)
        self._vocabulary = vocabulary_size(model)
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
            precision=precision_of(model),
        )

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        """Return the errors of prompts that are empty, too long, or outside the vocabulary."""
        if task.adapter:
            raise ModelError(
                f"this host of {self._spec.model} has no adapter {task.adapter}: run without one"
            )
        errors: dict[int, str] = {}
        lengths = batch.sequences.lengths
        longest = lengths + max(map(len, task.label_ids)) - 1
        if self._max_tokens:
            for row in np.flatnonzero(longest > self._max_tokens).tolist():
                errors[row] = (
                    f"the prompt and its label have {longest[row]} tokens, the model takes "
                    f"{self._max_tokens}: shorten the text or the template"
                )
        flat = batch.sequences.flat
        for place in np.flatnonzero((flat < 0) | (flat >= self._vocabulary)).tolist():
            row = int(np.searchsorted(batch.sequences.offsets, place, side="right")) - 1
            errors[row] = (
                f"the prompt has token ids outside the vocabulary of {self._vocabulary}: the "
                "tokenizer belongs to another model"
            )
        if batch.hidden is not None and not self._takes_positions:
            for row in np.flatnonzero(batch.hidden.lengths).tolist():
                errors[row] = (
                    "this model family takes no position ids, so positions can't be hidden: use "
                    "another masking operator than pad"
                )
        return errors | dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "the prompt is empty")

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        """Score checked prompts: packed, or in padded batches where that can't be."""
        assert self._scorer is not None, "load the model before asking it for scores"
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
            return self._packed.score(batch, task.label_ids, own_prefix=task.by_example)
        except BackendOutOfMemoryError:
            pass  # some prompt may still fit: there each has an answer or an error of its own
        return self._in_buckets(batch, task)

    def _in_buckets(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        return score_in_buckets(self._padded, batch, task.label_ids, self.batch_tokens)

    def _padded(
        self, prompts: list[ScoreSequence], label_ids: Sequence[Ids], prefix: int
    ) -> BatchScores:
        import torch

        assert self._scorer is not None
        try:
            return self._scorer.score(prompts, label_ids, prefix)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0]
        # outside the handler: its traceback would hold the batch's tensors while they are halved
        free_memory()
        raise BackendOutOfMemoryError(message)

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
        if self._runner is None:
            self._runner = GradientRunner(self.model, self.batch_tokens // _GRADIENT_SHARE)
        return self._runner.run(ask, task.label_ids)

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
        return continue_greedily(self.model, ask)


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
