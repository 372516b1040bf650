"""Choices between two options, asked in both orders through the ordinary score path.

A model that is asked "A or B?" leans towards a letter or a place. Each question is therefore asked
twice, with the options swapped: the mean of the two log-odds keeps what belongs to the options, and
the lean cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.errors import ConfigError
from engine.labels import LabelSet, resolve_labels
from engine.prompts import PromptTemplate
from engine.schema import ScoreTask, score_request
from engine.tokens import Tokenizer

LETTERS = {"A": " A", "B": " B"}
"""The two answers, and what the model is asked to say."""


class Question(NamedTuple):
    """One choice to be made.

    Attributes:
        fields: What the template needs besides the two options.
        options: The two texts.
    """

    fields: Mapping[str, str]
    options: tuple[str, str]


class Choice(NamedTuple):
    """What a model chose.

    Attributes:
        log_odds: Of the first option over the second, in nats: the mean over the two orders.
        in_order: The same with the options as given.
        swapped: The same with the second option in the first place.
    """

    log_odds: float
    in_order: float
    swapped: float

    @property
    def chosen(self) -> int:
        """Index of the option of the higher log-odds; the first where they are equal."""
        return int(self.log_odds < 0)

    @property
    def orders_agree(self) -> bool:
        """Whether the same option is chosen in both orders."""
        return (self.in_order < 0) == (self.swapped < 0)

    @property
    def lean(self) -> float:
        """Log-odds of the first place over the second, whatever stands there, in nats."""
        return (self.in_order - self.swapped) / 2


@dataclass(frozen=True, slots=True)
class ChoiceFrame:
    """How questions are put to one model.

    Attributes:
        template: Of the prompt, with the slots `slots` and those of the questions' fields.
        labels: The two letters with their tokens behind the prompt.
        slots: Where the options stand: first and second place.
    """

    template: PromptTemplate
    labels: LabelSet
    slots: tuple[str, str] = ("option_a", "option_b")

    def prompts(self, question: Question) -> tuple[str, str]:
        """Return a question as given, and with its options swapped.

        Raises:
            ExampleError: A field of the template is missing.
        """
        first, second = self.slots
        a, b = question.options
        return (
            self.template.render({**question.fields, first: a, second: b}),
            self.template.render({**question.fields, first: b, second: a}),
        )


def choice_frame(
    template: PromptTemplate,
    tokenizer: Tokenizer,
    letters: Mapping[str, str] = LETTERS,
    slots: tuple[str, str] = ("option_a", "option_b"),
) -> ChoiceFrame:
    """Return how questions are put to a model.

    Args:
        template: Of the prompt, ending where the letter belongs.
        tokenizer: Of the model.
        letters: Name -> string of the answers that mean the first and the second place.
        slots: Where the options stand.

    Raises:
        ConfigError: A slot is missing, there aren't two letters, or they can't be told apart behind
            the prompt.
    """
    missing = [slot for slot in slots if slot not in template.variables]
    if missing:
        raise ConfigError(
            f"the prompt of a choice has no slot {{{missing[0]}}}: write both options into it"
        )
    if len(letters) != 2:
        raise ConfigError(f"a choice is between two letters, got {list(letters)}")
    return ChoiceFrame(template, resolve_labels(template, tokenizer, letters), slots)


def choose(
    questions: Sequence[Question],
    frame: ChoiceFrame,
    tokenizer: Tokenizer,
    score: Callable[[pa.Table], pa.Table],
    adapter: str = "",
) -> list[Choice | str]:
    """Return what a model chooses, or why it can't, a question each.

    Args:
        questions: What is asked.
        frame: How it is asked.
        tokenizer: Of the model.
        score: The host's `score`, whatever serves it.
        adapter: Digest of the adapter that answers, or "" for the base.

    Raises:
        ExampleError: A field of the template is missing.
    """
    if not questions:
        return []
    texts = [text for question in questions for text in frame.prompts(question)]
    rows = tokenizer.encode_batch(texts, frame.template.add_special_tokens)
    task = ScoreTask(frame.labels.token_ids, adapter)
    examples = np.repeat(np.arange(len(questions)), 2)
    return read_choices(score(score_request(examples, rows, None, task)))


def read_choices(reply: pa.Table) -> list[Choice | str]:
    """Return the choices in a reply whose rows are questions in both orders, in turn.

    Args:
        reply: A table of `engine.schema.SCORE_REPLY` with two labels [2·Q].
    """
    errors = reply.column("error").to_pylist()
    log_probs = reply.column("log_probs").to_pylist()
    found: list[Choice | str] = []
    for row in range(0, len(errors), 2):
        error = errors[row] or errors[row + 1]
        if error is not None:
            found.append(error)
            continue
        (a, b), (a_swapped, b_swapped) = log_probs[row], log_probs[row + 1]
        in_order, swapped = a - b, b_swapped - a_swapped
        found.append(Choice((in_order + swapped) / 2, in_order, swapped))
    return found
