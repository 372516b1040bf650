"""Where a fresh adapter goes: the family's own projections and nothing else, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.families import lora_targets
from actors.lora import target_modules, with_adapter
from engine.config import FinetuneConfig
from engine.errors import ModelError
from tests.models.tiny import FAMILIES, config_of

pytestmark = pytest.mark.models

NEVER = ("lm_head", "embed", "router", "experts", "project_", "mlp.gate.", "block_sparse_moe")
"""Output matrix, embeddings, and what chooses or is an expert."""


def skeleton(family: str) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(family))


def entry(**fields: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"name": "t", "data": "bundled:reviews", **fields})


def wrapped(adapted: Any) -> set[str]:
    modules = adapted.base_model.model.named_modules()
    return {name for name, module in modules if hasattr(module, "lora_A")}


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_is_the_family_s_own_list(family: str) -> None:
    model = skeleton(family)
    assert target_modules(model, "auto") == list(lora_targets(model.config))
    found = wrapped(with_adapter(model, entry()))
    assert found
    assert not [name for name in found if any(part in f"{name}." for part in NEVER)]


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen3 moe"])
def test_names_that_peft_takes_for_experts_are_refused(family: str) -> None:
    """Hosts would refuse the adapter once it is trained."""
    named = entry(targets=["o_proj", "gate_proj", "up_proj"])
    with pytest.raises(ModelError, match="leave out gate_proj"):
        with_adapter(skeleton(family), named)
