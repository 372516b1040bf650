"""What planning must know of models and adapters, without loading weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

UNTRAINED = "untrained "
"""Begins what stands for an adapter's digest before it is trained; its training's follows."""


class AdapterFacts(NamedTuple):
    """An adapter that is at hand.

    Attributes:
        digest: Of its weights and their configuration.
        path: Folder of its files.
        warning: What may be wrong with it on this model; "" if nothing is known to be.
    """

    digest: str
    path: str
    warning: str = ""

    @property
    def is_untrained(self) -> bool:
        """Whether it is still to be trained; its digest then stands for the one to come."""
        return self.digest.startswith(UNTRAINED)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that is at hand.

    Attributes:
        digest: Of the weights and their configuration.
        tokenizer: Specification for `engine.tokens.load_tokenizer`.
        max_tokens: The model's window.
        chat: Renders messages by the model's chat template, or None if it has none.
        parameters: Number of weights, or None where it isn't known before loading.
        quantized: Method of a checkpoint that is quantized already, or None.
        adapters: By name in tables, those that can be served; the base isn't among them.
    """

    digest: str
    tokenizer: str
    max_tokens: int
    chat: Callable[[list[dict[str, str]]], str] | None = None
    parameters: int | None = None
    quantized: str | None = None
    adapters: Mapping[str, AdapterFacts] = field(default_factory=dict)


class Lost(NamedTuple):
    """A model, one of its adapters, or a prompt for it, that can't be had.

    Attributes:
        model: Its name in tables.
        precision: Its number format.
        adapter: The adapter's name, or "" where it is the model.
        code: What kind of failure.
        message: What was tried, and what to do.
        prompt: The prompt's name, where the model goes with others.
    """

    model: str
    precision: str
    adapter: str
    code: str
    message: str
    prompt: str = ""

    @property
    def place(self) -> str:
        """Model, precision and adapter, for people; the message of a prompt names that."""
        return f"{self.model}/{self.precision}" + (f" with {self.adapter}" if self.adapter else "")


def all_of(lost: Sequence[Lost]) -> str:
    """Return one message of all; what is the same for each is said once."""
    messages = dict.fromkeys(each.message for each in lost)
    if len(messages) == 1:
        return next(iter(messages))
    return "\n".join(f"{each.place}: {each.message}" for each in lost)
