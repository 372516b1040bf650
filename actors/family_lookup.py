"""A model's family by its name, where no more than its configuration is here, or not even that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from actors.families import (
    FamilyFacts,
    default_config,
    family_facts,
    lora_targets,
    packs,
    vllm_adapters,
)
from actors.offline import converted, find_gguf, offline_model
from actors.sources import hub_snapshot
from engine.errors import ModelError

CONFIG = "config.json"


class KnownModel(NamedTuple):
    """A model of the public hub whose family is known without asking.

    Attributes:
        hub_id: Its name on the hub.
        model_type: Name of its family in transformers.
        gated: Whether the hub gives it only to those who accepted its licence.
    """

    hub_id: str
    model_type: str
    gated: bool = False


KNOWN = (
    KnownModel("meta-llama/Llama-3.2-1B", "llama", gated=True),
    KnownModel("microsoft/phi-1_5", "phi"),
    KnownModel("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen2"),
    KnownModel("google/gemma-3-1b-it", "gemma3_text", gated=True),
    KnownModel("Qwen/Qwen2.5-1.5B", "qwen2"),
    KnownModel("meta-llama/Llama-3.2-3B", "llama", gated=True),
    KnownModel("tiiuae/Falcon3-3B-Instruct", "llama"),
    KnownModel("ibm-granite/granite-3.1-3b-a800m-instruct", "granitemoe"),
    KnownModel("stabilityai/stablelm-zephyr-3b", "stablelm"),
    KnownModel("ibm-research/PowerLM-3b", "granite"),
    KnownModel("togethercomputer/RedPajama-INCITE-Instruct-3B-v1", "gpt_neox"),
    KnownModel("tiiuae/Falcon3-7B-Instruct", "llama"),
    KnownModel("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
    KnownModel("nvidia/AceInstruct-7B", "qwen2"),
    KnownModel("Intel/neural-chat-7b-v3-1", "mistral"),
    KnownModel("berkeley-nest/Starling-LM-7B-alpha", "mistral"),
    KnownModel("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
)
"""The models of configs/families_gpu.yaml."""


class FamilyFound(NamedTuple):
    """What could be found out about a model without its weights.

    Attributes:
        path: As the sweep names it.
        model_type: Name of its family, or None where nothing is known.
        facts: From its configuration, or None where that isn't here.
        lora_targets: The projections that a LoRA on all linear layers wraps; () if unknown.
        packs: As in `FamilyFacts`.
        vllm_adapters: As in `FamilyFacts`.
        missing: Why its configuration can't be had; "" where it is here.
        gated: Whether the hub asks for an accepted licence; False where it isn't known.
    """

    path: str
    model_type: str | None
    facts: FamilyFacts | None
    lora_targets: tuple[str, ...]
    packs: bool | None
    vllm_adapters: bool | None
    missing: str
    gated: bool


def find_family(path: str, revision: str | None = None, device: str = "cpu") -> FamilyFound:
    """Return what is known of a model: from its configuration, else from its name.

    The hub is asked for the configuration alone, a few kilobytes, once and without retries.

    Args:
        path: Hub id, local folder, or alias of an offline model.
        revision: Git revision on the hub.
        device: Where it is to be, for the size of its weights.
    """
    known = known_model(path)
    gated = known is not None and known.gated
    try:
        folder = _folder(path, revision)
        facts = family_facts(_read(folder), device, str(folder))
    except ModelError as error:
        if known is None:
            return FamilyFound(path, None, None, (), None, None, str(error), gated)
        family = default_config(known.model_type)
        return FamilyFound(
            path,
            known.model_type,
            None,
            lora_targets(family),
            packs(family),
            vllm_adapters(known.model_type),
            str(error),
            gated,
        )
    return FamilyFound(
        path,
        facts.model_type,
        facts,
        facts.lora_targets,
        facts.packs,
        facts.vllm_adapters,
        "",
        gated,
    )


def find_model_type(path: str, revision: str | None = None) -> str | None:
    """Return the name of a model's family, or None where neither configuration nor name tell it.

    As `find_family`, but no modules are made.

    Args:
        path: Hub id, local folder, or alias of an offline model.
        revision: Git revision on the hub.
    """
    try:
        return str(find_config(path, revision).model_type)
    except ModelError:
        known = known_model(path)
        return known.model_type if known else None


def known_model(path: str) -> KnownModel | None:
    """Return the known model of this hub id, or of its last part under another owner (mirrors)."""
    name = path.rstrip("/").rpartition("/")[2].lower()
    same = [model for model in KNOWN if model.hub_id.rpartition("/")[2].lower() == name]
    return same[0] if same else None


def find_config(path: str, revision: str | None = None) -> Any:
    """Return a model's transformers configuration without fetching its weights.

    Raises:
        ModelError: It is nowhere, or transformers can't read it.
    """
    return _read(_folder(path, revision))


def _read(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: config.json can't be read: {error}") from error


def _folder(path: str, revision: str | None) -> Path:
    """Return the folder that has the model's config.json."""
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    offline = offline_model(path)
    if offline and find_gguf(offline):
        return converted(offline)
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ModelError(f"no folder {path}, and not a hub id (owner/name)")
    tried: list[str] = []
    name = f"{path}@{revision}" if revision else path
    snapshot = hub_snapshot(name, tried, lambda f: (f / CONFIG).is_file(), [CONFIG])
    if snapshot is None:
        raise ModelError("; ".join(tried))
    return snapshot
