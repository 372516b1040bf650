"""Attention of `actors.lean_layers`: blocks of a piece, and the prefix that all of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.prepacked import multiply
from actors.tree_attention import PieceState

if TYPE_CHECKING:
    import torch

SHORT = 128
"""Most keys of a block whose products are kept whole. With more, attention that runs through them
in parts is as fast, and takes less memory."""

SHARED = 24
"""From so many tokens on, a prefix that all blocks see is one matrix for all of them instead of a
part of the keys of each."""


def keys_and_values(
    index: int, key: torch.Tensor, value: torch.Tensor, turns: torch.Tensor, state: PieceState
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's keys and values behind the carried ones [key heads, carried + N, width].

    Args:
        index: Of the layer.
        key: Of the piece's nodes, without positions [N, key heads, width].
        value: As `key`.
        turns: Rotary factors of the nodes [N, width / 2].
        state: The piece.
    """
    before = state.carried(index)
    n_before = before[0].shape[1] if before else 0
    shape = (key.shape[1], n_before + len(key), key.shape[2])
    keys, values = key.new_empty(shape), value.new_empty(shape)
    if before:
        keys[:, :n_before], values[:, :n_before] = before
    turn_into(key, turns, keys[:, n_before:].transpose(0, 1))
    values[:, n_before:] = value.transpose(0, 1)
    state.carry(index, keys, values)
    return keys, values


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    turns: torch.Tensor,
    state: PieceState,
    window: int | None,
) -> torch.Tensor:
    """Return what attention gives [R, heads · width].

    Args:
        query: Of the rows [R, heads, width], without positions.
        keys: Of the carried nodes and the piece's own [key heads, carried + N, width].
        values: As `keys`.
        turns: Rotary factors of the rows [R, width / 2], times the scaling of products.
        state: The piece; says what is seen.
        window: Positions further back are not seen.
    """
    import torch

    n_rows, n_keys, size = len(query), len(keys), keys.shape[2]
    fold = query.shape[1] // n_keys
    if state.pruned and state.gather is not None:
        query, turns = query[state.gather], turns[state.gather]
    # all queries that share keys are rows of one product, the heads of a node side by side
    n_queries = len(query)
    folded = query.new_empty((n_keys, state.n_places, fold, size))
    folded[:, n_queries:] = 0.0  # places of the last block without a node
    grouped = query.view(n_queries, n_keys, fold, size)
    turn_into(grouped, turns, folded[:, :n_queries].transpose(0, 1))
    # a window moves over the prefix, each block's its own way
    behind_one = window is None and state.prefix >= SHARED and not state.deep
    shared = state.prefix if behind_one else 0
    blocks = folded.view(n_keys, state.n_blocks, -1, size)
    found = []
    for part in state.parts:
        some = blocks[:, part.blocks]
        mask = state.mask(part, window, fold)[..., shared:]
        own_keys, own_values = part.take(keys, shared), part.take(values, shared)
        if shared:
            prefixes = keys[:, :shared], values[:, :shared]
            found.append(_behind_prefix(some, own_keys, own_values, mask[0], *prefixes))
        else:
            found.append(_blockwise(some, own_keys, own_values, mask))
    out = found[0] if len(found) == 1 else torch.cat(found, dim=1)
    by_block = out.view(n_keys, state.n_blocks, state.n_places // state.n_blocks, -1)
    return state.rows_of(by_block, n_rows).flatten(1)


def _blockwise(
    blocks: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return what blocks [key heads, B, Q, width] get of keys and values [key heads, B, K, width].

    Args:
        blocks: Queries.
        keys: Of each block.
        values: As `keys`.
        mask: Additive [1, B, Q, K].
    """
    import torch
    from torch.nn import functional

    if keys.shape[2] > SHORT:
        return functional.scaled_dot_product_attention(
            blocks, keys, values, attn_mask=mask, scale=1.0
        )
    scores = torch.bmm(blocks.flatten(0, 1), keys.flatten(0, 1).mT)
    scores.view(*blocks.shape[:3], -1).add_(mask)
    out = torch.bmm(scores.softmax(dim=-1), values.flatten(0, 1))
    return out.view(*blocks.shape[:3], -1)


def _behind_prefix(
    blocks: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    prefix_keys: torch.Tensor,
    prefix_values: torch.Tensor,
) -> torch.Tensor:
    """Return the same where all queries see further keys and values [key heads, P, width].

    Their products are two matrices, P wide, instead of two a block. Scores of both kinds stand in
    one row each for the softmax; one group of heads at a time, which bounds what they take.
    """
    import torch

    n_groups, n_blocks, n_queries, size = blocks.shape
    length = prefix_keys.shape[1]
    out = values.new_empty((n_groups, n_blocks, n_queries, values.shape[3]))
    scores = blocks.new_empty((n_blocks, n_queries, length + keys.shape[2]))
    for group in range(n_groups):
        rows = blocks[group].view(-1, size)
        scores[..., :length] = multiply(rows, prefix_keys[group]).view(n_blocks, n_queries, -1)
        torch.add(torch.bmm(blocks[group], keys[group].mT), mask, out=scores[..., length:])
        shares = scores.softmax(dim=-1)
        front = multiply(shares[..., :length].flatten(0, 1), prefix_values[group].T.contiguous())
        out[group] = torch.baddbmm(
            front.view(n_blocks, n_queries, -1), shares[..., length:], values[group]
        )
    return out


def turn_into(x: torch.Tensor, turns: torch.Tensor, out: torch.Tensor) -> None:
    """Write x with its rotary positions into `out`.

    The two halves of a head are the real and imaginary parts of numbers that are turned. They are
    left side by side: queries and keys are so alike, so that their products are the stock ones.

    Args:
        x: [N, …, width].
        turns: [N, width / 2].
        out: [N, …, width], the width contiguous.
    """
    import torch

    real, imaginary = x.chunk(2, dim=-1)
    spread = turns.view(len(turns), *[1] * (x.dim() - 2), turns.shape[1])
    torch.mul(
        torch.complex(real, imaginary),
        spread,
        out=torch.view_as_complex(out.view(*x.shape[:-1], -1, 2)),
    )
