"""The files of a LoRA adapter: where they are, what they say, their digest; loads no weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from actors.sources import file_digest
from engine.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


class AdapterFiles(NamedTuple):
    """An adapter at hand.

    Attributes:
        folder: That has its two files.
        digest: Of both: changes when the adapter does.
        config: What peft wrote of it.
    """

    folder: Path
    digest: str
    config: dict[str, Any]


def read_adapter(path: str) -> AdapterFiles:
    """Find an adapter made by peft's `save_pretrained`.

    Raises:
        ModelError: It isn't there, or not one that can be read; the message says what to do.
    """
    folder = Path(path).expanduser().resolve()
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"adapter {path!r}: no {CONFIG} in {folder}; give a folder made by peft's "
            "save_pretrained"
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter {path!r}: {CONFIG} can't be read: {error}") from error
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(
            f"adapter {path!r}: no {WEIGHTS} in {folder}; adapters are loaded from safetensors "
            "only: save it again with safe_serialization=True"
        )
    fields = {k: v for k, v in config.items() if k != "base_model_name_or_path"}
    total = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    total.update(file_digest(weights).encode())
    return AdapterFiles(folder, total.hexdigest(), config)
