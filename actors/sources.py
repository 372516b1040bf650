"""From a model's name to a folder of files and their digest, on line or off."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from actors.offline import cache_folder, converted, find_gguf, offline_model, offline_models
from engine.errors import ModelError

HUB_SECONDS = 5.0
"""How long the hub may take to say whether it has a model before it counts as unreachable."""

_HUB_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
_SAFETENSORS = "*.safetensors"
_OLD_WEIGHTS = "pytorch_model*.bin"

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
        snapshot = hub_snapshot(path, tried, _complete)
        if snapshot:
            return ModelSource("hub", str(snapshot), snapshot.name, path)
    if offline:
        if find_gguf(offline):
            return _local("package", converted(offline), path)
        tried.append(f"its package isn't installed ({offline.install})")
    raise ModelError(_not_found(path, tried))


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's weights and configuration, 64 hexadecimal digits.

    Files are read once: the digest of each is kept in the user's cache by path, size and time.

    Raises:
        ModelError: The folder has no configuration or no weights.
    """
    weights = _weights(folder)
    config = folder / "config.json"
    if not _complete(folder):
        lacks = "all its weights (*.safetensors)" if config.is_file() else "a config.json"
        raise ModelError(f"{folder} hasn't {lacks}: give a folder made by save_pretrained")
    fields = json.loads(config.read_text())
    for name in ("_name_or_path", "_model_name_or_path", "transformers_version"):
        fields.pop(name, None)  # they say where from, not what
    total = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for file in weights:
        total.update(f"{file.name} {file_digest(file)}".encode())
    return total.hexdigest()


def _local(kind: Kind, folder: Path, name: str) -> ModelSource:
    return ModelSource(kind, str(folder), weights_digest(folder), name)


def hub_snapshot(
    name: str,
    tried: list[str],
    complete: Callable[[Path], bool],
    files: Sequence[str] | None = None,
) -> Path | None:
    """Return the folder of what the hub has, from its cache, or fetched if it can be reached.

    Args:
        name: `owner/name`, with `@revision` if wanted.
        tried: Gets what was tried in vain.
        complete: Whether a folder has all that is needed.
        files: Patterns of the files that are fetched; those of a model by default.
    """
    import huggingface_hub as hub

    repo, _, revision = name.partition("@")
    where: dict[str, Any] = {"repo_id": repo, "revision": revision or None}
    try:
        snapshot = Path(hub.snapshot_download(**where, local_files_only=True))
        if complete(snapshot):
            return snapshot
        tried.append("the hub's cache has only a part of it")
    except (OSError, ValueError) as error:
        tried.append(f"the hub's cache doesn't have it ({type(error).__name__})")
    if hub.constants.is_offline_mode():
        tried.append("the hub was not asked: HF_HUB_OFFLINE is set")
        return None
    try:
        # one request, no retries: without it a fetch retries for minutes where there is no network
        info = hub.HfApi().model_info(repo, revision=revision or None, timeout=HUB_SECONDS)
        there = [file.rfilename for file in info.siblings or ()]
        new = any(file.endswith(".safetensors") for file in there)
        patterns = files or [*_HUB_FILES, _SAFETENSORS if new else _OLD_WEIGHTS]
        return Path(hub.snapshot_download(**where, allow_patterns=list(patterns)))
    except Exception as error:  # the network libraries' errors share no class; all are told
        tried.append(_why_not(repo, error))
        return None


def _why_not(repo: str, error: Exception) -> str:
    """Return why the hub doesn't deliver, without the token that the request had."""
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError

    token = hub.get_token()
    if isinstance(error, GatedRepoError):
        given = "the token in HF_TOKEN has no access" if token else "no token was given"
        return (
            f"the model is gated and {given}: accept its terms at https://huggingface.co/{repo}, "
            "then set HF_TOKEN to a token of that account"
        )
    reason = (str(error).strip().splitlines() or [""])[0]
    if token:
        reason = reason.replace(token, "***")
    return f"the hub can't deliver it ({type(error).__name__}: {reason})"


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(_SAFETENSORS)) or sorted(folder.glob(_OLD_WEIGHTS))


def _complete(folder: Path) -> bool:
    """Return whether a folder has a configuration and every file of its weights."""
    if not (folder / "config.json").is_file() or not _weights(folder):
        return False
    indices = folder.glob("*.index.json")
    shards = {f for i in indices for f in json.loads(i.read_text())["weight_map"].values()}
    return all((folder / shard).is_file() for shard in shards)


def _not_found(path: str, tried: Sequence[str]) -> str:
    at_hand = [status.model.alias for status in offline_models() if status.gguf]
    offline = (
        f"at hand without a network: {', '.join(at_hand)}"
        if at_hand
        else (f"for a model without a network: {offline_models()[0].model.install}")
    )
    return (
        f"model {path!r} can't be found: {'; '.join(tried)}. Give a local folder or a hub id such "
        f"as HuggingFaceTB/SmolLM2-135M-Instruct; {offline}"
    )


def file_digest(file: Path) -> str:
    """Return a file's SHA-256, kept in the user's cache by path, size and time."""
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
    except OSError:  # a cache that can't be written only costs reading the file again
        with contextlib.suppress(OSError):
            part.unlink()
    return digest
