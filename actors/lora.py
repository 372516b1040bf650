"""A fresh LoRA adapter on a loaded base, plain or quantized."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelError
from engine.finetune_section import FinetuneConfig

CHECKPOINTING = {"use_reentrant": False}
"""How torch computes activations a second time."""


def with_adapter(model: Any, entry: FinetuneConfig) -> Any:
    """Return the peft model of a base with a fresh adapter, which alone is trained.

    Args:
        model: As `load_model` gives it; quantized bases are prepared as QLoRA wants it.
        entry: The recipe.
    """
    import peft

    library: Any = peft  # its functions have no types
    if getattr(model, "is_quantized", False):
        from actors.quantized import make_differentiable

        make_differentiable(model)
        model = library.prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=entry.gradient_checkpointing,
            gradient_checkpointing_kwargs=CHECKPOINTING,
        )
    config = library.LoraConfig(
        r=entry.rank,
        lora_alpha=entry.alpha,
        lora_dropout=entry.dropout,
        target_modules=target_modules(model, entry.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return library.get_peft_model(model, config)


def target_modules(model: Any, targets: str | list[str]) -> str | list[str]:
    """Return the layers that get an adapter, as peft takes them.

    Raises:
        ModelError: `attention` is wanted and no linear layer stands below a module named so.
    """
    if targets in ("auto", "all-linear"):
        return "all-linear"
    if targets != "attention":
        return list(targets)
    import torch
    from transformers.pytorch_utils import Conv1D

    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and any("attn" in part or "attention" in part for part in name.split(".")[:-1])
    }
    if not found:
        raise ModelError("no linear layer of an attention is found: name finetune.targets")
    return sorted(found)
