"""Two tiny families × precisions × {zero-shot, fine-tuned} in one sweep, and broken models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import transformers
from rich.console import Console
from safetensors.torch import load_file, save_file

from analysis.load import RunTables
from engine.config import parse_config
from jobs.sweep import run_sweep
from tests.models.trainings import LABELS, TEMPLATE, save_tiny, write_rows

pytestmark = pytest.mark.models

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("families")
    llama = save_tiny(path / "llama", hidden=64)
    neox = shutil.copytree(llama, path / "neox")
    torch.manual_seed(1)
    config = transformers.GPTNeoXConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(neox)
    broken = shutil.copytree(llama, path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**weights, name: weights[name][:-1].contiguous()}, broken / "model.safetensors")
    write_rows(path / "rows.jsonl", 30)
    return path


def model(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "path": str(folder / name), **more}


@pytest.mark.usefixtures("local_ray")
def test_families_precisions_and_adapters_in_one_report(folder: Path, tmp_path: Path) -> None:
    both: dict[str, Any] = {"precision": ["fp32", "nf4"], "adapters": ["none", {"finetune": "t"}]}
    raw = {
        "run": {"name": "t", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")},
        "models": [
            model(folder, "llama", **both),
            model(folder, "broken"),
            model(folder, "gone"),
            model(folder, "neox", **both),
        ],
        "finetune": [{"name": "t", "data": str(folder / "rows.jsonl"), "rank": 2}],
        "data": {"path": str(folder / "rows.jsonl"), "limit": 8, "explain_limit": 2},
        "prompt": {"template": TEMPLATE, "labels": dict(LABELS)},
        "explainers": ["occlusion"],
        "cluster": {"threads": 1, "num_cpus": 2},
    }
    outcome = run_sweep(parse_config(raw), QUIET)
    assert outcome.code == 2
    run = RunTables.load(outcome.folder)
    lost = {(f["model"], f["stage"], f["code"]) for f in run.failures.to_dicts()}
    assert lost == {("broken", "model", "not_loaded"), ("gone", "model", "not_found")}
    families = pl.read_parquet(outcome.folder / "tables" / "families.parquet")
    accuracy = families.filter(pl.col("metric") == "accuracy")
    assert sorted(accuracy.select("model", "precision", "adapter").rows()) == [
        (name, precision, adapter)
        for name in ("llama", "neox")
        for precision in ("fp32", "nf4")
        for adapter in ("none", "t-seed0")
    ]
    assert accuracy["n"].to_list() == [8] * 8
    gains = families.filter(
        (pl.col("metric") == "comprehensiveness") & (pl.col("explainer") == "occlusion")
    )
    assert gains["n"].to_list() == [2] * 8
    assert (outcome.folder / "figures" / "families_accuracy.png").is_file()
    assert 'id="families"' in (outcome.folder / "report.html").read_text(encoding="utf-8")
    targets = {
        tuple(sorted(config["target_modules"]))
        for config in map(_config, (tmp_path / "store" / "adapters").glob("*/adapter_config.json"))
    }
    assert targets == {
        ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"),
        ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"),
    }


def _config(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
