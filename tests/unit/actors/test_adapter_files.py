"""What is refused of an adapter by its files alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from actors.adapter_files import CONFIG, WEIGHTS, read_adapter
from engine.errors import ModelError

WIDTH, HEADS = 8, 6
LAYER = "model.layers.0.self_attn"


def tensors(rank: int = 2, out: int = HEADS, layer: str = LAYER) -> dict[str, np.ndarray]:
    name = f"base_model.model.{layer}.v_proj"
    return {
        f"{name}.lora_A.weight": np.ones((rank, WIDTH), np.float32),
        f"{name}.lora_B.weight": np.ones((out, rank), np.float32),
    }


@pytest.fixture
def base(tmp_path: Path) -> str:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = {
        f"{LAYER}.v_proj.weight": np.zeros((HEADS, WIDTH), np.float32),
        "model.embed_tokens.weight": np.zeros((11, WIDTH), np.float32),
    }
    save_file(weights, folder / "model.safetensors")
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    write(made)
    save_file(tensors(), made / WEIGHTS)
    return made


def write(folder: Path, **changes: Any) -> None:
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["v_proj"],
        "base_model_name_or_path": "somebody/else",
        "init_lora_weights": True,
        "bias": "none",
    }
    (folder / CONFIG).write_text(json.dumps(config | changes))


def refusal(path: Path | str, base: str | None = None) -> str:
    with pytest.raises(ModelError) as error:
        read_adapter(str(path), base)
    assert str(path) in str(error.value)
    return str(error.value)


def test_one_that_fits(folder: Path, base: str) -> None:
    files = read_adapter(str(folder), base)
    assert files.folder == folder
    assert files.nbytes == 4 * (2 * WIDTH + 2 * HEADS)
    assert len(files.digest) == 64


def test_the_digest_is_of_content(folder: Path, tmp_path: Path) -> None:
    first = read_adapter(str(folder)).digest
    write(folder, base_model_name_or_path="moved/elsewhere")
    assert read_adapter(str(folder)).digest == first
    write(folder, lora_alpha=5)
    other = read_adapter(str(folder)).digest
    assert other != first
    write(folder)
    save_file({k: v + 1 for k, v in tensors().items()}, folder / WEIGHTS)
    assert read_adapter(str(folder)).digest not in (first, other)


class TestMissing:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def test_folder(self, tmp_path: Path) -> None:
        assert "does not exist" in refusal(tmp_path / "gone")

    def test_hub_id_without_a_network(self) -> None:
        assert "HF_HUB_OFFLINE" in refusal("somebody/some-adapter")

    def test_hub_id_in_the_cache(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        cache = tmp_path / "hub"
        snapshot = cache / "models--somebody--adapter" / "snapshots" / ("0" * 40)
        snapshot.parent.mkdir(parents=True)
        folder.rename(snapshot)
        refs = cache / "models--somebody--adapter" / "refs"
        refs.mkdir()
        (refs / "main").write_text("0" * 40)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        assert read_adapter("somebody/adapter").folder == snapshot

    def test_configuration(self, folder: Path) -> None:
        (folder / CONFIG).unlink()
        assert CONFIG in refusal(folder)

    def test_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        assert f"no {WEIGHTS}" in refusal(folder)

    def test_pickled_weights_are_not_opened(self, folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "adapter_model.bin")
        assert "pickled" in refusal(folder)


class TestDamaged:
    @pytest.mark.parametrize("content", ["{", "[1]"])
    def test_configuration(self, folder: Path, content: str) -> None:
        (folder / CONFIG).write_text(content)
        assert CONFIG in refusal(folder)

    @pytest.mark.parametrize("kept", [0, 5, 200, -4])
    def test_weights_cut_short(self, folder: Path, kept: int) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(whole[:kept])
        assert "corrupted" in refusal(folder)

    def test_weights_of_one_side(self, folder: Path) -> None:
        save_file({k: v for k, v in tensors().items() if "lora_A" in k}, folder / WEIGHTS)
        assert "incomplete" in refusal(folder)

    def test_no_weights_of_its_own(self, folder: Path) -> None:
        save_file({"lm_head.weight": np.zeros((2, 2), np.float32)}, folder / WEIGHTS)
        assert "no LoRA weights" in refusal(folder)


class TestNotServed:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"peft_type": "IA3"}, "IA3"),
            ({"r": 0}, "no rank"),
            ({"bias": "all"}, "bias: all"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
            ({"trainable_token_indices": [1]}, "trainable_token_indices"),
            ({"target_parameters": ["experts.up"]}, "target_parameters"),
            ({"layer_replication": [[0, 1]]}, "layer_replication"),
            ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
            ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
            ({"init_lora_weights": "OLoRA"}, "OLoRA"),
        ],
    )
    def test_kinds(self, folder: Path, changes: dict[str, Any], said: str) -> None:
        write(folder, **changes)
        assert said in refusal(folder)

    @pytest.mark.parametrize(
        "changes",
        [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}],
        ids=str,
    )
    def test_others_are(self, folder: Path, base: str, changes: dict[str, Any]) -> None:
        write(folder, **changes)
        read_adapter(str(folder), base)


class TestRank:
    def test_other_than_the_configurations(self, folder: Path) -> None:
        write(folder, r=4)
        assert re.search(r"v_proj\.lora_A\.weight has the shape \[2, 8\].*r = 4", refusal(folder))

    @pytest.mark.parametrize("pattern", ["v_proj", r"layers\.0\.self_attn\.v_proj", ".*v_proj"])
    def test_of_a_pattern(self, folder: Path, base: str, pattern: str) -> None:
        write(folder, r=16, rank_pattern={pattern: 2})
        read_adapter(str(folder), base)

    def test_of_one_matrix_only(self, folder: Path) -> None:
        mixed = tensors() | {
            f"base_model.model.{LAYER}.v_proj.lora_B.weight": np.ones((HEADS, 3), np.float32)
        }
        save_file(mixed, folder / WEIGHTS)
        assert "lora_B" in refusal(folder)


class TestBase:
    def test_of_another_width(self, folder: Path, base: str) -> None:
        save_file(tensors(out=HEADS + 1), folder / WEIGHTS)
        said = refusal(folder, base)
        assert f"{LAYER}.v_proj has {WIDTH} and {HEADS}" in said
        assert "somebody/else" in said

    def test_with_other_layers(self, folder: Path, base: str) -> None:
        save_file(tensors(layer="transformer.h.0.attn"), folder / WEIGHTS)
        assert "has none of its layers" in refusal(folder, base)

    def test_stored_without_the_outermost_name(self, folder: Path, base: str) -> None:
        file = Path(base) / "model.safetensors"
        stored = load_file(file)
        save_file({k.removeprefix("model."): v for k, v in stored.items()}, file)
        read_adapter(str(folder), base)
        save_file(tensors(out=HEADS + 1), folder / WEIGHTS)
        assert "another base" in refusal(folder, base)

    def test_embeddings_and_transposed_layers(self, folder: Path, base: str) -> None:
        name = "base_model.model.model.embed_tokens.lora_embedding"
        table = {f"{name}_A": np.ones((2, 11), np.float32)}
        table[f"{name}_B"] = np.ones((WIDTH, 2), np.float32)
        save_file(tensors() | table, folder / WEIGHTS)
        read_adapter(str(folder), base)
        write(folder, fan_in_fan_out=True)
        assert "v_proj" in refusal(folder, base)

    def test_stored_quantized_has_other_names(self, folder: Path, base: str) -> None:
        (Path(base) / "config.json").write_text('{"quantization_config": {"bits": 4}}')
        packed = {f"{LAYER}.v_proj.qweight": np.zeros((1, HEADS), np.int32)}
        save_file(packed, Path(base) / "model.safetensors")
        read_adapter(str(folder), base)
