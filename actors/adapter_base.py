"""Whether an adapter was trained on the base it is to be served on: by its card, or by names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from actors.adapter_card import CARD
from actors.adapter_files import CONFIG
from actors.offline import offline_model
from engine.errors import ModelError


def check_trained_on(folder: Path, path: str, weights: str) -> str:
    """Compare the base that an adapter was trained on with one it is to be served on.

    Shapes don't tell the one from the other where two models are of one family and size. A card of
    a training here has the digest of its base. Where there is none, or the digests are of two kinds
    (of files, and a commit of the hub), the names of the two bases are all there is.

    Args:
        folder: Of the adapter.
        path: Of the base, as the sweep names it.
        weights: Its digest, as `actors.sources.resolve_model` gives it.

    Returns:
        A warning if only the names differ, else "".

    Raises:
        ModelError: It was trained on other weights.
    """
    trained = _read(folder / CARD).get("model")
    known = trained if isinstance(trained, dict) else {}
    digest = known.get("weights")
    if isinstance(digest, str) and len(digest) == len(weights):
        if digest == weights:
            return ""
        raise ModelError(
            f"adapter {str(folder)!r}: its {CARD} says that it was trained on {known.get('path')} "
            f"with the weights {digest}, but those of {path} are {weights}: give it its own base"
        )
    base = known.get("path") or _read(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base or _names(base) & _names(path):
        return ""
    return (
        f"adapter {folder}: it says that it was trained on {base}, and is served on {path}; layers "
        "of the same shapes are there, whether they are its own can't be told"
    )


def _names(path: str) -> set[str]:
    """Return what a model is called, in lower case: of its aliases the last part, no revision."""
    plain = path.partition("@")[0].rstrip("/")
    known = offline_model(plain)
    paths = {plain} if known is None else {plain, known.alias, known.hub_id}
    return {_last_part(each).casefold() for each in paths}


def _last_part(path: str) -> str:
    cached = [part for part in path.split("/") if part.startswith("models--")]
    return cached[-1].rpartition("--")[2] if cached else path.rpartition("/")[2]


def _read(file: Path) -> dict[str, Any]:
    """Return a JSON object's fields; none where there is no file, or something else in it."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
