"""What the benchmarks score: texts, prompts, and their perturbations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from engine.data import load_examples
from engine.data.source import DataSource
from engine.errors import ConfigError
from engine.explainers.coalitions import uniform_subsets
from engine.features import split_features
from engine.masking import Masker, Operator
from engine.prompts import Message, PromptTemplate, from_chat, parse_template
from engine.ragged import Ragged
from engine.seeds import generator
from engine.tokens import Tokenizer
from engine.types import BoolCF

LABELS = {"negative": " negative", "positive": " positive"}
SHORT = "Review: {text}\nSentiment:"
CHAT = "Is the sentiment of this review positive or negative? {text}"
"""The user's message; a chat template puts a long beginning and end around it."""


def texts_of(path: str, field: str, words: tuple[int, int], count: int) -> list[str]:
    """Return the first texts of a data set whose number of words lies in a range.

    Args:
        path: `bundled:reviews`, or a file as of `data.path`.
        field: Column of the text.
        words: Fewest and most words.
        count: How many.

    Raises:
        ConfigError: There are not so many.
    """
    found = []
    for example in load_examples(DataSource(path, {"text": field}, label=None)).examples:
        text = example.fields["text"]
        if words[0] <= len(split_features({"text": text}, "words")) <= words[1]:
            found.append(text)
        if len(found) == count:
            return found
    raise ConfigError(
        f"{path} has {len(found)} texts of {words[0]} to {words[1]} words, {count} are wanted: "
        "widen --words or lower --texts"
    )


def template_of(prompt: str, render: Callable[[list[Message]], str] | None) -> PromptTemplate:
    """Return the template `chat` or `short`.

    Args:
        prompt: Which.
        render: The tokenizer's chat template.

    Raises:
        ConfigError: `chat`, but the tokenizer has no chat template.
    """
    if prompt == "short":
        return parse_template(SHORT)
    if render is None:
        raise ConfigError("this model has no chat template: measure it with --prompt short")
    return from_chat([{"role": "user", "content": CHAT}], render)


def draws(n_features: int, n_samples: int, seed: int) -> BoolCF:
    """Return coalitions [C, F] drawn as lime draws them, the full text first, repeats included."""
    uniforms = generator("bench", seed, n_features).random((n_samples - 1, n_features + 1))
    sizes = 1 + np.floor(uniforms[:, 0] * n_features).astype(np.intp)
    drawn = ~uniform_subsets(uniforms[:, 1:], sizes)
    return np.concatenate([np.ones((1, n_features), dtype=bool), drawn])


@dataclass(frozen=True, slots=True, eq=False)
class Perturbed:
    """The perturbations of one text.

    Attributes:
        text: The text.
        sequences: Prompts in the order of the draws, repeats included.
    """

    text: str
    sequences: Ragged


def perturb(
    texts: Sequence[str],
    template: PromptTemplate,
    tokenizer: Tokenizer,
    n_samples: int,
    max_tokens: int,
) -> list[Perturbed]:
    """Return every text's prompts with words deleted."""
    made = []
    for number, text in enumerate(texts):
        fields = {"text": text}
        features = split_features(fields, "words", template=template)
        masker = Masker(
            template, tokenizer, fields, features, Operator("delete"), "text", max_tokens
        )
        masked = masker.apply(draws(len(features), n_samples, number))
        made.append(Perturbed(text, masked.sequences.take(masked.row)))
    return made


def write_json(figures: dict[str, Any], path: Path) -> None:
    """Write a benchmark's figures."""
    path.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def show_figures(console: Console, figures: dict[str, Any]) -> None:
    """Print the figures of a benchmark, nested ones as JSON."""
    for name, value in figures.items():
        if isinstance(value, dict | list):
            console.print(f"{name}: {json.dumps(value, indent=2)}", markup=False)
        else:
            text = f"{value:,.4g}" if isinstance(value, float) else str(value)
            console.print(f"{name}: {text}", markup=False)
