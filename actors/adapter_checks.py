"""Whether an adapter is one that a base can be given and be rid of again, from its files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.errors import ModelError

Tensors = dict[str, tuple[int, ...]]
"""Name -> shape."""

PREFIX = "base_model.model."
"""What peft puts before the name of a module of the base."""

_OWN_TENSOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(A|B|embedding_A|embedding_B|magnitude_vector))"
    r"(\.(?P<field>weight|bias))?"
)

_REWRITE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings whose weights go with a base from which they were taken away."""

_UNSERVED = {
    "modules_to_save": "it replaces whole modules of the base",
    "trainable_token_indices": "it replaces rows of the base's embeddings",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it changes parameters that are no layer of their own",
    "alora_invocation_tokens": "it is switched on by tokens of the prompt (aLoRA)",
    "arrow_config": "it mixes other adapters (Arrow)",
    "kasa_config": "it truncates the base's weights (KaSA)",
    "monteclora_config": "it draws its weights at random (MonteCLoRA)",
    "use_bdlora": "its weights are in blocks (BD-LoRA)",
    "use_qalora": "it pools the inputs of a quantized base (QA-LoRA)",
    "velora_config": "it compresses what is kept for training (VeLoRA)",
}


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse what can't be switched on and off beside others on one base.

    Raises:
        ModelError: The adapter is no LoRA, or one that changes the base itself.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(f"it is of type {kind}; only LORA is served")
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise ModelError(f"its configuration has no rank (r: {config.get('r')!r})")
    for field, reason in _UNSERVED.items():
        if config.get(field):
            raise ModelError(
                f"{reason} ({field}), which can't be shared with other adapters of the base; train "
                "it without, or merge it and give the merged model as a model of its own"
            )
    if (bias := config.get("bias", "none")) != "none":
        raise ModelError(
            f"it was trained with bias: {bias}, which changes the base's own; train it with none"
        )
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_REWRITE):
        raise ModelError(
            f"it begins with {begun}, which takes its beginning away from the base's weights; save "
            "it as plain LoRA by save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        )


def check_tensors(config: Mapping[str, Any], tensors: Tensors) -> None:
    """Compare ranks with the configuration.

    Raises:
        ModelError: A tensor is missing or of another rank than the configuration says.
    """
    own = own_tensors(tensors)
    if not own:
        raise ModelError("its file holds no LoRA weights; train or save it again")
    for module, parts in own.items():
        down, up = _pair(module, parts)
        rank = rank_of(config, module)
        for name, found in ((down, tensors[down][0]), (up, tensors[up][-1])):
            if found != rank:
                raise ModelError(
                    f"{name} has the shape {list(tensors[name])}, so rank {found}, but its "
                    f"configuration says r = {rank}: files of two adapters, or a wrong rank_pattern"
                )


def check_base(
    config: Mapping[str, Any],
    tensors: Tensors,
    base: Mapping[str, tuple[int, ...]],
    quantized: bool,
) -> None:
    """Compare shapes with the base's, where its files have layers of the same names.

    Args:
        config: Of the adapter.
        tensors: Of the adapter.
        base: Shapes of the base's floating-point tensors.
        quantized: Whether the base is stored quantized; its layers then have other names.

    Raises:
        ModelError: A layer has another shape, or none of the layers is there.
    """
    by_module = {name.removesuffix(".weight"): shape for name, shape in base.items()}
    own = own_tensors(tensors)
    found = 0
    for module, parts in own.items():
        layer = _find(module, by_module)
        if layer is None:
            continue
        found += 1
        if len(by_module[layer]) != 2:
            continue
        down, up = _pair(module, parts)
        rows, columns = by_module[layer]  # [out, in] of a linear layer, [tokens, width] of a table
        got = (tensors[up][0], tensors[down][-1])
        wanted = (rows, columns)
        if "lora_embedding_A" in parts or config.get("fan_in_fan_out"):
            wanted = (columns, rows)
        if got != wanted:
            raise ModelError(
                f"{down if got[1] != wanted[1] else up} is for a layer of {got[1]} inputs and "
                f"{got[0]} outputs, but the base's {layer} has {wanted[1]} and {wanted[0]}: it was "
                f"trained on another base ({config.get('base_model_name_or_path')})"
            )
    # a tied output matrix has no tensor of its own, and stored quantized layers have other names
    inner = [module for module in own if re.search(r"\.\d+\.", module)]
    if inner and base and not found and not quantized:
        raise ModelError(
            f"the base has none of its layers, such as {inner[0]}: it was "
            f"trained on another base ({config.get('base_model_name_or_path')})"
        )


class OwnTensor(NamedTuple):
    """Where a tensor of an adapter belongs.

    Attributes:
        module: The base's module that it is for.
        part: Of peft's layer, such as `lora_A`.
        field: `weight` or `bias`.
    """

    module: str
    part: str
    field: str


def own_tensor(name: str) -> OwnTensor | None:
    """Return where a stored tensor belongs, or None if it is the base's and not the adapter's."""
    match = _OWN_TENSOR.fullmatch(name)
    if match is None:
        return None
    return OwnTensor(
        match["module"].removeprefix(PREFIX), match["part"], match["field"] or "weight"
    )


def own_tensors(tensors: Tensors) -> dict[str, dict[str, str]]:
    """Return module -> part -> name of an adapter's own tensors, biases left out."""
    own: dict[str, dict[str, str]] = {}
    for name in tensors:
        place = own_tensor(name)
        if place is not None and place.field == "weight":
            own.setdefault(place.module, {})[place.part] = name
    return own


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """Return the rank that a configuration gives a module, by peft's rule for `rank_pattern`."""
    patterns: Mapping[str, int] = config.get("rank_pattern") or {}
    for pattern, rank in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return int(rank)
    return int(config["r"])


def _pair(module: str, parts: Mapping[str, str]) -> tuple[str, str]:
    """Return the names of the matrices towards and from the small dimension."""
    for down, up in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
        if down in parts and up in parts:
            return parts[down], parts[up]
    raise ModelError(
        f"it has only {sorted(parts)} of {module}: its file is incomplete, save it again"
    )


def _find(module: str, base: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the base's name of a module; checkpoints leave out or add the outermost part."""
    inner = module.partition(".")[2]
    for name in (module, inner, f"model.{module}", f"transformer.{module}"):
        if name in base:
            return name
    return None
