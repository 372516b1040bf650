"""What `rayxai plan` says of each model's family, before anything is fetched or loaded."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from actors.family_lookup import FamilyFound, find_family
from engine.config import SweepConfig

_SHOWN = {"fp32": "fp32", "bf16": "16 bit", "int8": "int8", "nf4": "4 bit"}
"""Precision -> its name in print; 16-bit formats are of one size, and so are 4-bit ones."""


def print_families(config: SweepConfig, console: Console) -> None:
    """Print a paragraph a model: family, LoRA targets, size, what is unknown and why."""
    paths = dict.fromkeys((m.path, m.revision) for m in config.models if not m.is_fake)
    if not paths:
        return  # analytic models need no torch
    from actors.loader import choose_device

    device = choose_device("auto")
    for path, revision in paths:
        for line in lines_of(find_family(path, revision, device), device):
            console.print(line, markup=False, highlight=False)


def lines_of(found: FamilyFound, device: str) -> Iterator[str]:
    """Yield the lines of one model; sizes are those on the device."""
    if found.model_type is None:
        yield f"{found.path}: family, LoRA targets and memory are unknown"
    else:
        facts = found.facts
        what = f"{facts.architecture}, {_count(facts.parameters)} weights" if facts else "by name"
        yield (
            f"{found.path}: {found.model_type} ({what}); LoRA on {', '.join(found.lora_targets)}; "
            f"{_scoring(found.packs)}"
            + ("; vLLM serves no adapters of it" if found.vllm_adapters is False else "")
        )
        if facts and facts.memory:
            shown = [each for each in facts.memory if each in _SHOWN] or list(facts.memory)
            sizes = [f"{_SHOWN.get(each, each)} {facts.memory[each] / 1e9:.2f}" for each in shown]
            yield f"  weights alone on {device}, GB: {', '.join(sizes)}"
        elif facts:
            yield "  unknown without its files, which are quantized already: memory"
        else:
            yield "  unknown without its config.json: number of weights, memory"
    if found.missing:
        licence = (
            f"; it is gated: accept the licence on its page at huggingface.co/{found.path} and set "
            "HF_TOKEN"
            if found.gated
            else ""
        )
        yield f"  can't be had: {found.missing}{licence}"


def _scoring(packs: bool | None) -> str:
    if packs is None:
        return "packed if its probe agrees at load"
    return "packed" if packs else "scored in padded batches"


def _count(parameters: int) -> str:
    if parameters < 1e6:
        return f"{parameters:,}"
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
