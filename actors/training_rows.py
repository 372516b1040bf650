"""Examples as rows of tokens: the prompt as scoring sees it, then the gold label's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.labels import LabelSet
from engine.prompts import PromptTemplate
from engine.seeds import generator
from engine.tokens import load_tokenizer
from engine.types import Example

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""Stands in `labels` where nothing is learned."""
_BATCHES_SORTED = 50
"""Batches whose examples are sorted by length together."""


class TrainingRow(NamedTuple):
    """One example.

    Attributes:
        ids: Tokens of prompt and gold label.
        prompt: How many of them are the prompt's.
        gold: Index of the label.
    """

    ids: tuple[int, ...]
    prompt: int
    gold: int


def encode(
    examples: Sequence[Example],
    template: PromptTemplate,
    labels: LabelSet,
    tokenizer: str,
    max_tokens: int,
) -> list[TrainingRow]:
    """Return the rows of the examples that fit; none is cut.

    Args:
        examples: With gold labels.
        template: Of the prompt.
        labels: With the tokens that scoring reads.
        tokenizer: Specification for `engine.tokens.load_tokenizer`.
        max_tokens: Longest row.
    """
    texts = [template.render(example.fields) for example in examples]
    prompts = load_tokenizer(tokenizer).encode_batch(texts, template.add_special_tokens)
    rows = []
    for example, prompt in zip(examples, prompts, strict=True):
        if example.label is None:
            raise ValueError(f"{example.id} has no gold label")
        ids = (*prompt, *labels.token_ids[example.label])
        if len(ids) <= max_tokens:
            rows.append(TrainingRow(ids, len(prompt), example.label))
    return rows


class RowDataset:
    """Rows as `Trainer` takes them."""

    def __init__(self, rows: Sequence[TrainingRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> TrainingRow:
        return self.rows[index]


def collate(rows: Sequence[TrainingRow]) -> dict[str, torch.Tensor]:
    """Return a batch, padded on the right: ids, mask and labels [B, T].

    `labels` has the label's own tokens at their places and `IGNORED` elsewhere.
    """
    import torch

    shape = (len(rows), max(len(row.ids) for row in rows))
    ids_BT = np.zeros(shape, dtype=np.int64)
    mask_BT = np.zeros(shape, dtype=np.int64)
    labels_BT = np.full(shape, IGNORED, dtype=np.int64)
    for at, row in enumerate(rows):
        ids_BT[at, : len(row.ids)] = row.ids
        mask_BT[at, : len(row.ids)] = 1
        labels_BT[at, row.prompt : len(row.ids)] = row.ids[row.prompt :]
    named = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": labels_BT}
    return {name: torch.from_numpy(values) for name, values in named.items()}


class LengthGroups:
    """The order of rows: at random, then batches of nearly one length, the batches at random.

    It follows from seed and epoch alone, so that a training that was cut off goes on in the order
    it began.

    Args:
        lengths: Tokens of each row.
        group: Rows that should be of one length: those of an optimizer step.
        seed: Of the training.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._group = group
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set which pass the next iteration is."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random: Any = generator("order", self._seed, self._epoch)
        order = random.permutation(len(self._lengths))
        size = self._group * _BATCHES_SORTED
        sorted_ = [
            chunk[np.argsort(self._lengths[chunk], kind="stable")]
            for chunk in (order[at : at + size] for at in range(0, len(order), size))
        ]
        order = np.concatenate(sorted_) if sorted_ else order
        groups = [order[at : at + self._group] for at in range(0, len(order), self._group)]
        # a short one stays last, or it would shift the borders of all behind it
        last = groups.pop() if groups and len(groups[-1]) < self._group else None
        random.shuffle(groups)
        for group in [*groups, *([] if last is None else [last])]:
            yield from group.tolist()
