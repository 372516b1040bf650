"""Token sequences as a trie, cut into pieces that compute every distinct prefix exactly once.

A causal model's state at a token depends on the tokens before it alone, so sequences that begin
alike share the states of their common beginning. Here the sequences of a batch become a prefix
trie whose nodes are numbered in preorder; `end[v]` is one past the subtree of v. Then node k is v
itself or an ancestor of it exactly if `k <= v < end[k]`, a comparison of integers that serves as an
attention mask.

The preorder may be cut anywhere: all ancestors of a piece's nodes that lie before the piece are on
the root path of its first node. So pieces run one after the other, each given the keys and values
of that one path, and nothing is computed twice, however long the pieces are. A piece is cut once
more, into *blocks* of queries that each see their own nodes and the root path of their first node:
the attention matrix has `block × (depth + block)` entries, not `piece × piece`.

All of it is arithmetic on whole arrays, no Python object a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.ragged import Ragged

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LARGEST_BLOCK = 512
"""Most queries of a block, however long the paths are."""


class Trie(NamedTuple):
    """The distinct prefixes of S sequences, behind a prefix that all of them share.

    Attributes:
        tokens: Token of each node, in preorder [N].
        positions: Position of each node in its sequence [N].
        ends: One past the subtree of each node [N].
        hidden: Whether nothing attends to a node, itself included [N], or None if no node is.
        rows: Row of `places` that a node's root path can be read from [N].
        places: Node of each distinct sequence at each depth, the shared prefix not counted [R, D];
            what lies behind a sequence's end has no meaning.
        row_of: Row of `places` of each sequence [S].
        depths: Number of nodes of each sequence [S].
        prefix: Length of the shared prefix, whose tokens are no nodes.
    """

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    ends: Ints
    hidden: Bools | None
    rows: Ints
    places: Ints
    row_of: Ints
    depths: Ints
    prefix: int

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.tokens)

    def nodes_at(self, back: int = 0) -> Ints:
        """Return the node of each sequence that is `back` tokens before its last one [S]."""
        return self.places[self.row_of, self.depths - 1 - back]

    def path(self, node: int) -> Ints:
        """Return the ancestors of a node from the root down, the node itself not included."""
        depth = self.depth(np.array([node]))[0]
        return self.places[self.rows[node], :depth]

    def depth(self, nodes: Ints) -> Ints:
        """Return how many ancestors each node has."""
        # by position where none is hidden; otherwise positions jump and the path is searched
        if self.hidden is None:
            return self.positions[nodes].astype(np.int64) - self.prefix
        return (self.places[self.rows[nodes]] < nodes[:, None]).argmin(axis=1)


def shared_prefix(sequences: Ragged, hidden: Ragged | None = None) -> int:
    """Return how many first tokens all sequences share, so that each keeps one of its own.

    It ends before the first hidden position. No sequences share nothing.
    """
    if not sequences.n_rows:
        return 0
    limit = int(sequences.lengths.min()) - 1
    if hidden is not None and len(hidden.flat):
        limit = min(limit, int(hidden.flat.min()))
    if limit <= 0:
        return 0
    columns = sequences.flat[sequences.offsets[:-1, None] + np.arange(limit)]
    differs = (columns != columns[0]).any(axis=0)
    return int(differs.argmax()) if differs.any() else limit


def build_trie(sequences: Ragged, hidden: Ragged | None = None, prefix: int = 0) -> Trie:
    """Return the trie of the sequences behind their first `prefix` tokens.

    A node is a (token, position) after a path. A hidden token that isn't its sequence's last is no
    node: nothing reads it, and those behind it keep their positions.

    Args:
        sequences: S sequences, each longer than `prefix`.
        hidden: Positions of each sequence that nothing attends to, ascending; None for none.
        prefix: Length of a prefix that all sequences share, without hidden positions.

    Raises:
        ValueError: A sequence isn't longer than `prefix`.
    """
    if sequences.n_rows and int(sequences.lengths.min()) <= prefix:
        raise ValueError(f"every sequence must be longer than the shared prefix of {prefix} tokens")
    codes, depths, positions_of, last_hidden = _codes(sequences, hidden, prefix)
    n_rows, width = codes.shape
    if not n_rows:
        none = np.zeros(0, dtype=np.int64)
        few = none.astype(np.int32)
        return Trie(few, few, none, None, none, none.reshape(0, 0), none, none, prefix)
    # Any order that puts rows with a common beginning side by side will do, so the bytes of the
    # codes serve as the sort key; the 0 behind an end puts a prefix before what continues it.
    order = np.argsort(codes.view(f"S{codes.dtype.itemsize * width}").ravel(), kind="stable")
    ordered, lengths = codes[order], depths[order]
    shared = np.zeros(n_rows, dtype=np.int64)
    differs = ordered[1:] != ordered[:-1]
    shared[1:] = np.where(differs.any(axis=1), differs.argmax(axis=1), lengths[1:])
    kept = np.flatnonzero(lengths > shared)  # a repeated sequence brings no node
    row_of = np.empty(n_rows, dtype=np.int64)
    row_of[order] = np.cumsum(lengths > shared) - 1
    return _number(
        ordered[kept],
        lengths[kept],
        shared[kept],
        None if positions_of is None else positions_of[order][kept],
        None if last_hidden is None else last_hidden[order][kept],
        row_of,
        depths,
        prefix,
    )


def _codes(
    sequences: Ragged, hidden: Ragged | None, prefix: int
) -> tuple[npt.NDArray[np.integer], Ints, Ints | None, Bools | None]:
    """Return codes [S, D] of the nodes of each row, 0 behind its end, and the rows' lengths [S].

    Without hidden positions a code is token + 1. With them it holds the position as well, and the
    positions [S, D] and which rows end in a hidden token [S] come third and fourth.
    """
    lengths = sequences.lengths - prefix
    starts = sequences.offsets[:-1] + prefix
    width = int(lengths.max()) if len(lengths) else 0
    inside = np.arange(width) < lengths[:, None]
    if hidden is None or not len(hidden.flat):
        largest = int(sequences.flat.max()) if len(sequences.flat) else 0
        codes = np.zeros((len(lengths), width), dtype=np.uint16 if largest < 65535 else np.uint32)
        # row by row the part behind the prefix is one run of `flat`
        codes[inside] = _behind(sequences, prefix) + 1
        return codes, lengths, None, None
    dark = np.zeros((len(lengths), width), dtype=bool)
    dark[np.repeat(np.arange(len(lengths)), hidden.lengths), hidden.flat - prefix] = True
    last = dark[np.arange(len(lengths)), lengths - 1]
    keep = inside & ~dark
    keep[np.arange(len(lengths)), lengths - 1] = True
    kept = keep.sum(axis=1)
    narrow = np.arange(int(kept.max())) < kept[:, None]
    rows, columns = np.nonzero(keep)
    positions = np.zeros(narrow.shape, dtype=np.int64)
    positions[narrow] = columns + prefix
    wide = np.zeros(narrow.shape, dtype=np.uint64)
    tokens = sequences.flat[starts[rows] + columns].astype(np.uint64)
    wide[narrow] = (tokens + 1) << np.uint64(32) | (columns + prefix).astype(np.uint64)
    wide[np.flatnonzero(last), kept[last] - 1] |= np.uint64(1 << 31)
    return wide, kept, positions, last


def _behind(sequences: Ragged, prefix: int) -> npt.NDArray[np.int32]:
    """Return all tokens behind the prefix, row by row."""
    if not prefix:
        return sequences.flat
    keep = np.ones(len(sequences.flat), dtype=bool)
    keep[(sequences.offsets[:-1, None] + np.arange(prefix)).ravel()] = False
    return sequences.flat[keep]


def _number(
    codes: npt.NDArray[np.integer],
    lengths: Ints,
    shared: Ints,
    positions_of: Ints | None,
    last_hidden: Bools | None,
    row_of: Ints,
    depths: Ints,
    prefix: int,
) -> Trie:
    """Number the nodes of R sorted, distinct rows; each shares `shared` nodes with the former."""
    n_rows, width = codes.shape
    new = lengths - shared
    firsts = np.cumsum(new) - new
    n_nodes = int(new.sum())
    depth = np.arange(width)
    own = (depth >= shared[:, None]) & (depth < lengths[:, None])
    places = np.where(own, firsts[:, None] + depth - shared[:, None], -1)
    np.maximum.accumulate(places, axis=0, out=places)
    # the subtree of a node at depth d ends where a later row shares d tokens or fewer
    breaks = np.where(shared[:, None] <= depth, firsts[:, None], n_nodes)
    ends = np.full((n_rows, width), n_nodes, dtype=np.int64)
    ends[:-1] = np.minimum.accumulate(breaks[:0:-1], axis=0)[::-1]
    rows = np.repeat(np.arange(n_rows), new)
    flat = codes[own]
    if positions_of is None:
        at = np.arange(n_nodes) - np.repeat(firsts - shared, new)
        positions = (at + prefix).astype(np.int32)
        tokens = flat.astype(np.int32) - 1
        dark = None
    else:
        positions = positions_of[own].astype(np.int32)
        tokens = ((flat >> np.uint64(32)).astype(np.int64) - 1).astype(np.int32)
        dark = np.zeros(n_nodes, dtype=bool)
        if last_hidden is not None:
            dark[(flat & np.uint64(1 << 31)) != 0] = True
    return Trie(
        tokens, positions, ends[own], dark, rows, places, row_of, depths.astype(np.int64), prefix
    )


class Piece(NamedTuple):
    """A run of nodes that goes through the model as one, and what its attention sees.

    A query q sees the keys with `key_nodes <= q < key_ends`. Keys are found by local numbers: first
    the P tokens of the shared prefix, then the carried root path of the piece's first node, then
    the piece's own nodes.

    Attributes:
        start: First node.
        stop: One past the last node.
        queries: Nodes of each block, in order [B, Q]; the last block repeats the last node.
        keys: Local numbers of each block's keys [B, K].
        key_nodes: Their nodes, −1 for the shared prefix [B, K].
        key_ends: One past their subtrees; 0 where nothing attends to the key, as padding [B, K].
        query_positions: Positions of the queries [B, Q], for sliding windows.
        key_positions: Positions of the keys [B, K].
        carry: Local numbers of what the next piece is given: the shared prefix, then the root path
            of its first node. Empty where no piece follows.
        depths: Keys of each block between the shared prefix and its own nodes [B]; what follows up
            to the last Q columns is padding.
    """

    start: int
    stop: int
    queries: npt.NDArray[np.int32]
    keys: Ints
    key_nodes: npt.NDArray[np.int32]
    key_ends: npt.NDArray[np.int32]
    query_positions: npt.NDArray[np.int32]
    key_positions: npt.NDArray[np.int32]
    carry: Ints
    depths: Ints


def cut(trie: Trie, size: int, block: int) -> Iterator[Piece]:
    """Yield the pieces of a trie, in the order in which they must run.

    Args:
        trie: N nodes.
        size: Most nodes of a piece; all pieces but the last have it.
        block: Queries of a block.

    Raises:
        ValueError: A size isn't positive.
    """
    for start in range(0, trie.n_nodes, max(size, 1)):
        yield piece_at(trie, start, size, block)


def piece_at(trie: Trie, start: int, size: int, block: int) -> Piece:
    """Return the piece that begins at node `start`; see `cut`.

    Raises:
        ValueError: A size isn't positive.
    """
    if size < 1 or block < 1:
        raise ValueError(f"pieces and blocks need at least one node, got {size} and {block}")
    return _piece(trie, start, min(start + size, trie.n_nodes), block)


def block_at(trie: Trie, start: int, size: int, least: int) -> int:
    """Return how many queries a block of the piece at `start` should have.

    A block sees the root path of its first node: with queries as many as half that path is long,
    or more, keys are taken a few times each and not once for every few queries.

    Args:
        trie: N nodes.
        start: First node of the piece.
        size: Most nodes of it, and of a block.
        least: Queries of a block where paths are short.
    """
    depth = trie.positions[start : start + size].mean() - trie.prefix
    block = least
    while 2 * block <= min(depth, size, LARGEST_BLOCK):
        block *= 2
    return block


def _piece(trie: Trie, start: int, stop: int, block: int) -> Piece:
    heads = np.arange(start, stop, block)
    spread = heads[:, None] + np.arange(block)
    nodes = np.minimum(spread, stop - 1)
    depths = trie.depth(heads)
    reach = int(depths.max())
    on_path = np.arange(reach) < depths[:, None]
    path = np.where(on_path, trie.places[trie.rows[heads], :reach], 0)
    carried = trie.path(start)
    behind = np.concatenate([path, nodes], axis=1)
    ends = np.concatenate([np.where(on_path, trie.ends[path], 0), trie.ends[nodes]], axis=1)
    if trie.hidden is not None:
        ends[trie.hidden[behind]] = 0
    ends[:, reach:][spread >= stop] = 0  # repeated queries are no keys
    front = (len(heads), trie.prefix)
    local = np.concatenate([_local(path, start, trie, len(carried)), nodes - start], axis=1)
    local[:, reach:] += trie.prefix + len(carried)
    carry = np.zeros(0, dtype=np.int64)
    if stop < trie.n_nodes:
        onward = _local(trie.path(stop), start, trie, len(carried))
        carry = np.concatenate([np.arange(trie.prefix), onward])
    return Piece(
        start,
        stop,
        nodes.astype(np.int32),
        np.concatenate([np.broadcast_to(np.arange(trie.prefix), front), local], axis=1),
        np.concatenate([np.full(front, -1), behind], axis=1).astype(np.int32),
        np.concatenate([np.full(front, trie.n_nodes), ends], axis=1).astype(np.int32),
        trie.positions[nodes],
        np.concatenate(
            [np.broadcast_to(np.arange(trie.prefix), front), trie.positions[behind]], axis=1
        ).astype(np.int32),
        carry,
        depths,
    )


def _local(nodes: Ints, start: int, trie: Trie, n_carried: int) -> Ints:
    """Return the local numbers of nodes in a piece or on the carried path."""
    # the carried path holds one node a depth, from the root down
    depth = trie.depth(nodes.ravel()).reshape(nodes.shape)
    behind = np.where(nodes < start, depth, nodes - start + n_carried)
    return behind + trie.prefix
