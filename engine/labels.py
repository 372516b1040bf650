"""Label strings and their tokens, found where they stand: after the prompt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import ConfigError
from engine.tokens import Tokenizer

if TYPE_CHECKING:
    from engine.prompts import PromptTemplate

PROBES = ("good", "Was it worth 20? No.", "ça va 🙂")
"""Texts that end in a letter, a full stop, an emoji: a label's tokens must not depend on them."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The answers of a prompt, in their order.

    Attributes:
        names: What data and reports call them [L].
        strings: What the model is asked to say [L].
        token_ids: Tokens of each string after the prompt [L].
    """

    names: tuple[str, ...]
    strings: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest label."""
        return max(len(ids) for ids in self.token_ids)


def resolve_labels(
    template: PromptTemplate, tokenizer: Tokenizer, labels: Mapping[str, str]
) -> LabelSet:
    """Return the labels with their tokens, taken from prompt and label tokenized together.

    Args:
        template: Of the prompt they answer.
        tokenizer: Of the model.
        labels: Label name -> label string.

    Raises:
        ConfigError: There are no labels; one is empty, equal to another, the beginning of another
            (as text or as tokens), or joined by the tokenizer to the end of the prompt.
    """
    _check_strings(labels)
    strings = list(labels.values())
    found: list[list[tuple[int, ...]]] = []
    for probe in PROBES:
        fields = dict.fromkeys(template.variables, probe)
        texts = [template.render(fields), *(template.complete(fields, s) for s in strings)]
        prompt, *completed = tokenizer.encode_batch(texts, template.add_special_tokens)
        for string, ids in zip(strings, completed, strict=True):
            if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
                raise ConfigError(why_joined(template, tokenizer, texts[0], string))
        found.append([tuple(ids[len(prompt) :]) for ids in completed])
    for string, *ids in zip(strings, *found, strict=True):
        if len(set(ids)) > 1:
            raise ConfigError(
                f"the tokens of the label {string!r} depend on the text before it: put some fixed "
                "text, for example a line break and a word, between the last field and the label"
            )
    token_ids = found[0]
    _check_prefixes(list(labels), token_ids, "its tokens are")
    return LabelSet(tuple(labels), tuple(strings), tuple(token_ids))


def _check_strings(labels: Mapping[str, str]) -> None:
    if not labels:
        raise ConfigError("the prompt has no labels: give at least one, as name: string")
    for name, string in labels.items():
        if not string:
            raise ConfigError(f"the string of the label {name!r} is empty")
    _check_prefixes(list(labels), list(labels.values()), "it is")


def _check_prefixes(
    names: list[str], values: Sequence[str] | Sequence[tuple[int, ...]], what: str
) -> None:
    """Refuse a value that another begins with: its probability would include the other's."""
    order = sorted(range(len(names)), key=lambda i: values[i])
    # whatever lies between a prefix and its extension in this order has the prefix as well
    for first, second in itertools.pairwise(order):
        short, long = values[first], values[second]
        if short == long:
            raise ConfigError(f"the labels {names[first]!r} and {names[second]!r} are the same")
        if long[: len(short)] == short:
            raise ConfigError(
                f"the label {names[first]!r} can't be told from {names[second]!r}: {what} the "
                "beginning of the other's; choose strings of which none begins with another"
            )


def why_joined(template: PromptTemplate, tokenizer: Tokenizer, prompt: str, string: str) -> str:
    """Return why a string has no tokens of its own behind a prompt, and what to do."""
    if template.add_special_tokens:
        bare, with_label = tokenizer.encode_batch([prompt, prompt + string], False)
        if with_label[: len(bare)] == bare and len(with_label) > len(bare):
            return (
                "the tokenizer ends every text with a token of its own, so no label can follow: "
                "set the prompt's add_special_tokens to false"
            )
    joined = f"the tokenizer joins the label {string!r} to the end of the prompt {prompt[-12:]!r}: "
    if prompt[-1:].isspace():
        return (
            joined
            + f"take the white space off the prompt's end and write {' ' + string.lstrip()!r}"
        )
    if not string[0].isspace():
        return joined + f"add a leading space, {' ' + string!r}"
    return joined + "end the prompt or begin the label with another character"
