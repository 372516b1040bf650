"""One sweep through Ray, a model once served by transformers and once by vLLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.load import RunTables
from cluster.session import ray_session
from engine.config import parse_config
from jobs.sweep import run_sweep
from tests.vllm.conftest import MODEL, make_adapter

KEYS = ["adapter", "example"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    # small: on a CPU vLLM multiplies by an adapter token by token
    adapter = make_adapter(root / "adapter", 8, 3, 0.1, target_modules=["v_proj"])
    raw = {
        "run": {"name": "both", "out": str(root / "run"), "store": str(root / "store")},
        "models": [
            {"name": "plain", "path": MODEL},
            {
                "name": "vllm",
                "path": MODEL,
                "backend": "vllm",
                "adapters": ["none", {"name": "small", "path": str(adapter.folder)}],
                "options": {"kv_cache_memory_bytes": 128 << 20, "max_model_len": 512},
            },
        ],
        "data": {"path": "bundled:reviews", "id": "id", "limit": 2},
        "prompt": {
            "name": "review",
            "template": "Review: {text}\nSentiment:",
            "labels": {"negative": " negative", "positive": " rather positive"},
        },
        "explainers": [{"name": "kernel_shap", "num_samples": 48}, "occlusion", "random"],
        "metrics": {"curve_points": 4},
    }
    with ray_session(num_cpus=2):
        outcome = run_sweep(parse_config(raw), Console(quiet=True))
    assert outcome.code == 0
    return outcome.folder


def of(frame: pl.DataFrame, model: str, *keys: str) -> pl.DataFrame:
    return frame.filter(model=model, adapter="none").sort(*KEYS, *keys)


def test_rows_are_equal(folder: Path) -> None:
    loaded = RunTables.load(folder)
    plain, vllm = (of(loaded.predictions, name) for name in ("plain", "vllm"))
    assert len(plain) == len(vllm) == 2
    assert plain["predicted"].to_list() == vllm["predicted"].to_list()
    np.testing.assert_allclose(
        np.stack(vllm["log_probs"].to_list()), np.stack(plain["log_probs"].to_list()), atol=1e-3
    )
    assert plain["log_z"].null_count() == 0
    assert vllm["log_z"].null_count() == 2
    plain, vllm = (of(loaded.attributions, name, "explainer") for name in ("plain", "vllm"))
    assert len(plain) == len(vllm) == 6
    for ours, theirs in zip(plain.to_dicts(), vllm.to_dicts(), strict=True):
        assert ours["spans"] == theirs["spans"]
        np.testing.assert_allclose(theirs["values"], ours["values"], atol=1e-3)


def test_tables_are_equal(folder: Path) -> None:
    compared = 0
    for file in sorted((folder / "tables").glob("*.parquet")):
        table = pl.read_parquet(file)
        if file.stem == "cost" or not {"model", "adapter", "value"} <= set(table.columns):
            continue
        if "other_adapter" in table.columns:  # only one of the two models has an adapter
            continue
        # what a host takes is its engine's own
        table = table.filter(~pl.col("metric").str.contains("seconds$|^weight_bytes$"))
        keys = [
            name
            for name, kind in table.schema.items()
            if kind == pl.String and name not in ("model", "numerics")
        ]
        plain, vllm = (
            table.filter(model=name, adapter="none").sort(*keys).select(*keys, "value")
            for name in ("plain", "vllm")
        )
        assert plain.select(keys).equals(vllm.select(keys)), file.stem
        np.testing.assert_allclose(
            vllm["value"].to_numpy(), plain["value"].to_numpy(), atol=1e-3, err_msg=file.stem
        )
        compared += len(plain)
    assert compared > 20


def test_the_adapter_is_another_model_on_the_same_host(folder: Path) -> None:
    loaded = RunTables.load(folder)
    vllm = loaded.predictions.filter(model="vllm").sort(*KEYS)
    assert vllm["adapter"].unique().sort().to_list() == ["none", "small"]
    small, none = (
        np.stack(vllm.filter(adapter=a)["log_probs"].to_list()) for a in ("small", "none")
    )
    assert abs(small - none).max() > 0.05
