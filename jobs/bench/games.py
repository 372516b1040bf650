"""Texts as games with all their values: what estimators of Shapley values are measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine import schema
from engine.context import StepContext
from engine.explainers.coalitions import everything
from engine.features import split_features
from engine.masking import Masker, Operator, masked_on
from engine.target import transform
from engine.tokens import load_tokenizer
from engine.types import Example, FloatCL

CHUNK = 512
"""Rows of one request, so that progress shows and a reply stays small."""


class Game(NamedTuple):
    """A text and the values of all its coalitions.

    Attributes:
        text: What is explained.
        n_features: Its words F.
        values: Log-odds of every label [2^F, L], in the order of `everything`.
    """

    text: str
    n_features: int
    values: FloatCL


def count_words(text: str) -> int:
    """Return the number of words that can be removed from a text."""
    return len(split_features({"text": text}, "words"))


def pick(texts: Sequence[str], number: int, min_words: int, max_words: int) -> list[str]:
    """Return the first `number` texts of so many words, in their order."""
    fitting = [text for text in texts if min_words <= count_words(text) <= max_words]
    return fitting[:number]


def score_games(
    texts: Sequence[str], context: StepContext, score: Callable[[pa.Table], pa.Table]
) -> Iterator[Game]:
    """Yield each text with the values of all its coalitions of words, by deletion.

    Args:
        texts: Of few words: 2^F sequences each.
        context: Prompt, labels and tokenizer, from a plan.
        score: A host's `score`.

    Raises:
        RuntimeError: The host can't score a row.
    """
    tokenizer = load_tokenizer(context.tokenizer)
    for text in texts:
        features = split_features({"text": text}, "words")
        masker = Masker(
            context.template,
            tokenizer,
            {"text": text},
            features,
            Operator("delete"),
            masked_on("words", "delete"),
            context.max_tokens,
        )
        masked = masker.apply(everything(len(features)))
        log_probs = np.concatenate(
            [
                _score(masked.sequences[start : start + CHUNK], context, score)
                for start in range(0, len(masked.sequences), CHUNK)
            ]
        )
        yield Game(text, len(features), transform(log_probs[masked.row], "log_odds"))


def _score(
    sequences: Sequence[Sequence[int]],
    context: StepContext,
    score: Callable[[pa.Table], pa.Table],
) -> FloatCL:
    task = schema.ScoreTask(tuple(tuple(ids) for ids in context.labels.token_ids))
    rows = len(sequences)
    reply = score(schema.score_request([0] * rows, sequences, [None] * rows, task))
    for error in reply.column("error").to_pylist():
        if error is not None:
            raise RuntimeError(f"the host can't score a text of the bench: {error}")
    return np.array(reply.column("log_probs").to_pylist(), dtype=np.float64)


def texts_of(examples: Sequence[Example], variable: str = "text") -> list[str]:
    """Return the examples' texts."""
    return [example.fields[variable] for example in examples]
