"""Which sequences go through a model together: integers only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Ids = tuple[int, ...]


class ScoreSequence(NamedTuple):
    """One prompt to score.

    Attributes:
        ids: Token ids of the whole prompt.
        hidden: Increasing positions whose attention is off; the other positions keep their place.
    """

    ids: Ids
    hidden: Ids = ()


def by_length(sequences: Sequence[ScoreSequence]) -> list[int]:
    """Return the indices of `sequences` from short to long.

    Equal lengths are ordered by content, so that the order, and with it every batch, is a function
    of the set of sequences and not of how they arrived.
    """
    return sorted(range(len(sequences)), key=lambda i: (len(sequences[i].ids), sequences[i]))


def token_batches(sizes: Sequence[int], budget: int) -> list[range]:
    """Cut a list of sizes into consecutive batches whose padded size is within the budget.

    Args:
        sizes: Tokens of each item, in the order of the batches.
        budget: Most tokens of a batch, each item counted at the size of its largest. An item
            larger than that is a batch of its own.

    Returns:
        Ranges over the items that follow one another and cover all.

    Raises:
        ValueError: The budget isn't positive.
    """
    if budget < 1:
        raise ValueError(f"a batch needs a budget of at least one token, got {budget}")
    batches = []
    start, largest = 0, 0
    for index, size in enumerate(sizes):
        largest = max(largest, size)
        if index > start and largest * (index + 1 - start) > budget:
            batches.append(range(start, index))
            start, largest = index, size
    if len(sizes):
        batches.append(range(start, len(sizes)))
    return batches


def shared_prefix(sequences: Sequence[ScoreSequence]) -> int:
    """Return how many first tokens all sequences share and can be computed once for all.

    It ends before any hidden position, and leaves every sequence a token of its own. A single
    sequence shares nothing.
    """
    if len(sequences) < 2:
        return 0
    # the least and the greatest of a set in lexical order share what all of it shares
    low = min(sequence.ids for sequence in sequences)
    high = max(sequence.ids for sequence in sequences)
    limit = min(len(sequence.ids) for sequence in sequences) - 1
    limit = min([limit, *(sequence.hidden[0] for sequence in sequences if sequence.hidden)])
    length = 0
    while length < limit and low[length] == high[length]:
        length += 1
    return length


def continuations(label_ids: Sequence[Ids]) -> list[Ids]:
    """Return the token strings to append to a prompt so that every label can be read.

    A label's last token is predicted and never fed, so what must run is each label without it; one
    that begins another is read on the way. Labels of one token give one empty continuation.

    Raises:
        ValueError: There is no label, or one without tokens.
    """
    if not label_ids or not all(label_ids):
        raise ValueError(f"every label needs at least one token, got {list(label_ids)}")
    inner = sorted({tuple(label[:-1]) for label in label_ids})
    return [
        ids
        for ids, following in zip(inner, [*inner[1:], None], strict=True)
        # in lexical order a string stands right before the strings that it begins
        if following is None or following[: len(ids)] != ids
    ]


def tokens_to_run(length: int, conts: Sequence[Ids]) -> int:
    """Return the tokens a prompt of `length` takes with all its continuations."""
    return sum(length + len(ids) for ids in conts)


def cut_elsewhere(tokens: int, replicate: int) -> int:
    """Return the size of the batches by which a replicate of a model computes.

    So much smaller that even a short text's prompts, which are one batch else, are cut: sums then
    round otherwise. Each replicate has a size of its own; 0 is the model itself.
    """
    return tokens if replicate == 0 else max(tokens // (4 + 3 * replicate), 1)
