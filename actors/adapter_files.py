"""The files of a LoRA adapter: where they are, their digest, what is in them; loads no weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from actors.adapter_checks import Tensors, check_base, check_config, check_tensors, own_tensor
from actors.sources import file_digest, hub_snapshot
from engine.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"


class AdapterFiles(NamedTuple):
    """An adapter at hand.

    Attributes:
        folder: That has its two files.
        digest: Of both: changes when the adapter does.
        config: What peft wrote of it.
        tensors: Name -> shape of what its weights' file holds.
    """

    folder: Path
    digest: str
    config: dict[str, Any]
    tensors: Tensors

    @property
    def nbytes(self) -> int:
        """What it takes in a host's memory, where its weights are in single precision."""
        return 4 * sum(math.prod(shape) for name, shape in self.tensors.items() if own_tensor(name))


def read_adapter(path: str, base: str | None = None) -> AdapterFiles:
    """Find an adapter made by peft's `save_pretrained` and check that it can be served.

    Args:
        path: Its folder, or a hub id (`owner/name[@revision]`), looked for as a model's is.
        base: Folder of the model it is for: the shapes of its layers are then compared.

    Raises:
        ModelError: It isn't there, can't be read, or is none that a host can switch on and off; the
            message says what to do.
    """
    folder = _folder(path)
    if not (folder / CONFIG).is_file():
        raise ModelError(
            f"adapter {path!r}: no {CONFIG} in {folder}; give a folder made by peft's "
            "save_pretrained"
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter {path!r}: {CONFIG} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"adapter {path!r}: {CONFIG} holds no settings; save the adapter again")
    weights = folder / WEIGHTS
    if not weights.is_file():
        there = f"only pickled weights ({_PICKLED})" if (folder / _PICKLED).exists() else "no"
        what = f"{there} in {folder}" if there != "no" else f"no {WEIGHTS} in {folder}"
        raise ModelError(
            f"adapter {path!r}: {what}; adapters are loaded from safetensors only: save it again "
            "by peft's save_pretrained"
        )
    tensors = _tensors(path, weights)
    try:
        check_config(config)
        check_tensors(config, tensors)
        if base is not None:
            check_base(config, tensors, *_base(Path(base)))
    except ModelError as error:
        raise ModelError(f"adapter {path!r}: {error}") from None
    fields = {k: v for k, v in config.items() if k != "base_model_name_or_path"}
    total = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    total.update(file_digest(weights).encode())
    return AdapterFiles(folder, total.hexdigest(), config, tensors)


def _folder(path: str) -> Path:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    tried = [f"the folder {folder} does not exist"]
    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        snapshot = hub_snapshot(path, tried, _is_complete, (CONFIG, WEIGHTS))
        if snapshot is not None:
            return snapshot
    raise ModelError(
        f"adapter {path!r} can't be found: {'; '.join(tried)}. Give a folder made by peft's "
        "save_pretrained, or a hub id"
    )


def _is_complete(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _tensors(path: str, weights: Path) -> Tensors:
    """Return the shapes in a file; its header and its length are checked against one another."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"adapter {path!r}: {WEIGHTS} is corrupted ({error}); copy or train it again"
        ) from error


def _base(folder: Path) -> tuple[Mapping[str, tuple[int, ...]], bool]:
    """Return the shapes of a model's floating-point tensors, and whether it is stored quantized."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for weights in sorted(folder.glob("*.safetensors")):
        with safe_open(str(weights), framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                if part.get_dtype() in ("F32", "F16", "BF16"):
                    shapes[name] = tuple(part.get_shape())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shapes, bool(config.get("quantization_config"))
