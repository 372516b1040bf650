"""Which base an adapter says it is for; shapes are the matter of test_adapter_files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.adapter_base import check_trained_on
from actors.adapter_card import CARD
from actors.adapter_files import CONFIG
from engine.errors import ModelError

FILES, OTHER_FILES = "a" * 64, "b" * 64
COMMIT = "c" * 40


def adapter(folder: Path, base: str | None = "owner/tiny", **model: Any) -> Path:
    (folder / CONFIG).write_text(json.dumps({"base_model_name_or_path": base}))
    if model:
        (folder / CARD).write_text(json.dumps({"model": model}))
    return folder


class TestWithACard:
    def test_the_same_weights_under_any_name(self, tmp_path: Path) -> None:
        folder = adapter(tmp_path, "gone/elsewhere", weights=FILES, path="gone/elsewhere")
        assert check_trained_on(folder, "here", FILES) == ""

    def test_other_weights_under_the_same_name(self, tmp_path: Path) -> None:
        folder = adapter(tmp_path, weights=FILES, path="owner/tiny")
        with pytest.raises(ModelError) as error:
            check_trained_on(folder, "owner/tiny", OTHER_FILES)
        said = str(error.value)
        assert said.startswith(f"adapter '{folder}': ")
        assert FILES in said
        assert OTHER_FILES in said

    def test_a_commit_says_nothing_of_files_so_names_are_compared(self, tmp_path: Path) -> None:
        folder = adapter(tmp_path, weights=FILES, path="folder/tiny")
        assert check_trained_on(folder, "owner/tiny", COMMIT) == ""
        assert "folder/tiny" in check_trained_on(folder, "owner/large", COMMIT)


class TestWithoutACard:
    @pytest.mark.parametrize(
        ("trained_on", "served_on"),
        [
            ("owner/tiny", "owner/tiny@v2"),
            ("owner/Tiny", "/data/tiny/"),
            ("/cache/models--owner--tiny/snapshots/0123", "owner/tiny"),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m"),
            (None, "owner/tiny"),
            ("", "owner/tiny"),
        ],
    )
    def test_one_name(self, tmp_path: Path, trained_on: str | None, served_on: str) -> None:
        assert check_trained_on(adapter(tmp_path, trained_on), served_on, FILES) == ""

    def test_two_names_are_a_warning(self, tmp_path: Path) -> None:
        said = check_trained_on(adapter(tmp_path, "owner/tiny-chat"), "owner/tiny", FILES)
        assert "trained on owner/tiny-chat" in said
        assert "served on owner/tiny" in said

    @pytest.mark.parametrize("content", ["{", "[]", '{"model": "tiny"}', '{"model": {}}'])
    def test_a_card_of_others_counts_as_none(self, tmp_path: Path, content: str) -> None:
        folder = adapter(tmp_path)
        (folder / CARD).write_text(content)
        assert check_trained_on(folder, "owner/tiny", FILES) == ""
        assert check_trained_on(folder, "owner/other", FILES)
