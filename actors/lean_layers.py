"""The layers of Llama and its like, written for one row of nodes in single precision on a CPU.

transformers writes its layers for any device and for gradients: a norm is five passes over the
states, rotary positions six, a residual sum a new tensor. Between products as fast as those of
`actors.prepacked` that is a fifth of the time. Here the same layers run with as few passes: sums in
place, rotary positions as one complex product that writes where attention reads, and in the last
layer nothing but keys and values for nodes that aren't read.

Only products are left to the model's own modules, whatever they are: packed, quantized, or wrapped
by an adapter. Everything else of a layer is taken from its weights, so a family is run only where
its layers are known (`FAMILIES`); the load's self-check compares with the plain forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.lean_attention import attend, keys_and_values
from actors.tree_attention import PieceState

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Pre-norm layers with a gated feed-forward part and rotary positions over whole heads. All are
built alike but for biases, norms of queries and keys, and windows."""

WIDE_ROWS = 1024
"""Nodes that go through a feed-forward part at once: its states are the widest of a layer."""


class LeanLayers:
    """A model's layers from token ids to the states that its output matrix takes.

    Args:
        model: A loaded causal model in evaluation mode.

    Raises:
        ValueError: Its layers aren't known, or its states aren't in single precision on a CPU.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        import torch

        base: Any = model.base_model
        family = type(base).__name__.removesuffix("Model")
        if family not in FAMILIES or not type(base).__module__.startswith("transformers."):
            raise ValueError(f"the layers of {type(model).__name__} are not known")
        if model.device.type != "cpu" or model.dtype != torch.float32:
            raise ValueError(f"states of {model.dtype} on {model.device.type} are not run lean")
        if any(hasattr(module, "_hf_hook") for module in model.modules()):
            raise ValueError("layers that are moved between devices are not run lean")
        self._base = base
        self._norms = {type(base.norm)}
        if family == "Qwen3":
            self._norms.add(type(base.layers[0].self_attn.q_norm))
        self._windowed = family == "Mistral"  # by its configuration, not layer by layer

    def run(
        self, tokens: torch.Tensor, positions: torch.Tensor, state: PieceState, reads: torch.Tensor
    ) -> torch.Tensor:
        """Return the states [R, H] of the nodes that are read.

        Args:
            tokens: Of the nodes [N].
            positions: Of the nodes [N].
            state: The piece.
            reads: Indices of the R nodes that are read, ascending.
        """
        import torch

        base = self._base
        x = base.embed_tokens(tokens)
        cosines, sines = base.rotary_emb(x[None], positions[None])
        # either holds every angle twice, for both halves of a head
        half = cosines.shape[-1] // 2
        turns = torch.complex(cosines[0, :, :half], sines[0, :, :half])
        last = len(base.layers) - 1
        for index, layer in enumerate(base.layers):
            x = self._layer(layer, index, x, turns, state, reads if index == last else None)
        return self._norm(base.norm, x)

    def _layer(
        self,
        layer: Any,
        index: int,
        x: torch.Tensor,
        turns: torch.Tensor,
        state: PieceState,
        reads: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the states [N, H] behind a layer, of the nodes that are read if they are given."""
        attention = layer.self_attn
        size: int = attention.head_dim
        h = self._norm(layer.input_layernorm, x)
        key = attention.k_proj(h).view(len(h), -1, size)
        if "k_norm" in attention._modules:
            key = self._norm(attention.k_norm, key)
        value = attention.v_proj(h).view(len(h), -1, size)
        keys, values = keys_and_values(index, key, value, turns, state)
        if reads is not None:
            x, h, turns = (rows.index_select(0, reads) for rows in (x, h, turns))
            if not len(reads):
                return x
        state.pruned = reads is not None
        query = attention.q_proj(h).view(len(h), -1, size)
        if "q_norm" in attention._modules:
            query = self._norm(attention.q_norm, query)
        turns = turns * attention.scaling
        found = attend(query, keys, values, turns, state, self._window(attention))
        state.pruned = False
        x.add_(attention.o_proj(found))
        h = self._norm(layer.post_attention_layernorm, x)
        for start in range(0, len(x), WIDE_ROWS):
            some = slice(start, start + WIDE_ROWS)
            x[some].add_(feed_forward(layer.mlp, h[some]))
        return x

    def _norm(self, module: Any, x: torch.Tensor) -> torch.Tensor:
        if type(module) not in self._norms:  # wrapped by an adapter
            normed: torch.Tensor = module(x)
            return normed
        return rms_norm(x, module.weight, module.variance_epsilon)

    def _window(self, attention: Any) -> int | None:
        source = attention.config if self._windowed else attention
        return getattr(source, "sliding_window", None)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return x / √(mean x² + ε) · weight (Zhang and Sennrich 2019) in three passes over x."""
    import torch

    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = scale.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return torch.mul(x, scale).mul_(weight)


def feed_forward(module: Any, h: torch.Tensor) -> torch.Tensor:
    """Return a gated feed-forward part's output."""
    from torch.nn import functional

    gate = module.gate_proj(h)
    silu = module.config.hidden_act in ("silu", "swish")
    gate = functional.silu(gate, inplace=True) if silu else module.act_fn(gate)
    out: torch.Tensor = module.down_proj(gate.mul_(module.up_proj(h)))
    return out
