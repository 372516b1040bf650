"""What a configuration says of its family: where LoRA goes, how large it is, how it is scored.

The modules are made on torch's meta device, which has shapes and no memory, so that nothing is
guessed from names of families and no weights are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from actors.memory_need import memory_needs
from engine.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

Targets = Literal["all-linear", "attention", "query-value"]
"""Which projections a LoRA wraps: all of the decoder's blocks, those of attention, or what makes
queries and values (Hu et al. 2021), with keys where one matrix makes all three."""

_QUERY_VALUE = {
    "q_proj", "v_proj", "q_b_proj", "kv_b_proj",
    "query_key_value", "qkv_proj", "Wqkv", "c_attn",
}  # fmt: skip

_PACKED = {
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text",
    "phi", "phi3", "smollm3", "gpt_neox", "granite", "granitemoe", "olmo", "olmo2", "cohere",
    "cohere2", "stablelm", "starcoder2", "glm", "deepseek_v3", "gpt2", "opt", "gptj",
}  # fmt: skip
_BATCHED = {"bloom", "mpt", "gpt_neo", "gpt_oss", "mamba", "falcon_mamba", "recurrent_gemma"}

_VLLM_ADAPTERS = {
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text",
    "phi", "phi3", "smollm3", "gpt_neox", "granite", "granitemoe", "olmo", "olmo2", "cohere",
    "cohere2", "starcoder2", "glm", "opt", "deepseek_v3", "gpt_oss",
}  # fmt: skip
"""Families whose model class in vLLM 0.32 takes LoRA adapters."""
_VLLM_NO_ADAPTERS = {
    "gpt2", "stablelm", "gptj", "falcon", "bloom", "mpt", "gpt_neo", "mamba", "falcon_mamba",
    "recurrent_gemma",
}  # fmt: skip

_STATE_SPACE = {"mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h"}
"""Families whose kernels read the matrix of `out_proj` themselves, past any wrapping of it."""

_FUSED = ".gate_up_proj"
"""End of the name of experts' first matrices where they are one tensor of three dimensions."""
_EXPERTS = {"gate_proj", "up_proj", "down_proj"}
"""What the experts' matrices were called while each was a layer of its own."""


class FamilyFacts(NamedTuple):
    """What a configuration says of a model.

    Attributes:
        architecture: Name of transformers' class.
        model_type: Name of the family.
        parameters: Number of weights; those of tied matrices counted once.
        layers: Number of decoder blocks.
        hidden: Width of the states between them.
        lora_targets: The projections that a LoRA on all linear layers wraps.
        packs: Whether prompts are packed into a trie; None where it is found out at load only.
        vllm_adapters: Whether vLLM serves LoRA adapters of the family; None where it isn't known.
        memory: Precision -> bytes of the weights alone on the device, as `memory_needs` has them.
    """

    architecture: str
    model_type: str
    parameters: int
    layers: int
    hidden: int
    lora_targets: tuple[str, ...]
    packs: bool | None
    vllm_adapters: bool | None
    memory: Mapping[str, int]


def lora_targets(config: Any, targets: Targets = "all-linear") -> tuple[str, ...]:
    """Return the projections that a LoRA wraps, as peft's `target_modules` takes them.

    Linear layers outside the repeated blocks (the output head, projections of embeddings) are never
    among them, and neither are experts that are one tensor of three dimensions (which peft's own
    `all-linear` adds for Mixtral and Qwen). Beside such experts dense layers called `gate_proj`,
    `up_proj` and `down_proj` (DeepSeek) are left out too: peft takes these names for the experts',
    and hosts take no adapters of experts (`actors.adapter_checks`). A name is as short as it can be
    without meaning another module too: `c_proj` is `attn.c_proj` where only GPT-2's attention is
    asked for.

    Args:
        config: A transformers configuration.
        targets: Which.

    Returns:
        Names in the order of a block; layers that have others follow.

    Raises:
        ModelError: The family has no such projections, or transformers doesn't know it.
    """
    model = _skeleton(config)
    wanted = {
        name
        for name, module in _block_linears(model)
        if targets == "all-linear"
        or (
            _in_attention(model, name)
            and (targets == "attention" or name.rpartition(".")[2] in _QUERY_VALUE)
        )
    }
    if not wanted:
        raise ModelError(
            f"{config.model_type} has no {targets} projections that LoRA could wrap: use "
            "`all-linear`, or name the modules"
        )
    others = [name for name, _ in model.named_modules() if name and name not in wanted]
    order = [name for name, _ in _block_linears(model) if name in wanted]
    return tuple(dict.fromkeys(_shortest(name, others) for name in order))


