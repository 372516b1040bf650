"""The recipes of the originals: the layers that they adapt, whatever the family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import (
    AutoConfig,
    FalconConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from actors.families import lora_targets
from engine.finetune_section import FinetuneConfig
from jobs.legacy import flags, sweeps

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUERY_VALUE = ("q_proj", "v_proj")
FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
FAMILIES: dict[type[PreTrainedConfig], tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys((LlamaConfig, Qwen2Config, GraniteConfig), (SEVEN, QUERY_VALUE)),
    **dict.fromkeys((FalconConfig, GPTNeoXConfig), (FUSED, ("query_key_value",))),
    MixtralConfig: (SEVEN[:4], QUERY_VALUE),
    PhiConfig: (("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"), QUERY_VALUE),
}


def recipe(parser: Callable[[], object], run: Callable[..., sweeps.LegacyRun]) -> FinetuneConfig:
    options = parser().parse_args(["--finetune"])  # type: ignore[attr-defined]
    [entry] = run(options).sweep.finetune
    return entry


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family.model_type))
def test_targets_are_the_original_s_or_what_a_family_has_in_their_place(
    family: type[PreTrainedConfig],
) -> None:
    config = AutoConfig.for_model(
        family.model_type, vocab_size=97, hidden_size=32, num_hidden_layers=1,
        num_attention_heads=4, intermediate_size=48,
    )  # fmt: skip
    for entry, wanted in (
        (recipe(flags.modular_parser, sweeps.modular_run), FAMILIES[family][0]),
        (recipe(flags.xai_parser, sweeps.xai_run), FAMILIES[family][1]),
        (recipe(flags.shap_parser, sweeps.shap_run), FAMILIES[family][1]),
    ):
        assert isinstance(entry.targets, str)
        assert set(lora_targets(config, entry.targets)) == set(wanted)  # type: ignore[arg-type]
