from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.checkpoints import (
    STATE,
    folder_of,
    is_finished,
    last_checkpoint,
    mark_complete,
    remove_torn,
)


def save(checkpoints: Path, step: int, complete: bool = True) -> None:
    folder = folder_of(checkpoints, step)
    folder.mkdir(parents=True)
    (folder / STATE).write_text(json.dumps({"global_step": step}), encoding="utf-8")
    if complete:
        mark_complete(checkpoints, step)


def test_the_last_whole_one_by_its_step(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "nothing") is None
    for step in (100, 25, 75):
        save(tmp_path, step)
    save(tmp_path, 125, complete=False)
    last = last_checkpoint(tmp_path)
    assert last is not None
    assert last.folder == folder_of(tmp_path, 100)
    assert last.state == {"global_step": 100}
    assert folder_of(tmp_path, 125).exists()  # looking takes nothing away


def test_torn_ones_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 25)
    save(tmp_path, 50, complete=False)
    remove_torn(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-25"]
    remove_torn(tmp_path / "nothing")


def state(step: int, waited: int | None = None) -> dict[str, Any]:
    saved: dict[str, Any] = {"global_step": step, "max_steps": 100, "stateful_callbacks": {}}
    if waited is not None:
        attributes = {"early_stopping_patience_counter": waited}
        saved["stateful_callbacks"]["EarlyStoppingCallback"] = {"attributes": attributes}
    return saved


@pytest.mark.parametrize(
    ("saved", "patience", "expected"),
    [
        (state(99), None, False),
        (state(100), None, True),
        (state(40, waited=2), 3, False),
        (state(40, waited=3), 3, True),
        (state(40), 3, False),
    ],
)
def test_when_nothing_is_left_to_train(
    saved: dict[str, Any], patience: int | None, expected: bool
) -> None:
    assert is_finished(saved, patience) is expected
