"""LoRA targets, sizes and packing as configurations tell them: against tables, peft and models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_PEFT

from actors import families
from actors.families import default_config, family_facts, lora_targets, packs, vllm_adapters
from engine.errors import ModelError
from tests.models.test_packed import FALL_BACK
from tests.models.tiny import FAMILIES, config_of

pytestmark = pytest.mark.models

GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
TINY = {  # beside those of tests/models/tiny.py
    "opt of two widths": transformers.OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, word_embed_proj_dim=16, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64,
    ),
}  # fmt: skip
EXPECTED = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "smollm3", "granite",
         "olmo", "olmo2", "cohere", "cohere2", "stablelm"),
        GATED,
    ),
    **dict.fromkeys(("gpt_neox", "falcon", "falcon with groups", "bloom"), FUSED),
    # experts are tensors of three dimensions, routers no linear layers
    **dict.fromkeys(("granitemoe", "mixtral", "qwen3 moe", "gpt_oss"), ATTENTION),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("o_proj", "qkv_proj", "gate_up_proj", "down_proj"),
    "glm": (*ATTENTION, "gate_up_proj", "down_proj"),
    "starcoder2": (*ATTENTION, "c_fc", "c_proj"),
    "gptj": ("k_proj", "v_proj", "q_proj", "out_proj", "fc_in", "fc_out"),
    "opt": ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"),
    "opt of two widths": ("k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neo": ("k_proj", "v_proj", "q_proj", "out_proj", "c_fc", "c_proj"),
    "mpt": ("Wqkv", "out_proj", "up_proj", "down_proj"),
    "mamba": ("in_proj", "x_proj", "dt_proj"),
    "deepseek_v3": ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
}  # fmt: skip


def tiny(family: str) -> Any:
    return TINY[family] if family in TINY else config_of(family)


def wrapped(config: Any, targets: Any) -> set[str]:
    """The modules that peft wraps."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        tuned = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    return {name for name, module in tuned.base_model.model.named_modules() if _is_lora(module)}


def _is_lora(module: torch.nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


@pytest.mark.parametrize("family", EXPECTED)
def test_targets_are_the_linear_layers_of_the_blocks(family: str) -> None:
    assert lora_targets(tiny(family)) == EXPECTED[family]


@pytest.mark.parametrize("family", [*FAMILIES, *TINY])
def test_peft_wraps_what_its_own_rule_finds(family: str) -> None:
    """Its rule takes linear layers outside the blocks along, of some families experts too."""
    config = tiny(family)
    ours = wrapped(config, list(lora_targets(config)))
    assert ours
    if "mamba" in family:
        with pytest.raises(ValueError, match="incompatible with Mamba"):
            wrapped(config, "all-linear")
        return
    theirs = wrapped(config, "all-linear")
    assert ours <= theirs
    others = ("project_", "mlp.experts", "mlp.gate")
    assert all(any(part in name for part in others) for name in theirs - ours)


@pytest.mark.parametrize(
    ("family", "attention", "query_value"),
    [
        ("llama", ATTENTION, ("q_proj", "v_proj")),
        ("granitemoe", ATTENTION, ("q_proj", "v_proj")),
        ("phi", ("q_proj", "k_proj", "v_proj", "dense"), ("q_proj", "v_proj")),
        ("phi3", ("o_proj", "qkv_proj"), ("qkv_proj",)),
        ("falcon", ("query_key_value", "dense"), ("query_key_value",)),
        ("gpt2", ("c_attn", "attn.c_proj"), ("c_attn",)),
        ("deepseek_v3", EXPECTED["deepseek_v3"], ("q_b_proj", "kv_b_proj")),
    ],
)
def test_a_part_of_the_layers(
    family: str, attention: tuple[str, ...], query_value: tuple[str, ...]
) -> None:
    config = tiny(family)
    assert lora_targets(config, "attention") == attention
    assert lora_targets(config, "query-value") == query_value
    found = wrapped(config, list(attention))
    assert all("attn" in name or "attention" in name for name in found)
    assert len(found) == len(attention) * config.num_hidden_layers


@pytest.mark.parametrize("family", [f for f in FAMILIES if " " not in f])
def test_queries_and_values_are_those_of_peft(family: str) -> None:
    config = tiny(family)
    theirs = BY_PEFT.get(config.model_type)
    if theirs is None or family == "phi":  # peft adds its feed-forward layers
        return
    assert set(lora_targets(config, "query-value")) == set(theirs)


def test_several_towers_are_told_apart() -> None:
    """Gemma 3 with vision: only the text decoder is wrapped, though names are the same."""
    config = transformers.Gemma3Config(
        text_config=config_of("gemma3").to_dict(),
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
    )  # fmt: skip
    found = wrapped(config, list(lora_targets(config)))
    assert len(found) == 7 * 3
    assert not any("vision" in name for name in found)


def test_what_a_family_lacks_is_said() -> None:
    with pytest.raises(ModelError, match="mamba has no attention projections"):
        lora_targets(tiny("mamba"), "attention")
    with pytest.raises(ModelError, match="no causal model of the family 'vit'"):
        family_facts(transformers.ViTConfig())
    with pytest.raises(ModelError, match="doesn't know the family 'no_such'"):
        default_config("no_such")


@pytest.mark.parametrize("family", [*FAMILIES, *TINY])
def test_weights_are_counted_as_the_model_counts_them(family: str) -> None:
    config = tiny(family)
    facts = family_facts(config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert facts.parameters == model.num_parameters()
    assert facts.architecture == type(model).__name__
    assert (facts.layers, facts.hidden) == (config.num_hidden_layers, 32)
    assert facts.memory["fp32"] == 2 * facts.memory["bf16"] == 4 * facts.parameters


def test_tied_matrices_count_once() -> None:
    sizes = {}
    for tied in (True, False):
        config = config_of("llama")
        config.tie_word_embeddings = tied
        sizes[tied] = family_facts(config).parameters
    assert sizes[False] - sizes[True] == 97 * 32


def test_sizes_that_are_known() -> None:
    """Configurations whose sizes were published."""
    llama = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    assert family_facts(llama).parameters == 1_235_814_400  # Llama 3.2 1B
    mistral = transformers.MistralConfig(
        vocab_size=32768, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    assert family_facts(mistral).parameters == 7_248_023_552  # Mistral 7B v0.3


def test_packing_is_what_hosts_find() -> None:
    for family in FAMILIES:
        assert packs(config_of(family)) is (family not in FALL_BACK), family
    assert packs(default_config("phimoe")) is None
    assert vllm_adapters("llama")
    assert vllm_adapters("stablelm") is False
    assert vllm_adapters("no_such") is None
    assert not families._VLLM_ADAPTERS & families._VLLM_NO_ADAPTERS
