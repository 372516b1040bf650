"""What planning needs of models: tokenizer, window, digest; no weights are loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from actors.backend import HostSpec
from actors.host import make_backend
from engine.config import ModelConfig
from engine.errors import ModelError
from engine.plan import ModelFacts, model_key

NO_WINDOW = 2**31 - 1
"""Stands for a model without a longest input."""


def model_facts(model: ModelConfig) -> ModelFacts:
    """Return the facts of one model.

    Raises:
        ModelError: It can't be found; the message says what was tried and what is at hand.
        ConfigError: The options are wrong.
    """
    from actors import loader

    make_backend(host_spec(model))  # refuses options that it doesn't know
    source = loader.resolve_model(model_path(model), model.options)
    spec = loader.load_tokenizer_spec(source)
    if model.is_fake:
        window = int(model.options.get("max_tokens", spec.max_tokens or NO_WINDOW))
        return ModelFacts(source.digest, spec.json, window)
    return ModelFacts(
        source.digest,
        spec.json,
        spec.max_tokens or NO_WINDOW,
        spec.chat,
        _parameters(source.location),
    )


def _parameters(folder: str) -> int | None:
    """Return the number of weights in a folder's safetensors files, read from their headers."""
    from safetensors import safe_open

    total = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(str(file), framework="numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(k).get_shape()) for k in tensors.keys())  # noqa: SIM118
    return total or None


def model_path(model: ModelConfig) -> str:
    """Return the path with its revision, as the loader takes it."""
    return f"{model.path}@{model.revision}" if model.revision else model.path


def facts_of(
    models: Sequence[ModelConfig],
) -> tuple[dict[str, ModelFacts], dict[str, str]]:
    """Return the facts by model key, and why the others have none.

    Raises:
        ModelError: None of the models can be found.
    """
    facts: dict[str, ModelFacts] = {}
    broken: dict[str, str] = {}
    for model in models:
        try:
            facts[model_key(model)] = model_facts(model)
        except ModelError as error:
            broken[model_key(model)] = str(error)
    if not facts:
        raise ModelError("\n".join(broken.values()))
    return facts, broken


def host_spec(model: ModelConfig, device: str = "auto") -> HostSpec:
    """Return how to make a host of a model."""
    options: Mapping[str, object] = model.options
    backend = "fake" if model.is_fake else "transformers"
    return HostSpec(model_path(model), backend, model.precision, device, 0, options)
