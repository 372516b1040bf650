"""What planning needs of models and adapters: tokenizer, window, digests; no weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from actors.adapter_base import check_trained_on
from actors.adapter_support import vllm_family_refusal, vllm_refusal
from actors.backend import HostSpec
from actors.checkpoint import stored_parameters, stored_quantization
from actors.family_lookup import find_model_type
from actors.host import make_backend
from engine.adapter_section import WantedAdapter
from engine.config import ClusterConfig, ModelConfig, SweepConfig
from engine.errors import ModelError, TooLargeError
from engine.facts import AdapterFacts, Lost, ModelFacts
from engine.plan import model_key

NO_WINDOW = 2**31 - 1
"""Stands for a model without a longest input."""


Found = dict[str, "ModelFacts | ModelError"]
"""What was found at a path, or why nothing was."""


def model_facts(model: ModelConfig, found: Found | None = None) -> ModelFacts:
    """Return the facts of one model.

    Args:
        model: The model.
        found: By path with revision, to look once for what several entries name: precisions and
            backends have the same files.

    Raises:
        ModelError: It can't be found, or its backend isn't installed; the message says what was
            tried and what is at hand.
        ConfigError: The options are wrong.
    """
    from actors import loader

    make_backend(host_spec(model))  # refuses options that it doesn't know
    path, found = model_path(model), {} if found is None else found
    if model.is_fake:  # its options say what it answers
        source = loader.resolve_model(path, model.options)
        spec = loader.load_tokenizer_spec(source)
        window = int(model.options.get("max_tokens", spec.max_tokens or NO_WINDOW))
        return ModelFacts(source.digest, spec.json, window)
    if path not in found:
        try:
            found[path] = _facts_of_files(path)
        except ModelError as error:
            found[path] = error
    facts = found[path]
    if isinstance(facts, ModelError):
        raise facts
    return facts


def _facts_of_files(path: str) -> ModelFacts:
    from actors import loader

    source = loader.resolve_model(path)
    spec = loader.load_tokenizer_spec(source)
    return ModelFacts(
        source.digest,
        spec.json,
        spec.max_tokens or NO_WINDOW,
        spec.chat,
        stored_parameters(source.location),
        stored_quantization(source.location),
    )


def model_path(model: ModelConfig) -> str:
    """Return the path with its revision, as the loader takes it."""
    return f"{model.path}@{model.revision}" if model.revision else model.path


def adapter_facts(model: ModelConfig, wanted: WantedAdapter) -> AdapterFacts:
    """Return the facts of one adapter.

    Raises:
        ModelError: It can't be found, isn't one of this model, or can't be served.
    """
    if wanted.path is None:
        raise ModelError(f"the adapter {wanted.name} has no folder of its own: it is trained")
    from actors.adapter_files import read_adapter
    from actors.sources import resolve_model

    base = resolve_model(model_path(model), model.options)
    files = read_adapter(wanted.path, base.location)
    if model.backend == "vllm" and (why := vllm_refusal(files.config)):
        raise ModelError(f"adapter {wanted.path!r}: {why}; use backend transformers")
    return AdapterFacts(files.digest, str(files.folder))


def refused_adapters(config: SweepConfig, model: ModelConfig) -> dict[str, str]:
    """Return why a model's backend can't serve adapters, known or still to be trained, by name.

    What the model's family or an adapter's recipe tell is told here, before anything is trained and
    also where the backend isn't installed; `adapter_facts` tells what an adapter's files do.
    """
    wanted = [each for each in config.wanted_adapters(model) if not each.is_base]
    if model.backend != "vllm" or not wanted:
        return {}
    family = find_model_type(model.path, model.revision)
    by_family = None if family is None else vllm_family_refusal(family)
    ranks = {entry.name: entry.rank for entry in config.finetune}
    found = {}
    for each in wanted:
        why = by_family
        if why is None and each.finetune is not None:
            why = vllm_refusal({"r": ranks[each.finetune]})
        if why is not None:
            found[each.name] = (
                f"adapter {each.name!r} of {model.path}: {why}; use backend transformers"
            )
    return found


def facts_of(config: SweepConfig) -> tuple[dict[str, ModelFacts], list[Lost]]:
    """Return the facts by model key, and which models and adapters have none.

    Adapters that the sweep trains are none of them: see `jobs.training_plan`.

    Raises:
        ModelError: None of the models can be found.
    """
    facts: dict[str, ModelFacts] = {}
    found: Found = {}
    lost: list[Lost] = []
    for model in config.models:
        refused = refused_adapters(config, model)
        for name, why in refused.items():
            lost.append(Lost(model.label, model.precision, name, "no_adapter", why))
        try:
            known = model_facts(model, found)
            _check_memory(model, config.cluster)
        except TooLargeError as error:
            lost.append(Lost(model.label, model.precision, "", "too_large", str(error)))
            continue
        except ModelError as error:
            lost.append(Lost(model.label, model.precision, "", "not_found", str(error)))
            continue
        adapters = {}
        for wanted in config.wanted_adapters(model):
            if wanted.path is None or wanted.name in refused:
                continue
            try:
                adapter = adapter_facts(model, wanted)
                warning = check_trained_on(Path(adapter.path), model_path(model), known.digest)
                adapters[wanted.name] = adapter._replace(warning=warning)
            except ModelError as error:
                place = (model.label, model.precision, wanted.name)
                lost.append(Lost(*place, "no_adapter", str(error)))
        facts[model_key(model)] = replace(known, adapters=adapters)
    if not facts:
        raise ModelError("\n".join(each.message for each in lost))
    return facts, lost


def host_spec(
    model: ModelConfig, device: str = "auto", adapters: Iterable[AdapterFacts] = ()
) -> HostSpec:
    """Return how to make a host of a model, for all these adapters."""
    options: Mapping[str, object] = model.options
    backend = "fake" if model.is_fake else model.backend or "transformers"
    folders = {adapter.digest: adapter.path for adapter in adapters}
    return HostSpec(
        model_path(model),
        backend,
        model.precision,
        device,
        0,
        options,
        folders,
        model.double_quant,
        model.replicate,
    )


def _check_memory(model: ModelConfig, cluster: ClusterConfig) -> None:
    """Refuse a model that is too large for its device, as far as that can be seen from here.

    Raises:
        TooLargeError: With the arithmetic.
    """
    if model.is_fake or model.backend == "vllm":  # vLLM reckons with its cache by itself
        return
    from actors import loader
    from actors.memory_need import check_fits

    device = loader.choose_device("auto")
    if device == "cpu" and (cluster.address is not None or cluster.gpus_per_host):
        return  # the hosts are elsewhere; each refuses what it can't load
    source = loader.resolve_model(model_path(model), model.options)
    need = loader.need_of(source, model.precision, device, model.double_quant)
    check_fits(source.name, need, device, (cluster.hosts or 1) if device == "cpu" else 1)
