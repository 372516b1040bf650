"""vLLM in this process: loading it, reading next tokens' log-probabilities, going on greedily."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from actors.adapter_files import AdapterFiles
from actors.adapter_support import adapter_rank
from actors.backend import SwapCounts
from actors.vllm_settings import engine_arguments, set_environment
from engine.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

MOST_TOKENS = 128
"""Next tokens that vLLM reads at one place (`vllm.sampling_params`)."""

_CANARY = 8
_CANARY_TOKENS = 64


class Read(NamedTuple):
    """One place at which next tokens are read.

    Attributes:
        ids: All tokens before it.
        tokens: The next tokens, at most `MOST_TOKENS`.
    """

    ids: list[int]
    tokens: tuple[int, ...]


class Continued(NamedTuple):
    """A greedy continuation.

    Attributes:
        ids: Its tokens, the one that ended it included.
        computed: Tokens that went through the model.
    """

    ids: list[int]
    computed: int


class VllmEngine:
    """A model in vLLM. All calls come from the thread that made it.

    Args:
        folder: Of the model.
        precision: As of `engine_arguments`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`: must be what this vLLM was built for.
        threads: Of the model on a CPU; 0 leaves the library's own choice.
        options: Of the backend.
        adapters: Digest of each LoRA adapter that may be asked for -> its files.

    Raises:
        ModelError: vLLM can't load it.
    """

    def __init__(
        self,
        folder: str,
        precision: str = "auto",
        device: str = "auto",
        threads: int = 0,
        options: Mapping[str, Any] | None = None,
        adapters: Mapping[str, AdapterFiles] | None = None,
    ) -> None:
        set_environment(threads)
        import torch
        from vllm import LLM
        from vllm.platforms import current_platform

        if threads:
            torch.set_num_threads(threads)
        self.device = str(current_platform.device_type)
        if device != "auto" and device.partition(":")[0] != self.device:
            raise ModelError(
                f"device {device} was asked for, but this vLLM is built for {self.device}: leave "
                "it out or use backend transformers"
            )
        self._adapters = dict(adapters or {})
        self._numbers = {digest: number for number, digest in enumerate(self._adapters, 1)}
        self._quantized = _is_quantized(folder)
        arguments = engine_arguments(
            folder,
            precision,
            options or {},
            on_cpu=self.device == "cpu",
            quantized=self._quantized,
            ranks=[adapter_rank(files.config) for files in self._adapters.values()],
        )
        try:
            self._llm = LLM(**arguments)
        except (ValueError, RuntimeError, OSError, KeyError, ImportError) as error:
            raise ModelError(f"vLLM can't load {folder}: {error}") from error
        self._config = self._llm.llm_engine.vllm_config
        self._base_canary: npt.NDArray[np.float64] | None = None
        self._canaries: dict[str, npt.NDArray[np.float64]] = {}
        self._last = ""
        self.swaps = SwapCounts()

    @property
    def max_tokens(self) -> int:
        """Longest prompt; vLLM keeps room for the one token that it makes."""
        return int(self._config.model_config.max_model_len) - 1

    @property
    def adapters_kept(self) -> int:
        """Most adapters in memory, 0 where none is served."""
        config = self._config.lora_config
        return 0 if config is None else int(config.max_cpu_loras or config.max_loras)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self._config.model_config.get_vocab_size())

    @property
    def dtype(self) -> str:
        """Number format of the products."""
        return str(self._config.model_config.dtype).removeprefix("torch.")

    def weight_bytes(self, parameters: int) -> int | None:
        """Return what so many weights take, or None where they are quantized."""
        width: int = self._config.model_config.dtype.itemsize
        return None if self._quantized else parameters * width

    @property
    def settings(self) -> str:
        """What decides the last bits of the answers besides hardware and versions, for people."""
        cache = self._config.cache_config
        parallel = self._config.parallel_config.tensor_parallel_size
        found = f"vllm, blocks of {cache.block_size}"
        if parallel > 1:
            found += f", on {parallel} devices"
        return found + (", LoRA" if self._adapters else "")

    def forget(self) -> None:
        """Forget all prompts: the next answers don't depend on earlier ones."""
        self._llm.reset_prefix_cache()

    def read(self, reads: Sequence[Read], adapter: str = "") -> tuple[list[list[float]], int]:
        """Return the log-probabilities of next tokens under the full vocabulary.

        Args:
            reads: Within the model's window, no token outside its vocabulary.
            adapter: Digest of the adapter, or "" for the base.

        Returns:
            Those of each read's tokens, and how many tokens were computed: the rest was in the
            prefix cache.
        """
        from vllm import SamplingParams

        kinds = {
            tokens: SamplingParams(
                max_tokens=1,
                temperature=0.0,
                logprob_token_ids=list(tokens),
                detokenize=False,
                ignore_eos=True,
            )
            for tokens in {read.tokens for read in reads}
        }
        outputs = self._run([r.ids for r in reads], [kinds[r.tokens] for r in reads], adapter)
        found, computed = [], 0
        for read, output in zip(reads, outputs, strict=True):
            (log_probs,) = output.outputs[0].logprobs  # of the one token that was made
            found.append([log_probs[token].logprob for token in read.tokens])
            computed += len(read.ids) - (output.num_cached_tokens or 0)
        return found, computed

    def go_on(
        self, ids: Sequence[int], most: int, ends: Sequence[int], adapter: str = ""
    ) -> Continued:
        """Return the greedy continuation of one prompt.

        Args:
            ids: The prompt.
            most: Most tokens of the continuation.
            ends: Tokens that end a text.
            adapter: As of `read`.
        """
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=most,
            temperature=0.0,
            stop_token_ids=list(ends),
            ignore_eos=True,  # the tokens that end a text are those given, no others
            detokenize=False,
        )
        [output] = self._run([list(ids)], [params], adapter)
        new = list(output.outputs[0].token_ids)
        fed = len(ids) + max(len(new) - 1, 0)  # the last token is never fed
        return Continued(new, fed - (output.num_cached_tokens or 0))

    def switch(self, adapter: str) -> None:
        """Load an adapter where it isn't, and make sure that it is the one that answers.

        A canary prompt is read at every change: an adapter's first reading has to differ from the
        base's, and later ones have to be the first again.

        Raises:
            ModelError: There is no such adapter, or vLLM can't load it.
            AdapterError: Its canary says that it is not what answers.
        """
        if adapter and adapter not in self._adapters:
            raise ModelError(f"this host has no adapter {adapter}: it wasn't there at planning")
        if adapter == self._last:
            return
        started = time.perf_counter()
        loads = int(bool(adapter) and adapter not in self._canaries)
        if adapter:
            if self._base_canary is None:
                self._base_canary = self._read_canary("")
            self._load(adapter)
            self._compare(adapter, self._base_canary)
        self._last = adapter
        seconds = self.swaps.swap_seconds + time.perf_counter() - started
        self.swaps = SwapCounts(self.swaps.swaps + 1, seconds, self.swaps.adapter_loads + loads)

    def _load(self, adapter: str) -> None:
        try:
            self._llm.llm_engine.add_lora(self._request(adapter))
        except Exception as error:  # vLLM's share no class; the engine is between two steps
            folder = self._adapters[adapter].folder
            raise ModelError(f"vLLM can't load the adapter {folder}: {error}") from error

    def _compare(self, adapter: str, base: npt.NDArray[np.float64]) -> None:
        """Compare the canary with the base's, or with the adapter's own first reading."""
        found = self._read_canary(adapter)
        folder = self._adapters[adapter].folder
        first = self._canaries.get(adapter)
        if first is None:
            if np.array_equal(found, base):
                raise AdapterError(
                    f"the adapter {folder} has no effect: a canary prompt reads as under the base. "
                    "It is untrained, or of another model"
                )
            self._canaries[adapter] = found
        elif np.abs(found - first).max() > 0.1 * np.abs(first - base).max():
            raise AdapterError(
                f"the adapter {folder} doesn't answer as at first: a canary prompt is "
                f"{np.abs(found - first).max():.2g} away, where the adapter's whole effect is "
                f"{np.abs(first - base).max():.2g}"
            )

    def _read_canary(self, adapter: str) -> npt.NDArray[np.float64]:
        """Return log-probabilities behind a fixed prompt, tokens spread over the vocabulary."""
        size = self.vocabulary
        ids = [(7919 * i + 13) % size for i in range(_CANARY)]
        tokens = sorted({(104_729 * i + 7) % size for i in range(_CANARY_TOKENS)})
        [found], _ = self.read([Read(ids, tuple(tokens))], adapter)
        return np.array(found)

    def _request(self, adapter: str) -> Any:
        """Return how vLLM names an adapter; its prefix cache tells adapters apart by this name."""
        from vllm.lora.request import LoRARequest

        folder = str(self._adapters[adapter].folder)
        return LoRARequest(adapter, self._numbers[adapter], folder)

    def _run(
        self, prompts: Sequence[list[int]], params: Sequence[SamplingParams], adapter: str
    ) -> list[RequestOutput]:
        """Return vLLM's outputs, in order; ends the process where the engine dies.

        Raises:
            ValueError: vLLM refuses a prompt; none of them is left in its queue.
        """
        self._llm.enqueue(
            [{"prompt_token_ids": ids} for ids in prompts],
            params,
            lora_request=self._request(adapter) if adapter else None,
            use_tqdm=False,
        )
        try:
            outputs: list[RequestOutput] = self._llm.wait_for_completion(use_tqdm=False)
        except Exception as error:
            end_process(error)
        return outputs


def end_process(error: BaseException) -> NoReturn:
    """End this process at once: an engine that failed in a step can't be used again.

    Its queue still holds the requests of the failed step, and with them its memory. A new host is
    started in place of this one, and what was asked here is asked there.
    """
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


def _is_quantized(folder: str) -> bool:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return getattr(config, "quantization_config", None) is not None
