"""Label scoring with a transformers causal language model."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.backend import BackendOutOfMemoryError, HostInfo, HostSpec, Scores, digest_text
from actors.batching import ScoreSequence
from actors.loader import load_model, model_window, resolve_model
from actors.self_check import make_scorer, prepack_checked, vocabulary_size
from engine.errors import ConfigError, ModelError
from engine.gradients import GradientAnswer, GradientAsk
from engine.schema import ScoreTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from actors.gradients import GradientRunner
    from actors.label_scorer import LabelScorer

CPU_BATCH_TOKENS = 2048
"""Measured on two cores at 512, 1024 and 2048 tokens: docs/models.md."""

GPU_BATCH_TOKENS = 32_768
PREFIXES_KEPT = 8

_GRADIENT_SHARE = 4
"""Of the tokens of a batch, how many gradients are computed of at a time: the activations of all
layers are kept for the way back. SmolLM2-135M in fp32 on a CPU took 0.8 GB for 512 tokens."""

_OPTIONS = frozenset({"batch_tokens", "prefix_cache", "prepack", "admit_tokens"})
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class TransformersBackend:
    """A causal language model behind the contract of a host.

    Args:
        spec: Options: `batch_tokens`, `prefix_cache`, `prepack`.

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
        self._scorer: LabelScorer | None = None
        self._model: PreTrainedModel | None = None
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
        self._model = model = load_model(source, self._spec.precision, self._spec.device)
        if model.device.type == "cuda" and "batch_tokens" not in self._spec.options:
            self.batch_tokens = GPU_BATCH_TOKENS
        kept = int(self._spec.options.get("prefix_cache", PREFIXES_KEPT))
        parameters, memory = model.num_parameters(), _bytes(model)
        self._scorer, scorer = make_scorer(model, kept)
        if self._spec.options.get("prepack", True) and prepack_checked(model, self._scorer):
            scorer = f"{scorer}+prepacked"
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
        )

    def check(self, sequence: ScoreSequence, task: ScoreTask) -> None:
        """Raise ValueError for a prompt that is empty, too long, or outside the vocabulary."""
        if task.adapter:
            raise ModelError(
                f"this host of {self._spec.model} has no adapter {task.adapter}: run without one"
            )
        if not sequence.ids:
            raise ValueError("the prompt is empty")
        longest = len(sequence.ids) + max(map(len, task.label_ids)) - 1
        if self._max_tokens and longest > self._max_tokens:
            raise ValueError(
                f"the prompt and its label have {longest} tokens, the model takes "
                f"{self._max_tokens}: shorten the text or the template"
            )
        if min(sequence.ids) < 0 or max(sequence.ids) >= self._vocabulary:
            raise ValueError(
                f"the prompt has token ids outside the vocabulary of {self._vocabulary}: the "
                "tokenizer belongs to another model"
            )
        if sequence.hidden and not self._scorer_or_raise().takes_positions:
            raise ValueError(
                "this model family takes no position ids, so positions can't be hidden: use "
                "another masking operator than pad"
            )

    def score(self, sequences: Sequence[ScoreSequence], task: ScoreTask, prefix: int) -> Scores:
        """Score a batch of checked prompts."""
        import torch

        try:
            return self._scorer_or_raise().score(sequences, task.label_ids, prefix)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not any(words in str(error).lower() for words in _NO_MEMORY):
                raise
            message = str(error).splitlines()[0]
        # outside the handler: its traceback would hold the batch's tensors while they are halved
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise BackendOutOfMemoryError(message)

    def gradients(self, ask: GradientAsk, task: ScoreTask) -> GradientAnswer:
        """Return the gradients that one explainer needs of one prompt.

        Raises:
            ValueError: The prompt can't be scored, or its gradients can't be had.
            ModelError: The family can't be differentiated.
        """
        from actors.gradients import GradientRunner

        self.check(ScoreSequence(ask.ids), task)
        if self._runner is None:
            self._runner = GradientRunner(self._model, self.batch_tokens // _GRADIENT_SHARE)
        return self._runner.run(ask, task.label_ids)

    def _scorer_or_raise(self) -> LabelScorer:
        if self._scorer is None:
            raise RuntimeError("load the model before asking it for scores")
        return self._scorer


def _bytes(model: PreTrainedModel) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _numerics(model: PreTrainedModel, scorer: str) -> str:
    """Return what makes results differ in the last bits, for people."""
    import torch
    import transformers

    if model.device.type == "cuda":
        kind = torch.cuda.get_device_name(model.device)
    else:
        kind = f"{model.device.type} {torch.backends.cpu.get_cpu_capability()}"
    dtype = str(model.dtype).removeprefix("torch.")
    attention = model.config._attn_implementation
    return (
        f"{dtype}; {kind}; {attention}; {scorer}; torch {torch.__version__}; "
        f"transformers {transformers.__version__}"
    )
