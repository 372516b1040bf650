"""What the files of a checkpoint hold, read from headers and configuration; loads no weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

from actors.precision import quantized_by


def stored_parameters(folder: str) -> int | None:
    """Return the number of weights in a folder's safetensors files, or None where it has none."""
    from safetensors import safe_open

    total = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(str(file), framework="numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(k).get_shape()) for k in tensors.keys())  # noqa: SIM118
    return total or None


def stored_bytes(folder: str) -> int:
    """Return the size of a folder's safetensors files."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def stored_quantization(folder: str) -> str | None:
    """Return the method of a checkpoint that is quantized already, such as `gptq`; else None."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return quantized_by(config)
