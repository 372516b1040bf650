"""One logical CPU must neither halve a host's threads nor leave the steps without room."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from jobs.stages import physical_cores

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over bytes, saved as a local folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_sweep_keeps_its_threads(tiny_llama: Path, sweep_config: Make, tmp_path: Path) -> None:
    raw = sweep_config(
        models=[{"name": "tiny", "path": str(tiny_llama)}],
        explainers=["occlusion"],
        data={"path": "bundled:reviews", "id": "id", "limit": 4},
        cluster={"num_cpus": 1, "shard_size": 1},
    )
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.sweep", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["hosts"]["tiny/fp32"]["threads"] == physical_cores()
