"""A fresh LoRA adapter on a loaded base, plain or quantized."""

from __future__ import annotations

from typing import Any

from actors.families import lora_targets
from engine.errors import ModelError
from engine.finetune_section import FinetuneConfig

CHECKPOINTING = {"use_reentrant": False}
"""How torch computes activations a second time."""


def with_adapter(model: Any, entry: FinetuneConfig) -> Any:
    """Return the peft model of a base with a fresh adapter, which alone is trained.

    Args:
        model: As `load_model` gives it; quantized bases are prepared as QLoRA wants it.
        entry: The recipe.

    Raises:
        ModelError: The recipe's targets aren't layers of this family.
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
    adapted = library.get_peft_model(model, config)
    if adapted.peft_config["default"].target_parameters:
        raise ModelError(
            f"targets: peft takes some of {entry.targets} for experts of {model.config.model_type} "
            "that are one tensor, which can't be switched on and off: leave out gate_proj, up_proj "
            "and down_proj, or use `auto`"
        )
    return adapted


def target_modules(model: Any, targets: str | list[str]) -> list[str]:
    """Return the layers that get an adapter, as peft takes them.

    Raises:
        ModelError: `attention` or `query-value` is wanted and the family has none.
    """
    if not isinstance(targets, str):
        return list(targets)
    wanted: Any = "all-linear" if targets == "auto" else targets
    return list(lora_targets(model.config, wanted))
