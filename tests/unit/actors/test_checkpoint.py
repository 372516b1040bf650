from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from actors.checkpoint import stored_bytes, stored_parameters


def test_weights_of_all_files_are_counted(tmp_path: Path) -> None:
    save_file({"a": np.zeros((3, 4), np.float32)}, tmp_path / "model-1.safetensors")
    save_file(
        {"b": np.zeros(5, np.float16), "c": np.zeros((), np.float32)},
        tmp_path / "model-2.safetensors",
    )
    assert stored_parameters(str(tmp_path)) == 12 + 5 + 1
    assert 12 * 4 + 5 * 2 + 4 < stored_bytes(str(tmp_path)) < 600


def test_a_folder_without_such_files(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert stored_parameters(str(tmp_path)) is None
    assert stored_bytes(str(tmp_path)) == 0
