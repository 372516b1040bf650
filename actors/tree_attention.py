"""Attention of a piece of a trie, in the place of a model's own.

transformers lets a model's attention be replaced by name. While a piece runs, every layer hands its
queries, keys and values [1, heads, nodes, width] to `attend`, which knows from the piece what each
query may see. No cache of transformers is involved: what later pieces need of this one's keys and
values is the root path of their first node, and `attend` keeps just that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.transfer import on_device
from engine.packing import Piece

if TYPE_CHECKING:
    import torch

NAME = "rayxai_tree"
"""What transformers knows this attention by."""

Layer = tuple["torch.Tensor", "torch.Tensor"]
"""Keys and values of one layer, each [heads, keys, width]."""


DEEP = 128
"""From so many keys on the longest carried path of a piece's blocks on, each call of attention gets
blocks of about equal depth. Below, a call costs more than the padding that it saves."""

PART_KEYS = 1 << 15
"""Most keys that a call of attention copies for its blocks, one block's at least."""


class CapturedError(Exception):
    """Ends a layer's forward pass when its keys and values are there and nothing else is wanted."""


class Part(NamedTuple):
    """Neighbouring blocks whose attention is one call.

    Attributes:
        number: Of the part.
        blocks: Which blocks, b of them.
        keys: Local numbers of their keys [b, K].
        key_nodes: As of the piece [b, 1, K].
        key_ends: As of the piece [b, 1, K].
        key_positions: As of the piece [b, 1, K].
    """

    number: int
    blocks: slice
    keys: torch.Tensor
    key_nodes: torch.Tensor
    key_ends: torch.Tensor
    key_positions: torch.Tensor

    def take(self, states: torch.Tensor, skip: int = 0) -> torch.Tensor:
        """Return keys or values [heads, carried + nodes, width] by block [heads, b, K, width].

        Args:
            states: What to take them from.
            skip: So many of a block's keys are left out, from the shared prefix's first on.
        """
        keys = self.keys[:, skip:]
        return states.index_select(1, keys.flatten()).view(len(states), *keys.shape, -1)


class _Queries(NamedTuple):
    """Query nodes in the places of B blocks, and how rows of states become places and back.

    Attributes:
        nodes: [B, Q, 1].
        positions: [B, Q, 1].
        gather: The row of each place [B·Q], or None where rows stand as the places do.
        scatter: The place of each row, or None where they stand alike.
        masks: Additive masks made so far, by part, window and number of heads folded into a block.
    """

    nodes: torch.Tensor
    positions: torch.Tensor
    gather: torch.Tensor | None
    scatter: torch.Tensor | None
    masks: dict[tuple[int, int | None, int], torch.Tensor]


