"""The card of a trained adapter: from what, on what and how it was trained, and its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from actors.adapter_files import WEIGHTS
from actors.training_rows import TrainingRow
from engine.errors import ModelError
from engine.training import TrainingTask, content_digest

CARD = "card.json"
CARD_VERSION = 1
_VERSIONED = ("rayxai", "torch", "transformers", "peft", "accelerate", "bitsandbytes")


def make_card(
    task: TrainingTask,
    state: Mapping[str, Any],
    chosen: Path,
    rows: Sequence[TrainingRow],
    held: Sequence[TrainingRow],
    resumed_at: int | None,
) -> dict[str, Any]:
    """Return the card of a training that is done.

    Args:
        task: What was trained.
        state: What `Trainer` noted at the last checkpoint.
        chosen: Checkpoint whose adapter is kept.
        rows: The training examples that fit.
        held: The validation's.
        resumed_at: Step at which the last call took up a training that was cut off, or None.

    Raises:
        ModelError: The adapter's weights are no numbers: the training diverged.
    """
    history = state["log_history"]
    losses = [entry for entry in history if "loss" in entry]
    validations = [entry for entry in history if "eval_accuracy" in entry]
    size = _checked_size(chosen / WEIGHTS, task)
    last = history[-1]
    step = int(chosen.name.rsplit("-", 1)[1])
    measured = [entry for entry in validations if entry["step"] == step]
    return {
        "card_version": CARD_VERSION,
        "fingerprint": task.fingerprint,
        "model": {
            "path": task.model,
            "weights": task.weights,
            "precision": task.precision,
            **({} if task.double_quant else {"double_quant": False}),
        },
        "finetune": task.entry.model_dump(mode="json", exclude={"seeds"}),
        "seed": task.seed,
        "labels": {
            name: {"string": string, "ids": list(ids)}
            for name, string, ids in zip(
                task.labels.names, task.labels.strings, task.labels.token_ids, strict=True
            )
        },
        "prompt": [
            piece if isinstance(piece, str) else {"slot": piece.name}
            for piece in task.template.pieces
        ],
        "data": {
            "fingerprint": content_digest(task.data.train),
            "rows": task.data.rows,
            "trained_on": len(rows),
            "by_label": {
                name: sum(1 for row in rows if row.gold == index)
                for index, name in enumerate(task.labels.names)
            },
            "left_out": {**task.data.left_out, **_too_long(len(task.data.train) - len(rows))},
        },
        "validation": {
            "fingerprint": content_digest(task.data.validation),
            "examples": len(held),
            "left_out": _too_long(len(task.data.validation) - len(held)),
            "accuracy": measured[-1]["eval_accuracy"] if measured else None,
            "loss": measured[-1]["eval_loss"] if measured else None,
            "seconds": round(sum(entry["eval_seconds"] for entry in validations), 2),
        }
        if held
        else None,
        "steps": int(state["global_step"]),
        "kept_step": step,
        "stopped_early": int(state["global_step"]) < int(state["max_steps"]),
        "resumed_at": resumed_at,
        "trained_parameters": size,
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "curves": {
            "loss": _curve(losses, "loss", "learning_rate", "grad_norm", "seconds"),
            "validation": _curve(validations, "eval_accuracy", "eval_loss", "seconds"),
        },
        "versions": {name: _version(name) for name in _VERSIONED},
    }


def _too_long(count: int) -> dict[str, int]:
    return {"too_long": count} if count else {}


def _curve(entries: list[Any], *names: str) -> list[dict[str, Any]]:
    return [
        {"step": entry["step"], **{n.removeprefix("eval_"): _finite(entry.get(n)) for n in names}}
        for entry in entries
    ]


def _finite(value: Any) -> Any:
    """Return None in place of what JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked_size(weights: Path, task: TrainingTask) -> int:
    """Return the number of trained parameters, all of them numbers."""
    from safetensors.torch import load_file

    tensors = load_file(str(weights))
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ModelError(
            f"the training of {task.model} diverged: its weights are no numbers any more; lower "
            "finetune.learning_rate, or train in another precision"
        )
    return sum(tensor.numel() for tensor in tensors.values())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