def family_facts(config: Any, device: str = "cpu", folder: str | None = None) -> FamilyFacts:
    """Return the facts of a configuration.

    Args:
        config: A transformers configuration.
        device: `cpu` or `cuda:N`: what isn't quantized takes 4 bytes a weight on a CPU, else 2.
        folder: The model's files, whose sizes count where they are quantized already; or None.

    Raises:
        ModelError: transformers has no causal model of this family.
    """
    model = _skeleton(config)
    text = config.get_text_config(decoder=True)
    return FamilyFacts(
        architecture=type(model).__name__,
        model_type=config.model_type,
        parameters=model.num_parameters(),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        lora_targets=lora_targets(config),
        packs=packs(config),
        vllm_adapters=vllm_adapters(config.model_type),
        memory={k: need.weight_bytes for k, need in memory_needs(config, device, folder).items()},
    )


def packs(config: Any) -> bool | None:
    """Return whether prompts of this family are packed; None where a host finds out at load.

    The families are those of `tests/models/test_packed.py`.
    """
    if config.model_type == "falcon":
        return not config.alibi
    return (
        True if config.model_type in _PACKED else False if config.model_type in _BATCHED else None
    )


def vllm_adapters(model_type: str) -> bool | None:
    """Return whether vLLM 0.32 serves LoRA adapters of a family; None where it isn't known."""
    if model_type in _VLLM_ADAPTERS:
        return True
    return False if model_type in _VLLM_NO_ADAPTERS else None


def default_config(model_type: str) -> Any:
    """Return transformers' default configuration of a family: its modules, not a model's sizes.

    Raises:
        ModelError: transformers doesn't know the family.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ModelError(f"transformers doesn't know the family {model_type!r}") from error


def _skeleton(config: Any) -> Any:
    """Return the causal model of a configuration, without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return auto.from_config(config)
    except (ValueError, KeyError, ImportError, AttributeError) as error:
        raise ModelError(
            f"transformers has no causal model of the family {config.model_type!r}: {error}"
        ) from error


def _block_linears(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear layers within the decoder's repeated blocks by their names."""
    import torch
    from transformers.pytorch_utils import Conv1D

    decoder = model.get_decoder()
    inside = next(f"{name}." for name, module in model.named_modules() if module is decoder)
    fused = any(name.endswith(_FUSED) and p.dim() == 3 for name, p in model.named_parameters())
    for name, module in model.named_modules():
        parts = name.split(".")
        if fused and parts[-1] in _EXPERTS:
            continue
        if not isinstance(module, torch.nn.Linear | Conv1D) or not name.startswith(inside):
            continue
        if parts[-1] == "out_proj" and model.config.model_type in _STATE_SPACE:
            continue
        if any(part.isdigit() for part in parts):
            yield name, module


def _in_attention(model: Any, name: str) -> bool:
    """Return whether a module belongs to attention: some class around it is called so."""
    parts = name.split(".")
    around = (model.get_submodule(".".join(parts[:i])) for i in range(1, len(parts)))
    return any("Attention" in type(module).__name__ for module in around)


def _shortest(name: str, others: list[str]) -> str:
    """Return the shortest end of a name that no other module's name has; peft matches ends."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        end = ".".join(parts[i:])
        if not any(other == end or other.endswith(f".{end}") for other in others):
            return end
    return name
