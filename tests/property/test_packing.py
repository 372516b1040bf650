from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.packing import Piece, Trie, block_at, build_trie, cut, shared_prefix
from engine.ragged import Ragged

# few different tokens, so that sequences share prefixes, repeat, and begin one another
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=25)

Node = tuple[int, int, bool]  # token, position, hidden


@st.composite
def masked(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]] | None]:
    rows = draw(SEQUENCES)
    if draw(st.booleans()):
        return rows, None
    return rows, [sorted(draw(st.sets(st.integers(0, len(row) - 1)))) for row in rows]


def paths_of(rows: list[list[int]], hidden: list[list[int]] | None) -> list[tuple[Node, ...]]:
    """Return what each sequence is made of, by the definition."""
    paths = []
    for i, row in enumerate(rows):
        off = set(hidden[i]) if hidden else set()
        last = len(row) - 1
        paths.append(
            tuple((t, p, p in off) for p, t in enumerate(row) if p not in off or p == last)
        )
    return paths


def node_at(trie: Trie, node: int) -> Node:
    dark = trie.hidden is not None and bool(trie.hidden[node])
    return int(trie.tokens[node]), int(trie.positions[node]), dark


def ragged(rows: list[list[int]] | None) -> Ragged | None:
    return None if rows is None else Ragged.of(rows)


@given(masked(), st.data())
def test_every_root_to_leaf_path_is_the_input_and_nothing_stands_twice(
    case: tuple[list[list[int]], list[list[int]] | None], data: st.DataObject
) -> None:
    rows, hidden = case
    sequences, off = Ragged.of(rows), ragged(hidden)
    prefix = data.draw(st.integers(0, shared_prefix(sequences, off)))
    trie = build_trie(sequences, off, prefix)
    paths = paths_of(rows, hidden)
    for path, leaf in zip(paths, trie.nodes_at().tolist(), strict=True):
        found = [node_at(trie, v) for v in [*trie.path(leaf).tolist(), leaf]]
        assert found == list(path[prefix:])
    distinct = {path[: i + 1] for path in paths for i in range(prefix, len(path))}
    assert trie.n_nodes == len(distinct)


@given(masked())
def test_an_ancestor_is_what_the_interval_says(
    case: tuple[list[list[int]], list[list[int]] | None],
) -> None:
    trie = build_trie(Ragged.of(case[0]), ragged(case[1]))
    for node in range(trie.n_nodes):
        inside = [k for k in range(trie.n_nodes) if k <= node < trie.ends[k]]
        assert inside == [*trie.path(node).tolist(), node]


@settings(max_examples=200)
@given(masked(), st.integers(1, 9), st.integers(1, 5))
def test_pieces_see_all_ancestors_and_nothing_else(
    case: tuple[list[list[int]], list[list[int]] | None], size: int, block: int
) -> None:
    rows, hidden = case
    sequences, off = Ragged.of(rows), ragged(hidden)
    prefix = shared_prefix(sequences, off)
    trie = build_trie(sequences, off, prefix)
    carried: list[int] = []
    ran: list[int] = []
    for piece in cut(trie, size, block):
        assert piece.stop - piece.start <= size
        # local number -> node; the shared prefix as negative numbers
        here = [*range(-prefix, 0), *carried, *range(piece.start, piece.stop)]
        _check_blocks(trie, piece, here, rows[0][:prefix])
        ran += range(piece.start, piece.stop)
        given = [here[k] for k in piece.carry.tolist()]
        assert given[:prefix] == (list(range(-prefix, 0)) if piece.stop < trie.n_nodes else [])
        carried = given[prefix:]
    assert ran == list(range(trie.n_nodes))


def _check_blocks(trie: Trie, piece: Piece, here: list[int], prefix: list[int]) -> None:
    queries = piece.queries.ravel().tolist()
    nodes = list(range(piece.start, piece.stop))
    assert queries == nodes + [piece.stop - 1] * (len(queries) - len(nodes))
    dark = trie.hidden if trie.hidden is not None else np.zeros(trie.n_nodes, dtype=bool)
    for b, block in enumerate(piece.queries.tolist()):
        for q, node in enumerate(block):
            seen = (piece.key_nodes[b] <= node) & (node < piece.key_ends[b])
            found = [here[k] for k in piece.keys[b][seen].tolist()]
            family = [v for v in [*trie.path(node).tolist(), node] if not dark[v]]
            assert found == [*range(-len(prefix), 0), *family]
            positions = [v + len(prefix) if v < 0 else int(trie.positions[v]) for v in found]
            assert piece.key_positions[b][seen].tolist() == positions
            assert piece.query_positions[b, q] == trie.positions[node]


@given(SEQUENCES, st.randoms(use_true_random=False))
def test_the_trie_does_not_depend_on_the_order_of_arrival(rows: list[list[int]], random) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    order = list(range(len(rows)))
    random.shuffle(order)
    straight = build_trie(Ragged.of(rows))
    mixed = build_trie(Ragged.of(rows[i] for i in order))
    assert np.array_equal(straight.tokens, mixed.tokens)
    assert np.array_equal(straight.ends, mixed.ends)
    assert straight.nodes_at()[order].tolist() == mixed.nodes_at().tolist()


@given(SEQUENCES)
def test_tokens_before_the_last_are_found_by_counting_back(rows: list[list[int]]) -> None:
    rows = [[7, *row] for row in rows]
    trie = build_trie(Ragged.of(rows))
    before = trie.nodes_at(back=1)
    for last, node in zip(trie.nodes_at().tolist(), before.tolist(), strict=True):
        assert trie.path(last)[-1] == node


def test_large_token_ids_are_kept() -> None:
    rows = [[70_000, 1], [70_000, 4_000_000]]
    trie = build_trie(Ragged.of(rows))
    # the order of siblings is free
    assert trie.tokens[0] == 70_000
    assert sorted(trie.tokens[1:].tolist()) == [1, 4_000_000]


def test_the_shared_prefix_leaves_every_sequence_a_token_and_ends_before_hidden_ones() -> None:
    rows = Ragged.of([[1, 2, 3], [1, 2, 4], [1, 2]])
    assert shared_prefix(rows) == 1
    assert shared_prefix(Ragged.of([[1, 2, 3], [1, 2, 4]])) == 2
    assert shared_prefix(Ragged.of([[1, 2, 3], [1, 2, 4]]), Ragged.of([[1], []])) == 1
    assert shared_prefix(Ragged.of([])) == 0


@pytest.mark.parametrize(("length", "block"), [(20, 8), (63, 16), (65, 32), (4000, 512)])
def test_blocks_grow_with_the_length_of_paths(length: int, block: int) -> None:
    """Twice as many would be more than nodes have ancestors on average."""
    trie = build_trie(Ragged.of([list(range(length))]))
    assert block_at(trie, 0, 4096, 8) == block
    assert block_at(trie, 0, 4, 4) == 4  # no larger than a piece


def test_no_sequences_give_no_nodes() -> None:
    trie = build_trie(Ragged.of([]))
    assert trie.n_nodes == 0
    assert list(cut(trie, 4, 2)) == []


def test_a_sequence_inside_the_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than the shared prefix of 2"):
        build_trie(Ragged.of([[1, 2], [1, 2, 3]]), prefix=2)
