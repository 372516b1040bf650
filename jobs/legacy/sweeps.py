"""From the original's flags to a sweep of this project."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import SweepConfig, apply_overrides, parse_config
from engine.errors import ConfigError

SEED = 42
"""Of all the originals."""
SST2 = {"path": "stanfordnlp/sst2", "inputs": {"text": ["sentence", "text"]}, "label": "label"}
SST2_PROMPT = {
    "name": "digits",
    "template": "Classify the sentiment as 0 (negative) or 1 (positive).\nText: {text}\nSentiment:",
    "labels": {"negative": " 0", "positive": " 1"},
}
SEVEN = "all-linear"
"""The modular pipeline's targets: of Llama all seven projections of a block, elsewhere the layers
that the family has in their place."""
TWO = "query-value"
"""The other programs' targets: `q_proj` and `v_proj`, or what makes queries and values."""
NAME = "lora"


@dataclass(frozen=True, slots=True)
class LegacyRun:
    """What a command of the original comes to.

    Attributes:
        sweep: The sweep.
        output: Folder of the original's files; the run folder is `run` in it.
        token: Token for gated models, or None. Never written anywhere.
    """

    sweep: SweepConfig
    output: Path
    token: str | None = field(default=None, repr=False)


def modular_run(options: argparse.Namespace) -> LegacyRun:
    """Return the run of `run_pipeline_modular.py`."""
    sampled = _sampled(options, "lime", "kernel_shap")
    explainers = [*sampled, "integrated_gradients", "occlusion"]
    raw = {
        "run": _run(options, "modular_pipeline"),
        "models": [_model(options, "nf4" if options.load_in_4bit else "auto")],
        "data": {**_sst2(options), **_explained(options.eval_sample_size)},
        "prompt": SST2_PROMPT,
        "explainers": explainers if options.run_xai else [],
    }
    if options.finetune:
        raw["finetune"] = [
            {
                **_sst2_training(options),
                "rank": 16,
                "alpha": 16,
                "dropout": 0.0,
                "targets": SEVEN,
                "learning_rate": 5e-5,
                "batch_size": 2,
                "gradient_accumulation": 4,
                "schedule": "cosine",
                "warmup": 0.05,
                "weight_decay": 0.01,
                "max_tokens": options.max_seq_length,
            }
        ]
    return _legacy(raw, options)


def xai_run(options: argparse.Namespace) -> LegacyRun:
    """Return the run of `llama_3.2_1B_xai.py`."""
    if options.load_in_4bit and options.load_in_8bit:
        raise ConfigError("give either --load-in-4bit or --load-in-8bit")
    precision = "nf4" if options.load_in_4bit else "int8" if options.load_in_8bit else "auto"
    names = ["lime", "kernel_shap"] if options.run_lime else ["kernel_shap"]
    explainers = _sampled(options, *names)
    raw = {
        "run": _run(options, "xai"),
        "models": [_model(options, precision)],
        "data": {**_sst2(options), **_explained(options.eval_sample_size)},
        "prompt": SST2_PROMPT,
        "explainers": explainers if options.run_xai else [],
    }
    if options.finetune:
        raw["finetune"] = [
            {
                **_sst2_training(options),
                "rank": 16,
                "alpha": 32,
                "dropout": 0.05,
                "targets": TWO,
                "learning_rate": 2e-4,
                "batch_size": 4,
                "gradient_accumulation": 4,
                "schedule": "linear",
                "max_tokens": 256,
            }
        ]
    return _legacy(raw, options)


def shap_run(options: argparse.Namespace) -> LegacyRun:
    """Return the run of `experiments_llama_3.2_1B.py`."""
    labels = options.label_space or [0, 1]
    digits = " or ".join(f"`{n}`" for n in labels) if len(labels) == 2 else None
    asked = (
        "Respond with only the digit `1` for positive sentiment and `0` for negative sentiment."
        if labels == [0, 1]
        else f"Respond with only one of the digits {digits or ', '.join(map(str, labels))} to "
        "indicate the sentiment class."
    )
    data = {
        "path": options.dataset_name,
        "inputs": {"text": options.text_field},
        "label": options.label_field,
        "other_labels": "skip",
    }
    if options.dataset_config is not None:
        data["subset"] = options.dataset_config
    evaluation = {**data, "split": options.eval_split, **_limit(options.eval_subset)}
    raw = {
        "run": _run(options, "shap_comparison"),
        "models": [_model(options, "nf4" if options.load_in_4bit else "auto")],
        "data": {
            **_from_file(evaluation, options.eval_data),
            **_explained(options.shap_example_count),
        },
        "prompt": {
            "name": "tweet",
            "template": f"You are a sentiment classifier.\n{asked}\nTweet: {{text}}\nLabel:",
            "labels": {str(n): f" {n}" for n in labels},
        },
        "explainers": [
            {
                "name": "kernel_shap",
                "num_samples": options.shap_max_evals,
                "target": "probability",
            }
        ]
        if options.run_shap
        else [],
        "metrics": {"faithfulness": False},
    }
    if options.finetune:
        training = {**data, "split": options.train_split, **_limit(options.train_subset)}
        raw["finetune"] = [
            {
                "name": NAME,
                "data": _from_file(training, options.train_data),
                "seeds": [SEED],
                "rank": 16,
                "alpha": 32,
                "dropout": 0.1,
                "targets": TWO,
                "learning_rate": 2e-4,
                "batch_size": 4,
                "gradient_accumulation": 4,
                "schedule": "cosine",
                "warmup": 0.03,
                "max_tokens": 512,
            }
        ]
    return _legacy(raw, options)


def _legacy(raw: dict[str, Any], options: argparse.Namespace) -> LegacyRun:
    sweep = parse_config(apply_overrides(raw, options.overrides), "command line")
    return LegacyRun(sweep, Path(options.output_dir), _token(options))


def _run(options: argparse.Namespace, name: str) -> dict[str, Any]:
    return {"name": name, "seed": SEED, "out": str(Path(options.output_dir) / "run")}


def _model(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    adapters: list[Any] = ["none", {"finetune": NAME}] if options.finetune else ["none"]
    return {"path": options.model_name, "precision": precision, "adapters": adapters}


def _sampled(options: argparse.Namespace, *names: str) -> list[Any]:
    return [{"name": name, "num_samples": options.num_samples} for name in names]


def _sst2(options: argparse.Namespace) -> dict[str, Any]:
    """Return the evaluation data: every phase is evaluated on the whole validation split."""
    return _from_file({**SST2, "name": "sst2", "split": "validation"}, options.eval_data)


def _sst2_training(options: argparse.Namespace) -> dict[str, Any]:
    data = {**SST2, "split": "train", **_limit(options.train_size)}
    return {
        "name": NAME,
        "data": _from_file(data, options.train_data),
        "seeds": [SEED],
        "epochs": options.epochs,
    }


def _from_file(data: dict[str, Any], file: str | None) -> dict[str, Any]:
    if file is None:
        return data
    return {k: v for k, v in data.items() if k not in ("split", "subset")} | {"path": file}


def _limit(count: int | None) -> dict[str, int]:
    return {} if count is None else {"limit": count}


def _explained(count: int | None) -> dict[str, int]:
    return {} if count is None else {"explain_limit": count}


def _token(options: argparse.Namespace) -> str | None:
    given: str | None = getattr(options, "huggingface_token", None)
    return given or os.environ.get("HF_TOKEN") or os.environ.get("HUGGINGFACE_TOKEN")
