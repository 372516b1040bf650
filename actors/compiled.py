"""The parts of a model's layers that treat each node alone, compiled for a few fixed sizes.

A trie's pieces have any number of nodes, and a compiled function is made anew for each shape it
meets. So pieces are padded to the next of a few sizes, which on a GPU are CUDA graphs too: the many
small kernels of norms and feed-forward parts are then started as one. Attention, whose shapes
follow the trie's branches, and the last layer, which runs for the nodes that are read only, stay as
they are.

Its speed was measured on no device. The layers of `actors.lean_layers` are not run beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.pruning import decoder_layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

SMALLEST = 256
"""Nodes of the smallest size; what is shorter is padded to it."""


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Return the sizes that pieces of at most so many nodes are padded to, ascending.

    Each is twice the one before, so that less than half of what runs is padding, but for the
    smallest; and each has to be compiled.

    Args:
        most: Nodes, at least one; the last of the sizes.
    """
    sizes = []
    size = SMALLEST
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)


def padded_to(nodes: int, sizes: tuple[int, ...]) -> int:
    """Return the size of `sizes`, ascending, that a piece is padded to; its own beyond them."""
    return next((size for size in sizes if size >= nodes), nodes)


def compile_layers(model: PreTrainedModel) -> Callable[[], None]:
    """Compile what treats each node alone in all layers but the last, in place.

    Compiling itself happens when a size first runs.

    Args:
        model: A causal model in evaluation mode.

    Returns:
        A function that puts the layers back.

    Raises:
        ValueError: The model has no list of layers, or they have no such parts.
    """
    parts = [
        part for layer in decoder_layers(model)[:-1] for part in layer.children() if _is_alone(part)
    ]
    if not parts:
        raise ValueError(f"the layers of {type(model).__name__} have no parts to be compiled")
    mode = "reduce-overhead" if model.device.type == "cuda" else None
    for part in parts:
        part.compile(dynamic=False, mode=mode)

    def undo() -> None:
        for part in parts:
            part._compiled_call_impl = None

    return undo


def begin_pass(model: PreTrainedModel) -> None:
    """Say that the results of earlier passes may be overwritten, as CUDA graphs do."""
    import torch

    if model.device.type == "cuda":
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def _is_alone(part: nn.Module) -> bool:
    """Return whether a part of a layer treats each node alone: all but its attention."""
    inside = [type(module).__name__.lower() for module in part.modules()]
    return any(True for _ in part.parameters()) and not any("attention" in name for name in inside)
