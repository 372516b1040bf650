"""Which LoRA adapters vLLM can serve, told from configurations and families; imports no vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from actors.families import vllm_adapters

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM 0.32 reserves room for (`vllm.config.lora.MaxLoRARanks`)."""

_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Initial values of the adapter alone; others change the base's weights when peft loads it."""

_UNSERVED = {
    "use_dora": "DoRA scales the columns of the adapted matrix, which vLLM doesn't",
    "lora_bias": "vLLM has no bias behind the second matrix (lora_bias)",
    "alora_invocation_tokens": "vLLM can't switch an adapter on within a prompt (aLoRA)",
    "layer_replication": "vLLM doesn't replicate layers (layer_replication)",
    "use_bdlora": "vLLM has no block-diagonal LoRA",
    "use_qalora": "vLLM has no QALoRA",
    "trainable_token_indices": "vLLM doesn't replace single rows of the embeddings",
    "modules_to_save": "vLLM loads no whole modules beside the two matrices (modules_to_save)",
    "target_parameters": "vLLM adapts modules, not single parameters (target_parameters)",
}


def vllm_refusal(adapter_config: Mapping[str, Any]) -> str | None:
    """Return why vLLM can't serve an adapter, or None where it can.

    The rules are those of vLLM 0.32's `PEFTHelper` and of its loader, told before anything is
    loaded.

    Args:
        adapter_config: Content of the adapter's `adapter_config.json`.
    """
    kind = adapter_config.get("peft_type", "LORA")
    if kind != "LORA":
        return f"vLLM serves LoRA adapters only, this one is {kind}"
    for key, why in _UNSERVED.items():
        if adapter_config.get(key):
            return why
    if adapter_config.get("bias", "none") != "none":
        return f"vLLM trains no biases beside the matrices (bias={adapter_config['bias']!r})"
    init = adapter_config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        return (
            f"its initial values ({init}) change the base's weights, which vLLM's requests share; "
            "save it again with peft's path_initial_model_for_weight_conversion"
        )
    rank = adapter_rank(adapter_config)
    if not 1 <= rank <= VLLM_RANKS[-1]:
        return f"its rank is {rank}, vLLM takes 1 to {VLLM_RANKS[-1]}"
    return None


def vllm_family_refusal(model_type: str) -> str | None:
    """Return why vLLM serves no adapter at all of a family; None where it does, or unknown.

    An engine that is to take adapters doesn't even load such a model, without adapters it does.

    Args:
        model_type: Name of the family in transformers.
    """
    if vllm_adapters(model_type) is False:
        return f"vLLM serves no LoRA adapters of the family {model_type}"
    return None


def adapter_rank(adapter_config: Mapping[str, Any]) -> int:
    """Return the largest rank of an adapter's modules."""
    ranks = [adapter_config.get("r", 8), *(adapter_config.get("rank_pattern") or {}).values()]
    return max(int(rank) for rank in ranks)


def vllm_rank(ranks: Iterable[int]) -> int:
    """Return the least rank that vLLM can reserve for adapters of these ranks.

    Raises:
        ValueError: One is larger than vLLM takes.
    """
    largest = max(ranks)
    for rank in VLLM_RANKS:
        if rank >= largest:
            return rank
    raise ValueError(f"an adapter has rank {largest}, vLLM takes at most {VLLM_RANKS[-1]}")
