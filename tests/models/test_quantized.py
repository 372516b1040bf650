"""4-bit layers of the CPU's own kernel: their derivative is that of their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from torch import nn

from actors.quantized import keep_packed, make_differentiable

pytestmark = pytest.mark.models


def layer(nested: bool, rows: int, columns: int) -> tuple[Any, torch.Tensor]:
    """A 4-bit layer [N, K] and the matrix it stands for."""
    torch.manual_seed(0)
    made = Linear4bit(
        columns,
        rows,
        bias=True,
        compute_dtype=torch.float32,
        compress_statistics=nested,
        quant_type="nf4",
    )
    made = made.to("cpu").eval().requires_grad_(False)
    if made.weight.quant_state is None:
        made.weight = made.weight._quantize("cpu")
    return made, functional.dequantize_4bit(made.weight.data, made.weight.quant_state).clone()


@pytest.mark.parametrize("scored_before", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (128, 64), (96, 192)])
def test_the_way_back_multiplies_by_the_dequantized_weight(
    rows: int, columns: int, nested: bool, scored_before: bool
) -> None:
    made, dense = layer(nested, rows, columns)
    x = torch.randn(2, 5, columns)
    if scored_before:
        with torch.no_grad():
            made(x)
    assert make_differentiable(nn.Sequential(made)) == 1
    point = x.clone().requires_grad_()
    outer = torch.randn(2, 5, rows)
    y = made(point)
    (gradient,) = torch.autograd.grad((y * outer).sum(), point)
    torch.testing.assert_close(gradient, outer @ dense.float(), atol=0.05, rtol=0.02)
    torch.testing.assert_close(y, x @ dense.float().T + made.bias, atol=0.05, rtol=0.02)
    with torch.no_grad():  # unchanged, and still in the layout of before
        again = made(x)
    torch.testing.assert_close(again, y.detach(), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("nested", [False, True])
def test_asking_for_the_state_changes_nothing(nested: bool) -> None:
    made, _ = layer(nested, 64, 128)
    model = nn.Sequential(made)
    keep_packed(model)
    x = torch.randn(3, 128)
    with torch.no_grad():
        before = made(x)
        for _ in range(2):
            state = model.state_dict()
            assert torch.equal(made(x), before)
    assert state["0.weight"].numel() == 64 * 128 // 2


def test_other_models_are_left_alone() -> None:
    assert make_differentiable(nn.Sequential(nn.Linear(4, 4))) == 0