class PieceState:
    """A piece on its way through the layers.

    Args:
        piece: What runs.
        carried: Keys and values of the shared prefix and the carried path, by layer; empty before
            the first piece of a trie without a prefix.
        reads: Indices of the nodes in the piece that are read, ascending.
        device: Of the model.
        dtype: Of its states.
        prefix: Length of the shared prefix.

    Attributes:
        n_nodes: Of the piece. Rows of states behind them are padding, which nothing sees.
        n_blocks: B.
        deep: Whether a block's own root path is `DEEP`.
        parts: All blocks, in order.
        kept: Keys and values that the next piece is given, by layer.
        capturing: Whether the layer that runs is wanted for its keys and values only.
        pruned: Whether the layer that runs is given the nodes that are read only.
    """

    def __init__(
        self,
        piece: Piece,
        carried: dict[int, Layer],
        reads: npt.NDArray[np.int64],
        device: torch.device,
        dtype: torch.dtype,
        prefix: int = 0,
    ) -> None:
        on_it = partial(on_device, device=device)

        self._carried = carried
        self._dtype = dtype
        self.prefix = prefix
        self._captured: dict[int, Layer] = {}
        self.kept: dict[int, Layer] = {}
        self.capturing = False
        self.pruned = False
        self.n_nodes = piece.stop - piece.start
        self.n_blocks = len(piece.queries)
        self._carry = on_it(piece.carry)
        self.deep = int(piece.depths.max()) >= DEEP
        self.parts = [
            Part(
                number,
                blocks,
                on_it(piece.keys[blocks][:, seen]),
                on_it(piece.key_nodes[blocks][:, None, seen]),
                on_it(piece.key_ends[blocks][:, None, seen]),
                on_it(piece.key_positions[blocks][:, None, seen]),
            )
            for number, (blocks, seen) in enumerate(_parts(piece, prefix, self.deep))
        ]
        n_rows, n_places = piece.stop - piece.start, piece.queries.size
        places = np.minimum(np.arange(n_places), n_rows - 1)
        self._all = _Queries(
            on_it(piece.queries)[:, :, None],
            on_it(piece.query_positions)[:, :, None],
            on_it(places) if n_places != n_rows else None,
            None,
            {},
        )
        rows, nodes, positions, scatter = _places_of_reads(piece, reads)
        self._read = _Queries(
            on_it(nodes)[:, :, None],
            on_it(positions)[:, :, None],
            on_it(rows.ravel()),
            on_it(scatter),
            {},
        )

    @property
    def _queries(self) -> _Queries:
        return self._read if self.pruned else self._all

    @property
    def n_places(self) -> int:
        """Places of queries in all blocks, B·Q, in the layer that runs."""
        return self._queries.nodes.numel()

    @property
    def gather(self) -> torch.Tensor | None:
        """The row of each place [B·Q], or None where rows stand as the places do."""
        return self._queries.gather

    def mask(self, part: Part, window: int | None, fold: int) -> torch.Tensor:
        """Return the additive mask [1, b, Q · fold, K] of a part in the layer that runs.

        Args:
            part: Of this piece.
            window: Keys this many positions back or further are not seen; None for no window.
            fold: Heads that are rows of one block.
        """
        import torch

        queries = self._queries
        key = (part.number, window, fold)
        if key not in queries.masks:
            nodes = queries.nodes[part.blocks]
            seen = (part.key_nodes <= nodes) & (nodes < part.key_ends)
            if window is not None:
                seen &= queries.positions[part.blocks] - part.key_positions < window
            mask = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
            mask.masked_fill_(~seen, torch.finfo(self._dtype).min)
            queries.masks[key] = mask.repeat_interleave(fold, dim=1)[None]
        return queries.masks[key]

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> Layer:
        """Return keys and values of all that is seen; keep those of later pieces.

        Args:
            layer: Index of the layer.
            key: [heads, nodes, width]; of the read nodes only, and not looked at, where the layer
                is pruned.
            value: As `key`.

        Returns:
            Of the carried nodes and the piece's own [heads, carried + nodes, width].
        """
        import torch

        if self.pruned:
            return self._captured.pop(layer)
        before = self.carried(layer)
        if before:
            key = torch.cat([before[0], key], dim=1)
            value = torch.cat([before[1], value], dim=1)
        self.carry(layer, key, value)
        if self.capturing:
            self._captured[layer] = key, value
            raise CapturedError
        return key, value

    def carried(self, layer: int) -> Layer | None:
        """Return a layer's keys and values of the shared prefix and the carried path, if any."""
        return self._carried.get(layer)

    def carry(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep what later pieces need of a layer's keys and values.

        Args:
            layer: Index of the layer.
            key: Of the carried nodes and the piece's own [heads, carried + nodes, width].
            value: As `key`; may differ in width.
        """
        if len(self._carry):
            self.kept[layer] = (
                key.index_select(1, self._carry),
                value.index_select(1, self._carry),
            )

    def blocks_of(self, query: torch.Tensor) -> torch.Tensor:
        """Return queries [heads, rows, width] by block [heads, B, Q, width]."""
        if self._queries.gather is not None:
            query = query.index_select(1, self._queries.gather)
        return query.view(query.shape[0], self.n_blocks, -1, query.shape[2])

    def rows_of(self, result: torch.Tensor, n_rows: int) -> torch.Tensor:
        """Return results [heads, B, Q, width] as rows [rows, heads, width]."""
        flat = result.flatten(1, 2)
        if self._queries.scatter is not None:
            flat = flat.index_select(1, self._queries.scatter)
        return flat[:, :n_rows].transpose(0, 1)


def _parts(piece: Piece, prefix: int, deep: bool) -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
    """Yield runs of blocks, and the columns of the keys that one of them sees."""
    n_blocks, n_keys = piece.keys.shape
    own = np.arange(n_keys - piece.queries.shape[1], n_keys)
    start = deepest = taken = 0
    for number, depth in enumerate(piece.depths.tolist()):
        most, count = max(deepest, depth), number + 1 - start
        full = count * (most + prefix + len(own)) > PART_KEYS
        # a quarter more than all see is let pass: a call has its price, too
        uneven = deep and count * most > 1.25 * (taken + depth)
        if number > start and (full or uneven):
            yield slice(start, number), np.concatenate([np.arange(prefix + deepest), own])
            start, most, taken = number, depth, 0
        deepest, taken = most, taken + depth
    yield slice(start, n_blocks), np.concatenate([np.arange(prefix + deepest), own])


def _places_of_reads(piece: Piece, reads: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
    """Return the read, node and position of each place [B, Q] and the place of each read.

    Every node that is read stands in its own block; free places repeat the block's first node.
    """
    width = piece.queries.shape[1]
    block = reads // width
    rank = np.arange(len(reads)) - np.searchsorted(block, block)
    most = int(rank.max()) + 1 if len(reads) else 1
    rows = np.zeros((len(piece.queries), most), dtype=np.int64)
    rows[block, rank] = np.arange(len(reads))
    nodes = np.repeat(piece.queries[:, :1], most, axis=1)
    nodes[block, rank] = piece.queries.ravel()[reads]
    positions = np.repeat(piece.query_positions[:, :1], most, axis=1)
    positions[block, rank] = piece.query_positions.ravel()[reads]
    return rows, nodes, positions, block * most + rank


_RUNNING = threading.local()


@contextmanager
def running(state: PieceState) -> Iterator[None]:
    """Attend by `state` in the calling thread."""
    _RUNNING.state = state
    try:
        yield
    finally:
        _RUNNING.state = None


def current() -> PieceState | None:
    """Return the piece that runs in the calling thread, if one does."""
    return getattr(_RUNNING, "state", None)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers asks it of an attention function.

    Args:
        module: The attention layer, with its `layer_idx`.
        query: [1, heads, rows, width].
        key: [1, key heads, rows, width].
        value: As `key`.
        attention_mask: Not looked at: the piece says what is seen.
        scaling: Of the products; 1/√width if None.
        sliding_window: Positions further back are not seen.
        softcap: Bound c of the products: c·tanh(product / c).

    Returns:
        [1, rows, heads, width], and None for the weights.
    """
    import torch
    from torch.nn import functional

    state = current()
    if state is None:
        raise RuntimeError("tree attention was called outside a piece")
    n_rows = query.shape[2]
    padding = 0 if state.pruned else n_rows - state.n_nodes
    if padding:
        query, key, value = (states[:, :, : state.n_nodes] for states in (query, key, value))
    keys, values = state.keep(module.layer_idx, key[0], value[0])
    by_block = state.blocks_of(query[0])
    n_keys, (n_heads, n_blocks, width, size) = keys.shape[0], by_block.shape
    fold = n_heads // n_keys
    # the queries of all heads that share keys are rows of one product
    folded = by_block.view(n_keys, fold, n_blocks, width, size).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(n_keys, n_blocks, width * fold, size)
    found = []
    for part in state.parts:
        some, own_keys, own_values = folded[:, part.blocks], part.take(keys), part.take(values)
        mask = state.mask(part, sliding_window, fold)
        if softcap is None:
            out = functional.scaled_dot_product_attention(
                some, own_keys, own_values, attn_mask=mask, scale=scaling
            )
        else:
            scale = size**-0.5 if scaling is None else scaling
            scores = some @ own_keys.transpose(2, 3) * scale
            scores = torch.tanh(scores / softcap) * softcap + mask
            out = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ own_values
        found.append(out)
    out = found[0] if len(found) == 1 else torch.cat(found, dim=1)
    out = out.view(n_keys, n_blocks, width, fold, -1).permute(0, 3, 1, 2, 4)
    out = out.reshape(n_heads, n_blocks, width, -1)
    rows = state.rows_of(out, n_rows - padding)
    if padding:
        rows = functional.pad(rows, (0, 0, 0, 0, 0, padding))
    return rows[None], None


def register() -> None:
    """Make this attention known to transformers by `NAME`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
