"""Label scoring and generation with vLLM, behind the contract of a host."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from actors.adapter_files import read_adapter
from actors.adapter_support import vllm_refusal
from actors.backend import HostInfo, HostSpec, Scores, SequenceBatch, SwapCounts, digest_text
from actors.checkpoint import stored_bytes, stored_parameters
from actors.label_tree import label_tree
from actors.loader import resolve_model
from actors.prompt_errors import prompt_errors
from actors.vllm_engine import MOST_TOKENS, Read, VllmEngine
from actors.vllm_settings import check_options, require_vllm
from engine.errors import ModelError
from engine.generations import GenerationAnswer, GenerationAsk
from engine.packing import build_trie
from engine.ragged import Ragged, distinct
from engine.schema import ScoreTask


class VllmBackend:
    """A causal language model in vLLM: the base and its LoRA adapters on one copy of the weights.

    Log Z is not among its answers: vLLM hands out log-probabilities, the logits' normaliser stays
    inside. It is NaN in `Scores` and null in the tables.

    Args:
        spec: Options: `block_size`, `gpu_memory_utilization`, `kv_cache_memory_bytes`, `max_loras`,
            `max_model_len`, `max_num_seqs`, `tensor_parallel`.

    Raises:
        ConfigError: An option is unknown or out of range.
        ModelError: vLLM isn't installed.
    """

    def __init__(self, spec: HostSpec) -> None:
        check_options(spec.options)
        require_vllm()
        self._spec = spec
        self._engine: VllmEngine | None = None
        self._ends: list[int] = []

    @property
    def engine(self) -> VllmEngine:
        """The loaded engine."""
        assert self._engine is not None, "load the model before asking it for anything"
        return self._engine

    def load(self) -> HostInfo:
        """Load the model on the calling thread, which alone may then ask it.

        Raises:
            ModelError: It or an adapter can't be found, or vLLM can't serve it.
        """
        started = time.perf_counter()
        # threads that spin while they wait take the cores that step tasks want; see hf_host
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        spec = self._spec
        source = resolve_model(spec.model)
        adapters = {}
        for digest, folder in spec.adapters.items():
            files = read_adapter(folder)
            if why := vllm_refusal(files.config):
                raise ModelError(f"adapter {folder!r}: {why}; use backend transformers")
            if files.digest != digest:
                raise ModelError(
                    f"adapter {folder!r} has changed since the sweep was planned; run it again"
                )
            adapters[digest] = files
        self._engine = engine = VllmEngine(
            source.location, spec.precision, spec.device, spec.threads, spec.options, adapters
        )
        self._ends = _ends(source.location)
        parameters = stored_parameters(source.location) or 0
        import torch

        numerics = _numerics(engine)
        return HostInfo(
            model=spec.model,
            weights=source.digest,
            parameters=parameters,
            memory_bytes=engine.weight_bytes(parameters) or stored_bytes(source.location),
            load_seconds=time.perf_counter() - started,
            device=engine.device,
            scorer="vllm",
            numerics=digest_text(numerics),
            numerics_text=numerics,
            max_tokens=engine.max_tokens,
            threads=torch.get_num_threads(),
            adapters_kept=engine.adapters_kept,
        )

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        """Return the errors of prompts that are empty, too long, or outside the vocabulary.

        Raises:
            ModelError: The host was not made for the task's adapter.
        """
        if task.adapter and task.adapter not in self._spec.adapters:
            raise ModelError(
                f"this host of {self._spec.model} has no adapter {task.adapter}: it was not among "
                "those that it was made for"
            )
        engine = self.engine
        errors = prompt_errors(batch, task, engine.max_tokens, engine.vocabulary)
        if batch.hidden is not None:
            for row in np.flatnonzero(batch.hidden.lengths).tolist():
                errors[row] = (
                    "vLLM can't hide positions: use another masking operator than pad, or backend "
                    "transformers"
                )
        return errors

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        """Score checked prompts, equal ones once.

        A label of several tokens is read token by token, each behind the prompt and the label's
        tokens before it. Prompts are handed over in lexical order, so that those that begin alike
        follow one another and find that beginning in the prefix cache.

        Raises:
            ModelError: The adapter can't be loaded, or has no effect.
        """
        tree = label_tree(task.label_ids, MOST_TOKENS)
        if not batch.n_rows:
            none = np.zeros((0, len(task.label_ids)), dtype=np.float32)
            return Scores(none, np.zeros(0, dtype=np.float32), 0, 0, 0)
        self.engine.switch(task.adapter)
        if task.by_example:
            self.engine.forget()  # what the cache holds moves the last bits
        first, which = distinct(batch.sequences)
        prompts = batch.sequences.take(first).to_lists()
        rows = [[*ids, *node.beginning] for ids in prompts for node in tree.nodes]
        reads = [Read(row, tree.nodes[i % len(tree.nodes)].tokens) for i, row in enumerate(rows)]
        order = sorted(range(len(reads)), key=lambda i: rows[i])
        found, computed = self.engine.read([reads[i] for i in order], task.adapter)
        by_read: list[Sequence[float]] = [()] * len(reads)
        for i, values in zip(order, found, strict=True):
            by_read[i] = values
        flat = np.array([value for values in by_read for value in values])
        log_probs = tree.sums(flat.reshape(len(prompts), tree.width))
        return Scores(
            log_probs[which],
            np.full(batch.n_rows, np.nan, dtype=np.float32),
            computed,
            build_trie(Ragged.of(rows)).n_nodes,
            len(prompts),
        )

    def swap_counts(self) -> SwapCounts:
        """Return what switching adapters cost so far; loads are first ones, vLLM keeps its own."""
        return SwapCounts() if self._engine is None else self._engine.swaps

    def generate(self, ask: GenerationAsk, task: ScoreTask) -> GenerationAnswer:
        """Return the model's greedy continuation of one prompt.

        Raises:
            ValueError: The prompt can't be scored, or has no room behind it.
            ModelError: The task can't be served.
        """
        started = time.perf_counter()
        # room is asked for as if the longest continuation were a label
        longest = replace(task, label_ids=((0,) * ask.max_new_tokens,))
        errors = self.check(SequenceBatch(Ragged.of([ask.ids]), None), longest)
        if errors:
            raise ValueError(errors[0])
        self.engine.switch(task.adapter)
        new, computed = self.engine.go_on(ask.ids, ask.max_new_tokens, self._ends, task.adapter)
        kept = new[:-1] if new and new[-1] in self._ends else new
        return GenerationAnswer(tuple(kept), computed, time.perf_counter() - started)


def _ends(folder: str) -> list[int]:
    """Return the tokens that end a text, as `actors.generation` finds them."""
    from transformers import AutoConfig, GenerationConfig

    end = None
    if (Path(folder) / "generation_config.json").is_file():
        end = GenerationConfig.from_pretrained(folder).eos_token_id
    if end is None:
        end = AutoConfig.from_pretrained(folder).get_text_config(decoder=True).eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)


def _numerics(engine: VllmEngine) -> str:
    """Return what makes results differ in the last bits, for people."""
    import torch
    import vllm
    from vllm.platforms import current_platform

    kind = str(current_platform.get_device_name())
    if engine.device == "cpu":
        kind = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return (
        f"{engine.dtype}; {kind}; {engine.settings}; vllm {vllm.__version__}; torch "
        f"{torch.__version__}"
    )
