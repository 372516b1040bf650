"""One training: a model, a prompt, examples, a recipe and a seed; its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.data import example_key
from engine.finetune_section import FinetuneConfig
from engine.labels import LabelSet
from engine.prompts import PromptTemplate
from engine.seeds import digest
from engine.training_data import TrainingData
from engine.types import Example

TRAINING_VERSION = 1
"""Raised when the same task gives another adapter than before."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """All that a training needs, wherever it runs.

    Attributes:
        model: Local folder, hub id or alias, with its revision.
        weights: Digest of its weights; a host with others refuses.
        precision: Of the base while training; the method of a checkpoint that is quantized already.
            `auto` only where the device isn't known yet: the fingerprint is then none to keep.
        tokenizer: Specification for `engine.tokens.load_tokenizer`.
        max_tokens: Longest prompt with its label.
        template: Of the prompt.
        labels: With the tokens that scoring reads.
        data: The examples.
        entry: The recipe.
        seed: Of the training.
        options: Of the model, as its host would get them.
        double_quant: Whether the scales of 4-bit weights are quantized too; True where there are
            none.
        as_stored: Whether the checkpoint is quantized already, and loads as it is.
    """

    model: str
    weights: str
    precision: str
    tokenizer: str
    max_tokens: int
    template: PromptTemplate
    labels: LabelSet
    data: TrainingData
    entry: FinetuneConfig
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    double_quant: bool = True
    as_stored: bool = False

    @property
    def fingerprint(self) -> str:
        """Digest of everything that affects the adapter; where it runs is left out."""
        plain_scales = self.precision in ("nf4", "fp4") and not self.double_quant
        return digest(
            {
                "version": TRAINING_VERSION,
                "weights": self.weights,
                "precision": self.precision,
                "template": repr(self.template),
                "tokenizer": digest(self.tokenizer),
                "labels": [list(self.labels.strings), [list(i) for i in self.labels.token_ids]],
                "train": content_digest(self.data.train),
                "validation": content_digest(self.data.validation),
                "recipe": self.entry.recipe(),
                "seed": self.seed,
                **({"double_quant": False} if plain_scales else {}),
            }
        )


def content_digest(examples: Sequence[Example]) -> str:
    """Return the digest of texts and labels in their order, whatever their ids."""
    return digest([[example_key(example.fields), example.label] for example in examples])
