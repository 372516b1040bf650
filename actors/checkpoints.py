"""Checkpoints of a training: which are whole, where to go on, when there is nothing left to train.

`Trainer` writes a checkpoint file by file; one that was cut off would be taken for a good one. A
checkpoint counts here once it has an empty file `complete`, made when all else is written.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

COMPLETE = "complete"
STATE = "trainer_state.json"


class Checkpoint(NamedTuple):
    """A whole checkpoint.

    Attributes:
        folder: Its files.
        state: What `Trainer` noted of the training so far.
    """

    folder: Path
    state: dict[str, Any]


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return where the checkpoint of an optimizer step is."""
    return checkpoints / f"checkpoint-{step}"


def mark_complete(checkpoints: Path, step: int) -> None:
    """Note that all of a checkpoint is written."""
    (folder_of(checkpoints, step) / COMPLETE).touch()


def last_checkpoint(checkpoints: Path) -> Checkpoint | None:
    """Return the last whole checkpoint, or None."""
    found = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    if not found:
        return None
    last = max(found, key=lambda folder: int(folder.name.rsplit("-", 1)[1]))
    return Checkpoint(last, json.loads((last / STATE).read_text(encoding="utf-8")))


def remove_torn(checkpoints: Path) -> None:
    """Remove checkpoints that were cut off while they were written."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)


def stopped_early(state: dict[str, Any], patience: int | None) -> bool:
    """Return whether early stopping had ended the training when this state was saved."""
    saved = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback")
    if patience is None or not isinstance(saved, dict):
        return False
    return bool(saved["attributes"]["early_stopping_patience_counter"] >= patience)


def is_finished(state: dict[str, Any], patience: int | None) -> bool:
    """Return whether there is nothing left to train."""
    return bool(state["global_step"] >= state["max_steps"]) or stopped_early(state, patience)
