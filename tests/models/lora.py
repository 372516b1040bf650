"""Random LoRA adapters with an effect, as peft saves them, and what freshly loaded ones answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from actors.batching import ScoreSequence
from tests.models.tiny import LABELS, plain

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
WIDE: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 24,
    "lora_dropout": 0.3,
    "target_modules": list(ALL_LINEAR),
    "rank_pattern": {"down_proj": 3},
    "use_rslora": True,
}


def save_adapter(model: Any, path: Path, seed: int = 1, scale: float = 0.1, **config: Any) -> Path:
    """Write a random adapter of a model, which stays as it is."""
    task = LoraConfig(task_type="CAUSAL_LM", **config)
    made = get_peft_model(copy.deepcopy(model), task)
    torch.manual_seed(seed)
    for name, parameter in made.named_parameters():
        if "lora_A" in name or "lora_B" in name or "lora_embedding" in name:
            parameter.data.normal_(0.0, scale)
    made.save_pretrained(path)
    return path


def fresh(model: Any, adapter: Path | None) -> Any:
    """A copy of a model with an adapter loaded by peft, and nothing else."""
    if adapter is None:
        return copy.deepcopy(model)
    return PeftModel.from_pretrained(copy.deepcopy(model), str(adapter)).eval()


def inner(model: Any) -> Any:
    """The transformers model inside of what peft made."""
    return getattr(model, "get_base_model", lambda: model)()


def expected(
    model: Any, prompts: Sequence[ScoreSequence], labels: Sequence[tuple[int, ...]] = LABELS
) -> list[list[float]]:
    """Labels' log-probabilities [S, L], every label in a pass of its own."""
    return [plain(model, prompt, labels)[0] for prompt in prompts]


def edit_config(adapter: Path, **changes: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(adapter: Path, edit: Any) -> None:
    """Write the tensors that `edit` makes of an adapter's."""
    file = adapter / "adapter_model.safetensors"
    save_file(edit(load_file(file)), file)
