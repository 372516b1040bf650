from __future__ import annotations

from typing import Any

import pytest

from actors.adapter_support import adapter_rank, vllm_family_refusal, vllm_rank, vllm_refusal

PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "modules_to_save": None,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 8}},
        {"r": 512},
    ],
)
def test_plain_lora_is_served(changes: dict[str, Any]) -> None:
    assert vllm_refusal(PLAIN | changes) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "lora_only"}, "lora_only"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [5]}, "embeddings"),
        ({"r": 1024}, "rank is 1024"),
        ({"rank_pattern": {"q_proj": 600}}, "rank is 600"),
        ({"r": 0}, "rank is 0"),
    ],
)
def test_what_vllm_can_not_serve(changes: dict[str, Any], said: str) -> None:
    refusal = vllm_refusal(PLAIN | changes)
    assert refusal is not None
    assert said in refusal


def test_ranks_are_rounded_up_to_those_vllm_has() -> None:
    assert adapter_rank(PLAIN | {"rank_pattern": {"v_proj": 20}}) == 20
    assert [vllm_rank([r]) for r in (1, 2, 8, 9, 33, 257, 512)] == [1, 8, 8, 16, 64, 320, 512]
    assert vllm_rank([4, 20, 16]) == 32
    with pytest.raises(ValueError, match="rank 513"):
        vllm_rank([513])


def test_families_without_any_adapter() -> None:
    assert "family stablelm" in str(vllm_family_refusal("stablelm"))
    assert vllm_family_refusal("llama") is None
    assert vllm_family_refusal("unheard_of") is None  # vLLM itself says it when it loads
