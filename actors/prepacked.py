"""Weights laid out once for the CPU's matrix products, instead of at every product.

oneDNN multiplies single-precision matrices faster when a weight is in its own blocked layout. The
stock `Linear` hands it over row by row each time. The measured gain stands in docs/models.md.

Gradients by a layer's input go through packed weights too: on the way back a layer lays its weight
out row by row again, for one product, so that no second copy of the model is kept. The layout is a
permutation, so the weight is the stock one to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    operators = torch.ops.mkldnn
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    if not torch.backends.mkldnn.is_available() or not all(  # type: ignore[no-untyped-call]
        hasattr(operators, name) for name in needed
    ):
        return None

    def product(x: torch.Tensor, packed: torch.Tensor, offset: torch.Tensor | None) -> Any:
        return operators._linear_pointwise(x, packed, offset, "none", [], "")

    class Differentiable(torch.autograd.Function):
        """The product with its derivative by `x`; oneDNN's operator has none."""

        @staticmethod
        def forward(ctx: Any, x: Any, packed: Any, offset: Any) -> Any:
            ctx.packed = packed
            return product(x, packed, offset)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> tuple[Any, None, None]:
            return outer[0] @ ctx.packed.to_dense(), None, None

    class PrepackedLinear(nn.Module):
        """A linear layer whose weight is in oneDNN's layout."""

        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.packed = operators._reorder_linear_weight(layer.weight.detach(), ROWS)
            self.offset = layer.bias
            self.out_features = layer.out_features

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            apply = Differentiable.apply if x.requires_grad else product
            y: torch.Tensor = apply(x, self.packed, self.offset)
            return y

    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    replaced: list[tuple[nn.Module, str, nn.Linear]] = []
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            # exactly Linear: quantized layers and adapters derive from it
            if type(layer) is not nn.Linear or users[id(layer.weight)] > 1:
                continue
            if layer in unpacked:
                continue
            if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32:
                continue
            replaced.append((parent, name, layer))
            setattr(parent, name, PrepackedLinear(layer))
    if not replaced:
        return None

    def undo() -> None:
        for parent, name, layer in replaced:
            setattr(parent, name, layer)

    return undo
