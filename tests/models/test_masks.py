"""One rule of what a node sees, three ways: block masks, whole masks, and FlexAttention's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask, flex_attention

from actors.tree_attention import PieceState, attend, running
from actors.tree_mask import MaskedPiece, seen
from engine.packing import Piece, Trie, build_trie, cut
from engine.ragged import Ragged

pytestmark = pytest.mark.models

HEADS, KEY_HEADS, SIZE = 4, 2, 8


class Module:
    layer_idx = 0


@st.composite
def tries(draw: st.DrawFn) -> Trie:
    rows = draw(
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=9)
    )
    hidden = None
    if draw(st.booleans()):
        hidden = Ragged.of(
            [sorted(draw(st.sets(st.integers(0, len(row) - 1), max_size=2))) for row in rows]
        )
    return build_trie(Ragged.of(rows), hidden)


def flex_rule(trie: Trie, window: int | None) -> Any:
    """Return the whole trie's rule as FlexAttention takes it: `kv <= q < end[kv]`."""
    ends = trie.ends.copy()
    if trie.hidden is not None:
        ends[trie.hidden] = 0
    end, position = torch.from_numpy(ends), torch.from_numpy(trie.positions)

    def sees(_: Any, __: Any, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        visible = (kv <= q) & (q < end[kv])
        return visible if window is None else visible & (position[q] - position[kv] < window)

    return sees


def block_rule(piece: Piece, window: int | None, n_nodes: int) -> np.ndarray:
    """Return what the piece's integers say, as rows of the trie's nodes [nodes, N]."""
    visible = np.zeros((piece.stop - piece.start, n_nodes), dtype=bool)
    for queries, q_at, nodes, ends, k_at in zip(
        piece.queries,
        piece.query_positions,
        piece.key_nodes,
        piece.key_ends,
        piece.key_positions,
        strict=True,
    ):
        sees = (nodes <= queries[:, None]) & (queries[:, None] < ends)
        if window is not None:
            sees &= q_at[:, None] - k_at < window
        for query, row in zip(queries, sees, strict=True):
            visible[query - piece.start, nodes[row]] = True
    return visible


@settings(deadline=None)
@given(tries(), st.integers(1, 12), st.integers(1, 5), st.sampled_from([None, 1, 3]))
def test_pieces_and_flex_attention_see_the_same(
    trie: Trie, size: int, block: int, window: int | None
) -> None:
    n = trie.n_nodes
    whole = create_mask(flex_rule(trie, window), None, None, n, n, device="cpu")[0, 0].numpy()
    for piece in cut(trie, size, block):
        np.testing.assert_array_equal(block_rule(piece, window, n), whole[piece.start : piece.stop])


@settings(deadline=None)
@given(tries(), st.integers(1, 12), st.integers(1, 5))
def test_whole_masks_see_the_same(trie: Trie, size: int, block: int) -> None:
    n = trie.n_nodes
    whole = create_mask(flex_rule(trie, None), None, None, n, n, device="cpu")[0, 0].numpy()
    for piece in cut(trie, size, block):
        path = trie.path(piece.start)
        local = [*path, *range(piece.start, piece.stop)]
        mask = seen(piece)
        expected = whole[piece.start : piece.stop][:, local]
        np.testing.assert_array_equal(mask, expected[:, : mask.shape[1]])
        assert not expected[:, mask.shape[1] :].any()


def some_trie() -> Trie:
    rng = np.random.default_rng(0)
    return build_trie(Ragged.of([row.tolist() for row in rng.integers(0, 3, (30, 6))]))


def states(n: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    shapes = (HEADS, KEY_HEADS, KEY_HEADS)
    query, key, value = (torch.randn(1, heads, n, SIZE) for heads in shapes)
    return query, key, value


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("size", [1000, 20])
def test_tree_attention_gives_what_flex_attention_gives(window: int | None, size: int) -> None:
    """FlexAttention is not compiled here: without a GPU it serves as a second opinion."""
    trie = some_trie()
    query, key, value = states(trie.n_nodes)
    rule = flex_rule(trie, window)

    def score(product: Any, b: Any, h: Any, q: torch.Tensor, kv: torch.Tensor) -> Any:
        return torch.where(rule(b, h, q, kv), product, -float("inf"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = flex_attention(query, key, value, score_mod=score, enable_gqa=True)
    carried: Any = {}
    for piece in cut(trie, size, 8):
        nodes = slice(piece.start, piece.stop)
        no_reads = np.zeros(0, dtype=np.int64)
        state = PieceState(piece, carried, no_reads, torch.device("cpu"), torch.float32)
        with running(state):
            found, _ = attend(
                Module(),
                query[:, :, nodes],
                key[:, :, nodes],
                value[:, :, nodes],
                None,
                sliding_window=window,
            )
        torch.testing.assert_close(found.transpose(1, 2), expected[:, :, nodes])
        carried = state.kept


def test_a_masked_piece_hands_over_the_carried_path() -> None:
    trie = some_trie()
    query, key, value = states(trie.n_nodes)
    whole = MaskedPiece(next(iter(cut(trie, 1000, 8))), {}, torch.device("cpu"), torch.float32).mask
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = attention(query, key, value, attn_mask=whole, enable_gqa=True)
    carried: Any = {}
    for piece in cut(trie, 20, 8):
        nodes = slice(piece.start, piece.stop)
        state = MaskedPiece(piece, carried, torch.device("cpu"), torch.float32)
        assert state.get_seq_length() == (len(trie.path(piece.start)) if carried else 0)
        keys, values = state.update(key[:, :, nodes], value[:, :, nodes], 0)
        found = attention(query[:, :, nodes], keys, values, attn_mask=state.mask, enable_gqa=True)
        torch.testing.assert_close(found, expected[:, :, nodes])
        carried = state.kept
