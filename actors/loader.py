"""From a model's name to its weights, tokenizer and digest, on line or off."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from actors.offline import cache_folder, converted, find_gguf, offline_model, offline_models
from engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HUB_SECONDS = 5.0
"""How long the hub may take to say whether it has a model before it counts as unreachable."""

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]

Kind = Literal["folder", "hub", "package", "fake"]


class ModelSource(NamedTuple):
    """Where a model's files are.

    Attributes:
        kind: A local folder, the hub (or its cache), an installed package, or an analytic model.
        location: The folder that holds the files; the name of an analytic model.
        digest: Changes when the weights do: a hub commit, or a digest of the files.
        name: As it was asked for.
    """

    kind: Kind
    location: str
    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Messages to text, by the chat template of a tokenizer; can be pickled.

    Attributes:
        tokenizer: The tokenizer that has the template.
    """

    tokenizer: Any

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the rendered conversation, ending where the model's answer begins.

        The text has its special tokens already: encode it without adding any.

        Args:
            messages: Each with `role` and `content`.

        Raises:
            ModelError: The template doesn't take these messages.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except TemplateError as error:
            raise ModelError(
                f"the model's chat template refuses these messages: {error}. Many take no system "
                "message, or want user and assistant in turn"
            ) from error


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """What prompts are made with.

    Attributes:
        json: Text of the tokenizer for `engine.tokens.load_tokenizer`.
        chat: Messages -> text, or None where the model has no chat template.
        max_tokens: The model's window, or None where it has no bound.
        before: Ids that the tokenizer puts before a plain text when asked to add special tokens.
        after: Ids that it puts after one; a prompt for a next token must not have them.
    """

    json: str
    chat: ChatTemplate | None
    max_tokens: int | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def resolve_model(path: str, options: Mapping[str, Any] | None = None) -> ModelSource:
    """Find a model's files: a local folder, a hub id (`owner/name[@revision]`) or an alias.

    An alias of an offline model always means the installed package. A hub id is looked for in the
    hub's cache, then on the hub unless HF_HUB_OFFLINE is set, then among the installed packages.

    Args:
        path: What the configuration names.
        options: Of an analytic model (`fake:…`).

    Raises:
        ModelError: It is nowhere; the message says what was tried and what to do.
        ConfigError: The options of an analytic model are wrong.
    """
    if path.startswith("fake:"):
        from actors.fake_host import fake_digest

        return ModelSource("fake", path, fake_digest(path, options or {}), path)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _local("folder", folder.resolve(), path)
    tried = [f"the folder {folder} does not exist"]
    offline = offline_model(path)
    if offline and path == offline.alias:
        return _local("package", converted(offline), path)
    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        snapshot = _hub_snapshot(path, tried)
        if snapshot:
            return ModelSource("hub", str(snapshot), snapshot.name, path)
    if offline:
        if find_gguf(offline):
            return _local("package", converted(offline), path)
        tried.append(f"the package {offline.package} isn't installed ({offline.install})")
    raise ModelError(_not_found(path, tried))


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights and configuration, 64 hexadecimal digits.

    Files are read once: the digest of each is kept in the user's cache by path, size and time.

    Raises:
        ModelError: The folder has no configuration or no weights.
    """
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    config = folder / "config.json"
    if not weights or not config.is_file():
        lacks = "weights (*.safetensors)" if config.is_file() else "config.json"
        raise ModelError(f"{folder} has no {lacks}: give a folder made by save_pretrained")
    fields = json.loads(config.read_text())
    for name in ("_name_or_path", "transformers_version"):
        fields.pop(name, None)  # they say where from, not what
    total = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for file in weights:
        total.update(f"{file.name} {_file_digest(file)}".encode())
    return total.hexdigest()


def load_tokenizer_spec(source: ModelSource) -> TokenizerSpec:
    """Return what prompts are made with.

    Raises:
        ModelError: The model has no fast tokenizer.
    """
    if source.kind == "fake":
        from actors.fake_host import MAX_TOKENS

        return TokenizerSpec("bytes", None, MAX_TOKENS)
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, local_files_only=True)
        config = AutoConfig.from_pretrained(source.location, local_files_only=True)
        backend = tokenizer.backend_tokenizer
    except (OSError, ValueError, ImportError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{source.name} has no tokenizer that can be used ({error}): put its tokenizer.json "
            f"into {source.location}"
        ) from error
    plain = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a", add_special_tokens=True).input_ids
    start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    return TokenizerSpec(
        json=backend.to_str(),
        chat=ChatTemplate(tokenizer) if tokenizer.chat_template else None,
        max_tokens=model_window(config),
        before=tuple(full[:start]),
        after=tuple(full[start + len(plain) :]),
    )


def load_model(source: ModelSource, precision: str = "auto", device: str = "auto") -> PreTrainedModel:
    """Load a causal language model for reading: evaluation mode, no gradients, no remote code.

    Args:
        source: From `resolve_model`.
        precision: `fp32`, `fp16`, `bf16`, or `auto`: fp32 on a CPU, the checkpoint's own on a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It can't be loaded, or the device isn't there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = choose_device(device)
    try:
        config = AutoConfig.from_pretrained(source.location, local_files_only=True)
        dtype = _dtype(precision, where, getattr(config, "dtype", None))
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                source.location, dtype=dtype, local_files_only=True, trust_remote_code=False
            )
        model = model.to(where)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{source.name} doesn't fit into the memory of {where}: use precision bf16 or a larger "
            "device"
        ) from error
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ModelError(f"{source.name} can't be loaded as a causal model: {error}") from error
    return model.eval().requires_grad_(False)


