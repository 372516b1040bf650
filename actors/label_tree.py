"""Labels as a tree of their tokens: which next tokens to read behind which beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actors.batching import Ids


class Node(NamedTuple):
    """One place behind a prompt at which next tokens are read.

    Attributes:
        beginning: Label tokens between the prompt and this place; none at the prompt's end.
        tokens: The next tokens whose log-probabilities are needed there, ascending.
    """

    beginning: Ids
    tokens: Ids


class LabelTree(NamedTuple):
    """Where the labels of a task are read, the same for every prompt.

    Attributes:
        nodes: K places; labels that begin alike share them.
        columns: For each label the places of its tokens among all tokens of all nodes, in order.
    """

    nodes: list[Node]
    columns: list[list[int]]

    @property
    def width(self) -> int:
        """Number of log-probabilities read of a prompt, U."""
        return sum(len(node.tokens) for node in self.nodes)

    def sums(self, read_SU: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return the labels' log-probabilities [S, L] from those of their tokens [S, U].

        A label's is log p(t₁|prompt) + log p(t₂|prompt t₁) + …
        """
        sums = [read_SU[:, columns].sum(axis=1) for columns in self.columns]
        return np.stack(sums, axis=1).astype(np.float32)


def label_tree(label_ids: Sequence[Ids], most: int) -> LabelTree:
    """Return where labels are read.

    Args:
        label_ids: Token ids of each of the L labels.
        most: Most tokens of a node; where more follow one beginning, it has several nodes.

    Raises:
        ValueError: There is no label, or one without tokens.
    """
    if not label_ids or not all(label_ids):
        raise ValueError(f"every label needs at least one token, got {list(label_ids)}")
    following: dict[Ids, set[int]] = {}
    for label in label_ids:
        for depth, token in enumerate(label):
            following.setdefault(tuple(label[:depth]), set()).add(token)
    nodes: list[Node] = []
    place: dict[tuple[Ids, int], int] = {}
    for beginning in sorted(following):
        tokens = sorted(following[beginning])
        for start in range(0, len(tokens), most):
            part = tuple(tokens[start : start + most])
            for token in part:
                place[beginning, token] = len(place)
            nodes.append(Node(beginning, part))
    columns = [
        [place[tuple(label[:depth]), token] for depth, token in enumerate(label)]
        for label in label_ids
    ]
    return LabelTree(nodes, columns)
