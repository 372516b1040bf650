"""Quantized layers where bitsandbytes or transformers lack something.

Families whose layers are not found, inputs of some layouts; of the CPU's own 4-bit kernel some
shapes, a state, a derivative.

On CPUs with AVX512-BF16 bitsandbytes lays a layer's weights out anew at its first pass without
gradients, and multiplies by a kernel that autograd takes for a constant: gradients of 0, and no
error. The scorer has always made such a pass before gradients are asked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch


_ROWS = 32
"""Rows of a weight that the kernel's layout takes at a time."""

_BY_WEIGHT = {"mamba": ["dt_proj", "lm_head"]}
"""Model type -> layers that stay as they are: the family multiplies by their weights itself. Naming
any takes the place of what transformers leaves alone, which is the output matrix."""


def unquantized(config: Any) -> list[str] | None:
    """Return the layers that a family can't have quantized; None where transformers knows them."""
    return _BY_WEIGHT.get(config.model_type)


@contextmanager
def exact_linears(config: Any) -> Iterator[None]:
    """Let a family make its layers such that transformers finds them to be quantized.

    It takes layers whose type is `Linear` itself. Falcon's is derived from it, to round before the
    bias is added in 16 bits; all of the model would stay as it is, and without an error.

    Args:
        config: Of the model that is made within the context.
    """
    if config.model_type != "falcon":
        yield
        return
    from torch import nn
    from transformers.models.falcon import modeling_falcon

    made: Any = modeling_falcon
    own = made.FalconLinear
    made.FalconLinear = nn.Linear
    try:
        yield
    finally:
        made.FalconLinear = own


def count_quantized(model: Any) -> int:
    """Return the number of layers that bitsandbytes quantizes."""
    return sum(1 for module in model.modules() if _is_quantized(module))


def _is_quantized(module: Any) -> bool:
    return type(module).__module__.startswith("bitsandbytes")


def take_any_input(model: Any) -> None:
    """Let quantized layers take inputs of any dimensions and memory layout, in place.

    The CPU's 4-bit kernel reads each row as if its numbers lay side by side: of an input that is
    transposed (Falcon-Mamba's, RecurrentGemma's) it multiplies others, without an error. 8-bit
    layers fail at inputs of four dimensions (DeepSeek-V3's).
    """

    def taking(kernel: Any) -> Any:
        def forward(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = kernel(x.reshape(-1, x.shape[-1]).contiguous())
            return y.reshape(*x.shape[:-1], y.shape[-1])

        return forward

    for module in model.modules():
        if _is_quantized(module):
            module.forward = taking(module.forward)


def make_packable(model: Any) -> int:
    """Keep 4-bit layers from the CPU's own layout whose shape it doesn't take, in place.

    It asks for a multiple of 32 outputs and for inputs that are whole blocks of one scale, and an
    assertion fails at the first pass where they aren't. Without it a layer's weight is dequantized
    for every product.

    Returns:
        The number of layers kept from it.
    """
    kept = 0
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is None or not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        rows, columns = state.shape
        if rows % _ROWS or columns % state.blocksize:
            module.support_avx512bf16_for_cpu = False
            kept += 1
    return kept


def keep_packed(model: Any) -> None:
    """Let packed 4-bit layers stay as they are when they are asked for their state, in place.

    bitsandbytes then lays the weights back for good: it quantizes nested scales anew, so that a
    model differs a little after every `state_dict()`, and leaves plain scales transposed, so that
    it is another model. Whoever saves an adapter or a checkpoint of a training asks for it.
    """

    def keeping(layer: Any, save: Any) -> Any:
        def saved(*args: Any, **kwargs: Any) -> None:
            data, state = layer.weight.data, copy.copy(layer.weight.quant_state)
            try:
                save(*args, **kwargs)
            finally:
                layer.weight.data, layer.weight.quant_state = data, state

        return saved

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module._save_to_state_dict = keeping(module, module._save_to_state_dict)


def make_differentiable(model: Any) -> int:
    """Give the packed 4-bit layers of a model a derivative by their inputs, in place.

    A layer's values stay those of its kernel; on the way back its weight is dequantized for one
    product.

    Returns:
        The number of 4-bit layers found.
    """
    if not count_quantized(model):
        return 0
    import torch
    from bitsandbytes import functional
    from bitsandbytes.nn.modules import Linear4bit

    class Product(torch.autograd.Function):
        """The kernel's product with its derivative by `x`."""

        @staticmethod
        def forward(ctx: Any, x: Any, layer: Any, kernel: Any) -> Any:
            ctx.layer = layer
            return kernel(x)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> tuple[Any, None, None]:
            weight = _dense(ctx.layer.weight, functional).to(outer[0].dtype)
            return outer[0] @ weight, None, None

    apply: Any = Product.apply

    def differentiable(layer: Any, kernel: Any) -> Any:
        def forward(x: torch.Tensor) -> torch.Tensor:
            packed = getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
            if packed and x.requires_grad:
                return cast("torch.Tensor", apply(x, layer, kernel))
            y: torch.Tensor = kernel(x)
            return y

        return forward

    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear4bit)]
    for layer in layers:
        if not hasattr(layer, "stock_forward"):  # once: every adapter's gradients come by here
            layer.stock_forward = layer.forward
            layer.forward = differentiable(layer, layer.forward)
    return len(layers)


def _dense(weight: Any, functional: Any) -> Any:
    """Return the matrix [N, K] that a packed layer multiplies by; its own state is not touched."""
    packed = weight.quant_state
    state = copy.copy(packed)
    # the library's way back quantizes nested scales a second time and leaves plain ones transposed,
    # so the scales are put right here: they are packed as [K / blocksize, N], plain and halved
    state.original_nested = False
    data, state = functional._convert_weight_packed_for_cpu_inverse(weight.data, state)
    state.absmax = packed.absmax.T.reshape(-1).float()
    return functional.dequantize_4bit(data, state)
