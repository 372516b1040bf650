"""Adapters on bases in 4 and 8 bits answer as freshly loaded models do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from actors.adapter_files import read_adapter
from actors.adapters import AdapterPool
from actors.backend import SequenceBatch
from actors.batching import ScoreSequence
from actors.gradients import GradientRunner
from actors.loader import load_model, resolve_model
from actors.mixed_batch import compare_adapters
from actors.self_check import make_scorer, packing_checked, tolerance_of, vocabulary_size
from engine.gradients import GradientAsk
from engine.ragged import Ragged
from tests.models.lora import ATTENTION, WIDE, save_adapter
from tests.models.tiny import LABELS, TEMPLATE, VOCABULARY, prompts

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama wide enough to be quantized, and two adapters of it."""
    path = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.2)
    model.save_pretrained(path / "base")
    save_adapter(model, path / "a", **ATTENTION)
    save_adapter(model, path / "b", seed=2, **WIDE)
    return path


def load(folder: Path, precision: str) -> Any:
    return load_model(resolve_model(str(folder / "base")), precision, "cpu")


class Scorers:
    """The ways in which a host scores with a model."""

    def __init__(self, model: Any) -> None:
        self.padded, _ = make_scorer(model, 2)
        packing = packing_checked(model, self.padded.reading, 2)
        assert packing is not None
        self.packed = packing[0]

    def score(self, batch: SequenceBatch, adapter: str = "") -> np.ndarray:
        """Log-probabilities by both [2, S, L]."""
        rows = [ScoreSequence(tuple(ids)) for ids in batch.sequences.to_lists()]
        return np.stack(
            [
                self.packed.score(batch, LABELS, adapter=adapter).log_probs,
                self.padded.score(rows, LABELS, len(TEMPLATE), adapter)[0],
            ]
        )


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_two_adapters_and_the_base_interleaved(folder: Path, precision: str) -> None:
    """Compared by the same route: on some CPUs 4-bit kernels round what goes into them, so that the
    routes themselves lie apart, with or without adapters."""
    batch = SequenceBatch(Ragged.of([row.ids for row in prompts(6)]), None)
    files = {
        read_adapter(str(folder / name), str(folder / "base")).digest: str(folder / name)
        for name in ("a", "b")
    }
    wanted = {"": Scorers(load(folder, precision)).score(batch)}
    for digest, path in files.items():
        fresh = PeftModel.from_pretrained(load(folder, precision), path).eval()
        wanted[digest] = Scorers(fresh.get_base_model()).score(batch)
        assert np.abs(wanted[digest] - wanted[""]).max() > 0.5
    model = load(folder, precision)
    pool = AdapterPool(model, vocabulary_size(model), files, tolerance=tolerance_of(model))
    scorers = Scorers(model)
    pool.start()
    tables = [p.data_ptr() for n, p in model.named_parameters() if "lora" not in n]
    for turn in np.random.default_rng(1).integers(0, 3, 100):
        digest = list(wanted)[turn]
        pool.use(digest)
        np.testing.assert_allclose(scorers.score(batch, digest), wanted[digest], atol=1e-4, rtol=0)
    assert [p.data_ptr() for n, p in model.named_parameters() if "lora" not in n] == tables
    assert pool.counts.adapter_loads == 2
    mixed = compare_adapters(model, pool, batch, LABELS, list(wanted), 2048)
    for found, values in zip(mixed, wanted.values(), strict=True):
        # int8 scales a product's inputs by what else is in the batch
        np.testing.assert_allclose(found, values[1], atol=0.25, rtol=0)


def test_gradients_under_an_adapter_on_4_bits(folder: Path) -> None:
    digest = read_adapter(str(folder / "b")).digest
    model = load(folder, "nf4")
    pool = AdapterPool(model, vocabulary_size(model), {digest: str(folder / "b")})
    pool.start()
    ask = GradientAsk(
        key="k",
        ids=prompts(1)[0].ids,
        positions=((5,), (6,)),
        method="gradient_x_input",
        steps=1,
        max_steps=1,
        baseline="zero",
        target="log_odds",
        floor=1e-3,
    )
    values = {}
    for adapter in ("", digest):
        pool.use(adapter)
        values[adapter] = GradientRunner(model, 512).run(ask, ((3,), (4,))).values
    fresh = PeftModel.from_pretrained(load(folder, "nf4"), str(folder / "b")).eval()
    alone = GradientRunner(fresh.get_base_model(), 512).run(ask, ((3,), (4,))).values
    np.testing.assert_allclose(values[digest], alone, atol=1e-4)
    assert np.abs(values[""] - alone).max() > 1e-2
