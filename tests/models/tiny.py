"""Tiny random models of many families, and the plain forward pass that all else must equal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from actors.batching import ScoreSequence
from actors.loader import attention_of

VOCABULARY = 97
LABELS = ((3,), (5, 7), (5, 8, 11), (9, 4), (5, 7, 2))
TEMPLATE = (11, 12, 13, 14, 15)
WINDOW = 6
"""Width of the sliding windows; prompts are three times as long."""

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SLIDING = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
_RANKS = {"q_lora_rank": 16, "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GROUPED),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": WINDOW}),
    "mixtral": ("Mixtral", {**_GROUPED, "num_local_experts": 4}),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen2 with windows": ("Qwen2", {**_GROUPED, **_SLIDING}),
    "qwen3": ("Qwen3", _HEADS),
    "qwen3 with windows": ("Qwen3", {**_HEADS, **_SLIDING}),
    "qwen3 moe": ("Qwen3Moe", {**_HEADS, **_EXPERTS, "num_experts": 4}),
    "gemma": ("Gemma", _HEADS),
    # caps and scales of the logits that the output matrix alone doesn't apply
    "gemma2": (
        "Gemma2",
        {**_HEADS, "sliding_window": WINDOW, "final_logit_softcapping": 0.5},
    ),
    "gemma3": ("Gemma3Text", {**_HEADS, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "phi": ("Phi", _GROUPED),
    "phi3": ("Phi3", {**_GROUPED, "sliding_window": WINDOW}),
    "smollm3": ("SmolLM3", {**_GROUPED, "no_rope_layers": [1, 0, 1]}),
    "gpt_neox": ("GPTNeoX", _COMMON),
    "gpt2": ("GPT2", _GPT2),
    "granite": ("Granite", {**_GROUPED, "logits_scaling": 4.0}),
    "granitemoe": ("GraniteMoe", {**_GROUPED, "num_local_experts": 4, "logits_scaling": 4.0}),
    "olmo": ("Olmo", _COMMON),
    "olmo2": ("Olmo2", _GROUPED),
    "cohere": ("Cohere", {**_GROUPED, "logit_scale": 0.5}),
    "cohere2": ("Cohere2", {**_GROUPED, "sliding_window": WINDOW}),
    "stablelm": ("StableLm", _GROUPED),
    "starcoder2": ("Starcoder2", {**_GROUPED, "sliding_window": WINDOW}),
    "glm": ("Glm", _HEADS),
    "opt": ("OPT", {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "gptj": ("GPTJ", {**_GPT2, "rotary_dim": 4}),
    "deepseek_v3": (
        "DeepseekV3",
        {
            **_COMMON,
            **_RANKS,
            "num_key_value_heads": 4,
            "v_head_dim": 6,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    # attention of their own, positions as a bias on it, or a state instead of attention
    "falcon": ("Falcon", {**_COMMON, "new_decoder_architecture": False}),
    "falcon with groups": (
        "Falcon",
        {**_COMMON, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon with alibi": ("Falcon", {**_COMMON, "alibi": True}),
    "bloom": ("Bloom", {**_GPT2, "hidden_size": 32}),
    "mpt": ("Mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 3, "n_heads": 4}),
    "gpt_neo": (
        "GPTNeo",
        {
            **_COMMON,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1], [["global"], 1]],
            "window_size": WINDOW,
        },
    ),
    # windows that only a wide trie makes bind: they count places, not positions
    "gpt_neo with wide windows": (
        "GPTNeo",
        {
            **_COMMON,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1], [["global"], 1]],
            "window_size": 200,
            "max_position_embeddings": 2048,
        },
    ),
    "gpt_oss": ("GptOss", {**_HEADS, "num_local_experts": 4, "sliding_window": WINDOW}),
    "mamba": ("Mamba", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3}),
    "falcon_mamba": (
        "FalconMamba",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3},
    ),
    "recurrent_gemma": ("RecurrentGemma", {**_GROUPED, "lru_width": 32}),
}
"""Family -> name of its configuration and the fields of a tiny one."""


def config_of(family: str) -> Any:
    name, fields = FAMILIES[family]
    return getattr(transformers, f"{name}Config")(**fields)


def build(family: str) -> Any:
    torch.manual_seed(0)
    config = config_of(family)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention_of(config)
    )
    for name, parameter in model.named_parameters():
        # sharper than the initial noise, to tell errors apart; a state's own rates stay as they are
        if parameter.dim() > 1 and "A_log" not in name and "conv" not in name:
            parameter.data.normal_(0.0, 0.25)
    return model.eval().requires_grad_(False)


def plain(
    model: Any, sequence: ScoreSequence, labels: Sequence[tuple[int, ...]] = LABELS
) -> tuple[list[float], float]:
    """The labels' log-probabilities and log Z, every label in a forward pass of its own."""
    scores, log_z = [], 0.0
    for label in labels:
        ids = torch.tensor([sequence.ids + label])
        inputs = {"input_ids": ids}
        if sequence.hidden:
            mask = torch.ones_like(ids)
            mask[0, list(sequence.hidden)] = 0
            inputs |= {"attention_mask": mask, "position_ids": torch.arange(ids.shape[1])[None]}
        with torch.inference_mode():
            logits = model(**inputs).logits[0].double()
        first = len(sequence.ids) - 1
        log_z = float(logits[first].logsumexp(-1))
        log_probs = logits.log_softmax(-1)
        scores.append(sum(float(log_probs[first + i, t]) for i, t in enumerate(label)))
    return scores, log_z


def prompts(n: int, template: Sequence[int] = TEMPLATE, hide: bool = False) -> list[ScoreSequence]:
    """Distinct prompts of a template, words deleted from a text, and a suffix."""
    drawn = random.Random(n)
    made: dict[ScoreSequence, None] = {}
    text = [drawn.randrange(20, VOCABULARY) for _ in range(14)]
    while len(made) < n:
        kept = sorted(drawn.sample(range(len(text)), drawn.randint(1, len(text))))
        start = len(template)
        if hide:
            hidden = tuple(start + i for i in range(len(text)) if i not in kept)
            made[ScoreSequence((*template, *text, 16, 17), hidden)] = None
        else:
            made[ScoreSequence((*template, *(text[i] for i in kept), 16, 17))] = None
    return list(made)