def choose_device(device: str) -> str:
    """Return `cpu` or `cuda:N`.

    Raises:
        ModelError: A GPU was asked for and there is none.
    """
    import torch

    if device == "cpu":
        return "cpu"
    if device != "auto" and not device.startswith("cuda"):
        raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    if torch.cuda.is_available():
        return "cuda:0" if device in ("auto", "cuda") else device
    if device == "auto":
        return "cpu"
    raise ModelError(f"device {device} was asked for but no GPU is visible here: use device: cpu")


def model_window(config: Any) -> int | None:
    """Return the longest sequence that a model takes, or None where it has no bound."""
    text = config.get_text_config(decoder=True)
    window = getattr(text, "max_position_embeddings", None)
    return int(window) if window and window > 0 else None


def _dtype(precision: str, device: str, own: Any) -> Any:
    import torch

    named = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision in named:
        return named[precision]
    if precision != "auto":
        raise ValueError(f"unknown precision {precision!r}: use {', '.join(named)} or auto")
    if device == "cpu" or own not in (torch.float16, torch.bfloat16):
        return torch.float32
    return own if own != torch.bfloat16 or torch.cuda.is_bf16_supported() else torch.float16


def _local(kind: Kind, folder: Path, name: str) -> ModelSource:
    return ModelSource(kind, str(folder), weights_digest(folder), name)


def _hub_snapshot(name: str, tried: list[str]) -> Path | None:
    """Return the folder of a hub model in the hub's cache, fetched if the hub can be reached."""
    import huggingface_hub as hub

    repo, _, revision = name.partition("@")
    where: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    try:
        snapshot = Path(hub.snapshot_download(**where, local_files_only=True))
        if list(snapshot.glob("*.safetensors")) and (snapshot / "config.json").is_file():
            return snapshot
        tried.append("the hub's cache has it without weights")
    except (OSError, ValueError) as error:
        tried.append(f"the hub's cache doesn't have it ({type(error).__name__})")
    if hub.constants.is_offline_mode():
        tried.append("the hub was not asked: HF_HUB_OFFLINE is set")
        return None
    try:
        # one request, no retries: without it a fetch retries for minutes where there is no network
        hub.HfApi().model_info(repo, revision=revision or None, timeout=HUB_SECONDS)
        return Path(hub.snapshot_download(**where, allow_patterns=_HUB_FILES))
    except Exception as error:  # the network libraries' errors share no class; all are told
        reason = (str(error).strip().splitlines() or [""])[0]
        tried.append(f"the hub can't deliver it ({type(error).__name__}: {reason})")
        return None


def _not_found(path: str, tried: Sequence[str]) -> str:
    at_hand = [status.model.alias for status in offline_models() if status.gguf]
    offline = f"at hand without a network: {', '.join(at_hand)}" if at_hand else (
        f"for a model without a network: {offline_models()[0].model.install}"
    )
    return (
        f"model {path!r} can't be found: {'; '.join(tried)}. Give a local folder or a hub id such "
        f"as HuggingFaceTB/SmolLM2-135M-Instruct; {offline}"
    )


def _file_digest(file: Path) -> str:
    stat = file.stat()
    key = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache_folder() / "digests" / hashlib.sha256(key.encode()).hexdigest()[:32]
    if kept.is_file() and len(text := kept.read_text()) == 64:
        return text
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(digest)
        part.replace(kept)
    except OSError:
        # a cache that can't be written only costs reading the file again
        part.unlink(missing_ok=True)
    return digest


class _quiet:  # noqa: N801
    """Silence transformers' progress bars while a model loads."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was:
            logging.enable_progress_bar()
