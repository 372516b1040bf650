"""What a step is given: the unit of work, and the context that all units of a pair share.

A *pair* is a model (with its precision and adapter) and a prompt: what evaluations belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.commits import CommittedPart
from engine.errors import ExampleError
from engine.prompts import LabelSet, PromptTemplate
from engine.seeds import derive, digest
from engine.target import Normaliser
from engine.types import Example, FeatureKind, OperatorName, Target


@dataclass(frozen=True, slots=True)
class ExplainerTask:
    """One explainer of the sweep, resolved.

    Attributes:
        label: Its name in tables.
        name: The method.
        params: The method's parameters, `sampling` decided.
        seed: Seed of the coalitions.
        class_rule: `predicted`, `gold` or `label:NAME`; of continuations `whole` or `token:N`.
        game: Names of features and operator in tables where they are not those of the settings:
            of guests that split and mask by themselves.
    """

    label: str
    name: str
    params: Mapping[str, Any]
    features: FeatureKind
    operator: OperatorName
    replacement: str | None
    target: Target
    class_rule: str
    seed: int
    game: tuple[str, str] | None = None

    @property
    def compat(self) -> str | None:
        """The library whose results are reproduced, or None."""
        return self.params.get("compat")

    @property
    def pooled(self) -> bool:
        """Whether its coalitions are those of the shared pool."""
        return self.params.get("sampling") == "pool"

    @property
    def space(self) -> tuple[str, str]:
        """What explainers must have in common to share coalitions: features and operator."""
        return self.feature_space, self.operator_name

    def coalition_seed(self, example: str, space: str) -> int:
        """Return the seed of its draws for an example; a compat profile takes its own as it is.

        Args:
            example: From `engine.data.shown_key`.
            space: Key of its features and operator.
        """
        if self.compat:
            return self.seed % 2**32
        purpose = ("pool",) if self.pooled else ("explainer", self.name)
        return derive(*purpose, self.seed, example, space) % 2**32

    @property
    def method(self) -> str:
        """The method with its profile, as tables name it."""
        return f"{self.name}[compat:{self.compat}]" if self.compat else self.name

    @property
    def bag_of_words(self) -> bool:
        """Whether one feature is all occurrences of a word, as in `lime`."""
        return self.compat == "lime" and self.features == "words"

    @property
    def feature_space(self) -> str:
        """The feature space's name in tables."""
        if self.game is not None:
            return self.game[0]
        return "word_types" if self.bag_of_words else self.features

    @property
    def operator_name(self) -> str:
        """The operator's name in tables, with its string where it has one."""
        if self.game is not None:
            return self.game[1]
        keep = "delete:keep_separators" if self.operator == "delete" and self.compat else None
        if self.replacement is not None:
            return f"{self.operator}:{self.replacement}"
        return keep or self.operator


@dataclass(frozen=True, slots=True)
class FaithfulnessTask:
    """Parameters of the deletion metrics."""

    fractions: tuple[float, ...]
    random_orders: int
    curve_points: int


MOST_TOKENS = 256
"""Longest continuation: what a host keeps of a coalition grows with the square of its length."""


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """What is explained in place of labels: a continuation of the prompt.

    Attributes:
        given: Input field that has it; None for the model's own.
        max_new_tokens: Most tokens of the model's own.
    """

    given: str | None
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Continuation:
    """What follows the full prompt of one example.

    Attributes:
        ids: Its tokens [T], at least one.
        texts: Text of each [T]; a character of several tokens is U+FFFD in each.
        text: Text of the whole.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    text: str

    def column(self, rule: str) -> int:
        """Return which of the values [T + 1] a class rule means: `whole` or `token:N`.

        Raises:
            ExampleError: `no_such_token`.
        """
        if rule == "whole":
            return len(self.ids)
        number = int(rule.removeprefix("token:"))
        if number >= len(self.ids):
            raise ExampleError(
                "no_such_token",
                f"class: {number}, but the continuation has {len(self.ids)} tokens, counted from 0",
            )
        return number


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all units of one pair share.

    Attributes:
        factors: Values of `engine.schema.FACTORS`.
        template: The prompt.
        labels: The label set with token ids; of a continuation its beginnings.
        tokenizer: Specification for `engine.tokens.load_tokenizer`.
        max_tokens: The model's window.
        content_free: Inputs of the contextual calibration; empty for none.
        explainers: In the order of the configuration.
        faithfulness: None leaves the deletion metrics out.
        seed: The run's seed.
        store: Folder of this pair's evaluations.
        by_example: See `ScoreTask`.
        generation: What is explained if there are no labels, or None.
        continuation: That of the unit's example, once it is known.
        adapter: Digest of the adapter to switch on, or "" for the base.
    """

    factors: Mapping[str, str]
    template: PromptTemplate
    labels: LabelSet
    tokenizer: str
    max_tokens: int
    normaliser: Normaliser
    content_free: tuple[str, ...]
    explainers: tuple[ExplainerTask, ...]
    faithfulness: FaithfulnessTask | None
    seed: int
    store: str
    by_example: bool = False
    generation: GenerationTask | None = None
    continuation: Continuation | None = None
    adapter: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What the explained values are of: the labels, or the tokens and then the whole."""
        if self.continuation is None:
            return self.labels.names
        return (*self.continuation.texts, self.continuation.text)

    @property
    def store_suffix(self) -> str:
        """Ends the names of spaces in the store, whose values are of one continuation only.

        Seeds are made from the names without it: models that go on otherwise draw alike.
        """
        return "" if self.continuation is None else f"|{digest(list(self.continuation.ids))}"


@dataclass(frozen=True, slots=True)
class Unit:
    """A shard of the examples of one pair: what is scheduled, retried and committed as one.

    Attributes:
        id: Digest of the pair and the examples.
        pair: Key of the pair in the plan.
        examples: The examples.
        stored: Row groups of the store that hold evaluations of them.
        explain: Whether they are explained, or predicted only.
    """

    id: str
    pair: str
    examples: tuple[Example, ...]
    stored: tuple[CommittedPart, ...] = field(default=())
    explain: bool = True
