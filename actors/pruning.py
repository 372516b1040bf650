"""A last layer that computes everything but keys and values for the nodes that are read only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.tree_attention import CapturedError, PieceState

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> Any:
    """Return the list of a model's layers.

    Raises:
        ValueError: The model has no list of as many layers as its configuration says.
    """
    from torch import nn

    wanted = int(model.config.num_hidden_layers)
    for module in model.base_model.children():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return module
    raise ValueError(f"{type(model).__name__} has no list of its {wanted} layers")


@contextmanager
def pruned(layer: Any, state: PieceState, reads: torch.Tensor) -> Iterator[None]:
    """Let a layer compute keys and values of all nodes, and everything else of the read ones."""
    original: Callable[..., Any] = layer.forward

    def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        n_nodes = hidden_states.shape[1]
        state.capturing = True
        try:
            original(hidden_states, *args, **kwargs)
        except CapturedError:
            pass
        finally:
            state.capturing = False
        if not len(reads):
            return hidden_states[:, :0]
        state.pruned = True
        try:
            rows = [_rows(value, reads, n_nodes) for value in args]
            named = {name: _rows(value, reads, n_nodes) for name, value in kwargs.items()}
            return original(hidden_states.index_select(1, reads), *rows, **named)
        finally:
            state.pruned = False

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _rows(value: Any, reads: torch.Tensor, n_nodes: int) -> Any:
    """Return the read rows of what has a row a node: position ids, cosines and sines."""
    import torch

    if isinstance(value, tuple):
        return tuple(_rows(item, reads, n_nodes) for item in value)
    if torch.is_tensor(value) and value.dim() >= 2 and value.shape[1] == n_nodes:
        return value.index_select(1, reads)
    return value
