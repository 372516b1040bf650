"""Gradients on a real Ray: both kinds of request cross it in one round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from analysis.load import RunTables
from engine.config import parse_config
from jobs.sweep import run_sweep

QUIET = Console(quiet=True)
EXPLAINERS = ["integrated_gradients", "ig_occlusion", "occlusion"]


def tiny_llama(folder: Path) -> str:
    """Save a random model of bytes, and return its folder."""
    transformers = pytest.importorskip("transformers")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.models
@pytest.mark.usefixtures("local_ray")
def test_a_sweep_explains_by_gradients(
    sweep_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    raw = sweep_config(
        models=[{"name": "tiny", "path": tiny_llama(tmp_path / "tiny")}],
        explainers=EXPLAINERS,
        data__limit=5,
        metrics={"random_orders": 2, "curve_points": 4},
    )
    outcome = run_sweep(parse_config(raw), QUIET)
    assert outcome.code == 0
    loaded = RunTables.load(outcome.folder)
    assert sorted(loaded.attributions["explainer"].unique()) == sorted(EXPLAINERS)
    assert len(loaded.attributions) == 15
    for row in loaded.attributions.to_dicts():
        total = row["base"] + sum(row["values"]) + row["residual"]
        assert total == pytest.approx(row["full_value"], abs=1e-6)
    assert set(loaded.metrics["explainer"]) == set(EXPLAINERS)


@pytest.mark.usefixtures("local_ray")
def test_a_host_without_embeddings_fails_the_gradients_only(
    sweep_config: Callable[..., dict[str, Any]],
) -> None:
    raw = sweep_config(explainers=EXPLAINERS, data__limit=5)
    outcome = run_sweep(parse_config(raw), QUIET)
    assert outcome.code == 2
    loaded = RunTables.load(outcome.folder)
    assert set(loaded.attributions["explainer"]) == {"occlusion"}
    assert len(loaded.failures) == 10
    assert set(loaded.failures["code"]) == {"no_gradients"}
    assert "the fake models have none" in loaded.failures["message"][0]
