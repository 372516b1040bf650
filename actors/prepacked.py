"""Weights laid out once for the CPU's matrix products, instead of at every product.

oneDNN multiplies single-precision matrices faster when a weight is in its own blocked layout. The
stock `Linear` hands it over row by row each time. The measured gain stands in docs/models.md.

Gradients by a layer's input go through packed weights too: on the way back a layer lays its weight
out row by row again, for one product, so that no second copy of the model is kept. The layout is a
permutation, so the weight is the stock one to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import nn

ROWS = 512
"""Rows of a typical product, a hint for the layout; any number of rows may follow."""


def prepack(model: nn.Module, unpacked: Collection[nn.Module] = ()) -> Callable[[], None] | None:
    """Put the linear layers of a single-precision CPU model into oneDNN's layout, in place.

    Layers that share their weight with another module (tied output matrices) stay as they are. The
    packed layers can be differentiated by their inputs, not by their weights.

    Args:
        model: The model.
        unpacked: Layers that stay as they are: others read their weights.

    Returns:
        A function that puts the stock layers back, or None where nothing could be packed (another
        device or number format, a build without oneDNN).
    """
    import torch
    from torch import nn

    if not _has_onednn():
        return None

    class Differentiable(torch.autograd.Function):
        """The product with its derivative by `x`; oneDNN's operator has none."""

        @staticmethod
        def forward(ctx: Any, x: Any, packed: Any, offset: Any) -> Any:
            ctx.packed = packed
            return _product(x, packed, offset)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> tuple[Any, None, None]:
            return outer[0] @ ctx.packed.to_dense(), None, None

    class PrepackedLinear(nn.Module):
        """A linear layer whose weight is in oneDNN's layout."""

        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
            self.offset = layer.bias
            self.out_features = layer.out_features

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            apply = Differentiable.apply if x.requires_grad else _product
            y: torch.Tensor = apply(x, self.packed, self.offset)
            return y

    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    replaced: list[tuple[nn.Module, str, nn.Linear]] = []
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not _is_plain(layer) or users[id(layer.weight)] > 1 or layer in unpacked:
                continue
            replaced.append((parent, name, layer))
            setattr(parent, name, PrepackedLinear(layer))
    if not replaced:
        return None

    def undo() -> None:
        for parent, name, layer in replaced:
            setattr(parent, name, layer)

    return undo


def multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x [N, H] · weightᵀ [H, M] in single precision on a CPU, by oneDNN if there is."""
    y: torch.Tensor = _product(x, weight, None) if _has_onednn() else x @ weight.T
    return y


def product_of(layer: Any) -> Callable[[torch.Tensor, int, int], torch.Tensor] | None:
    """Return oneDNN's product with some of a linear layer's outputs, its weight left as it lies.

    Returns:
        (x [N, H], start, stop) -> outputs [N, start:stop], without a derivative; None where the
        layer isn't a single-precision `Linear` on a CPU, or torch is built without oneDNN.
    """
    if not _has_onednn() or not _is_plain(layer):
        return None

    def some(x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        offset = None if layer.bias is None else layer.bias[start:stop]
        y: torch.Tensor = _product(x, layer.weight[start:stop], offset)
        return y

    return some


def _is_plain(layer: Any) -> TypeGuard[nn.Linear]:
    """Return whether a layer is a `Linear` in single precision on a CPU."""
    import torch
    from torch import nn

    # exactly Linear: quantized layers and adapters derive from it
    if type(layer) is not nn.Linear:
        return False
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32


@cache
def _has_onednn() -> bool:
    """Return whether torch is built with what is used here."""
    import torch

    needed = ("_linear_pointwise", "_reorder_linear_weight")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and all(hasattr(torch.ops.mkldnn, name) for name in needed)


def _product(x: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor | None) -> Any:
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, offset, "none", [], "")
