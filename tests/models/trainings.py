"""A tiny Llama in a folder, and trainings of it on texts that one word decides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.config import SweepConfig, parse_config
from engine.training import TrainingTask
from jobs.facts import facts_of
from jobs.training_plan import plan_trainings

TEMPLATE = "{text} ->"
LABELS = {"negative": " bad", "positive": " good"}


def save_tiny(
    path: Path,
    hidden: int = 32,
    window: int = 128,
    words: Sequence[str] = (),
    vocabulary: int = 256,
) -> Path:
    """Write a tiny random Llama that reads bytes, and each of these words as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens(list(words))
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=window,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.25)
    model.save_pretrained(path)
    return path


def spoil_at(path: Path, token: int) -> Path:
    """Make a token's embedding in a saved model no number, as fp16 makes one that is too large."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    model.save_pretrained(path)
    return path


def write_rows(path: Path, n: int, start: int = 0) -> Path:
    """Write n labelled texts of different lengths."""
    rows = []
    for i in range(start, start + n):
        label = i % 2
        text = f"{'it ' * (i % 5)}was no {i}, {'dull' if label == 0 else 'fun'}"
        rows.append({"text": text, "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def raw_sweep(model: Path, train: Path, entry: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return plain values of a sweep with one entry of `finetune`."""
    return {
        "models": [{"name": "tiny", "path": str(model), "adapters": ["none", {"finetune": "t"}]}],
        "data": "bundled:reviews",
        "prompt": {"template": TEMPLATE, "labels": dict(LABELS)},
        "explainers": ["occlusion"],
        "finetune": [{"name": "t", "data": str(train), **entry}],
        **changes,
    }


def sweep_of(model: Path, train: Path, **entry: Any) -> SweepConfig:
    return parse_config(raw_sweep(model, train, entry))


def tasks_of(config: SweepConfig) -> list[TrainingTask]:
    facts, _ = facts_of(config)
    trainings, _ = plan_trainings(config, facts, (), Path("store"))
    return [training.task for training in trainings]
