"""Prepacked linear layers: the same scores, and a way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from actors.prepacked import prepack

pytestmark = pytest.mark.models


def llama(tied: bool) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def logits(model: Any, rows: int) -> torch.Tensor:
    ids = torch.arange(rows * 7).reshape(rows, 7) % 300
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_scores_stay_for_any_number_of_rows(rows: int) -> None:
    model = llama(tied=True)
    before = logits(model, rows)
    assert prepack(model) is not None
    torch.testing.assert_close(logits(model, rows), before, atol=1e-5, rtol=1e-5)


def test_undo_puts_the_very_layers_back() -> None:
    model = llama(tied=False)
    layers = {name: m for name, m in model.named_modules() if type(m) is nn.Linear}
    undo = prepack(model)
    assert undo is not None
    assert not any(type(m) is nn.Linear for m in model.modules())
    undo()
    assert {n: m for n, m in model.named_modules() if type(m) is nn.Linear} == layers


def test_a_tied_output_matrix_stays_as_it_is() -> None:
    model = llama(tied=True)
    prepack(model)
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_other_number_formats_are_left_alone() -> None:
    assert prepack(llama(tied=True).to(torch.bfloat16)) is None


def test_layers_derived_from_linear_are_left_alone() -> None:
    class Derived(nn.Linear):
        pass

    assert prepack(nn.Sequential(Derived(4, 4))) is None
