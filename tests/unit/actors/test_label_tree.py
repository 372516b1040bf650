from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.label_tree import Node, label_tree

LABELS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple), min_size=1)


def test_labels_that_begin_alike_share_their_places() -> None:
    tree = label_tree([(7,), (5, 8), (5, 9, 1), (5, 9, 2)], 128)
    assert tree.nodes == [Node((), (5, 7)), Node((5,), (8, 9)), Node((5, 9), (1, 2))]
    assert tree.columns == [[1], [0, 2], [0, 3, 4], [0, 3, 5]]
    assert tree.width == 6


def test_many_labels_take_several_nodes() -> None:
    tree = label_tree([(token,) for token in range(300)], 128)
    assert [(node.beginning, len(node.tokens)) for node in tree.nodes] == [
        ((), 128),
        ((), 128),
        ((), 44),
    ]
    read = np.arange(600, dtype=float).reshape(2, 300)
    np.testing.assert_array_equal(tree.sums(read), read)


@given(LABELS, st.integers(1, 3))
def test_sums_are_those_of_the_labels_tokens(labels: list[tuple[int, ...]], most: int) -> None:
    """log p(token | beginning) is any function of the two; the sums must add the right ones."""

    def log_prob(beginning: tuple[int, ...], token: int) -> float:
        return -float(hash((beginning, token)) % 1000)

    tree = label_tree(labels, most)
    assert all(0 < len(node.tokens) <= most for node in tree.nodes)
    row = [log_prob(node.beginning, token) for node in tree.nodes for token in node.tokens]
    expected = [sum(log_prob(label[:i], t) for i, t in enumerate(label)) for label in labels]
    assert tree.sums(np.array([row])).tolist() == [expected]
    asked = {(label[:i], t) for label in labels for i, t in enumerate(label)}
    assert tree.width == len(asked)


@pytest.mark.parametrize("labels", [[], [(1,), ()]])
def test_a_label_needs_a_token(labels: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        label_tree(labels, 128)
