"""Layers of our own: the family's norms, rotary positions and products, wrapped ones included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from actors import lean_attention, lean_layers
from actors.backend import SequenceBatch
from actors.lean_attention import turn_into
from actors.lean_layers import LeanLayers, rms_norm
from actors.packed_forward import PackedForward
from actors.prepacked import prepack
from engine.ragged import Ragged
from tests.models.tiny import LABELS, build, plain, prompts

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]


def scores(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return lean scores and those of plain passes."""
    many = prompts(7)
    batch = SequenceBatch(Ragged.of([row.ids for row in many]), None)
    forward = PackedForward(model, "gathered", 4, 24, 5, "lean")
    return forward.score(batch, LABELS).log_probs, np.array([plain(model, r)[0] for r in many])


def test_the_norm_is_the_familys() -> None:
    torch.manual_seed(0)
    module = LlamaRMSNorm(48, eps=1e-3)
    nn.init.normal_(module.weight)
    for scale in (1e-4, 1.0, 1e4):
        x = scale * torch.randn(5, 3, 48)
        with torch.no_grad():
            found = rms_norm(x, module.weight, module.variance_epsilon)
            torch.testing.assert_close(found, module(x), rtol=1e-5, atol=1e-6)


def test_products_of_turned_queries_and_keys_are_the_stock_ones() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(9, 4, 16), torch.randn(9, 2, 16)
    angles = torch.rand(9, 8) * 6
    cosines, sines = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    stock = apply_rotary_pos_emb(query, key, cosines, sines)
    turns = torch.complex(angles.cos(), angles.sin())
    found = [torch.empty_like(x) for x in (query, key)]
    for x, out in zip((query, key), found, strict=True):
        turn_into(x, turns, out)
    for a in range(4):
        products = [q[:, a] @ k[:, a // 2].T for q, k in (stock, found)]
        torch.testing.assert_close(*products, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3 with windows", "mistral"])
@pytest.mark.parametrize("packed", [False, True])
def test_biases_and_norms_of_any_value_are_the_familys(family: str, packed: bool) -> None:
    model = build(family)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(0.5, 0.5)
    if packed:
        assert prepack(model) is not None
    np.testing.assert_allclose(*scores(model), atol=1e-5)


def test_long_blocks_attend_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("mistral")
    short, expected = scores(model)
    monkeypatch.setattr(lean_attention, "SHORT", 0)
    long, _ = scores(model)
    assert not np.array_equal(short, long)
    np.testing.assert_allclose(long, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3 with windows"])
def test_a_prefix_of_all_blocks_is_attended_alike(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In layers without a window; the others see some of it."""
    model = build(family)
    within, expected = scores(model)
    monkeypatch.setattr(lean_attention, "SHARED", 1)
    shared, _ = scores(model)
    assert np.array_equal(within, shared) == (family == "mistral")
    np.testing.assert_allclose(shared, expected, atol=1e-5)


def test_another_activation_is_the_familys() -> None:
    model = build("llama")
    for layer in model.model.layers:
        layer.mlp.act_fn = nn.GELU()
        layer.mlp.config.hidden_act = "gelu"
    np.testing.assert_allclose(*scores(model), atol=1e-5)


def test_products_and_norms_that_an_adapter_wraps_are_the_adapters() -> None:
    peft = pytest.importorskip("peft")
    model = build("qwen3")
    before = scores(model)[0]
    targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "input_layernorm"]
    config = peft.LoraConfig(r=2, target_modules=targets[:-1], modules_to_save=targets[-1:])
    peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data.normal_(0.2, 0.1)
    model.eval()
    found, expected = scores(model)
    assert np.abs(found - before).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_models_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValueError, match="layers of Gemma"):
        LeanLayers(build("gemma"))
    with pytest.raises(ValueError, match="bfloat16"):
        LeanLayers(build("llama").to(torch.bfloat16))
    with pytest.raises(ValueError, match="kept"):
        PackedForward(build("llama"), "kept", route="lean")
    moved = build("llama")
    moved._hf_hook = object()
    with pytest.raises(ValueError, match="between devices"):
        LeanLayers(moved)


def test_feed_forward_parts_of_a_piece_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    sizes: list[int] = []
    one = lean_layers.feed_forward

    def watched(module: Any, states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return one(module, states)

    monkeypatch.setattr(lean_layers, "feed_forward", watched)
    monkeypatch.setattr(lean_layers, "WIDE_ROWS", 7)
    found, expected = scores(model)
    assert max(sizes) == 7
    np.testing.assert_allclose(found, expected, atol=1e-5)
