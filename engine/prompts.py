"""The one renderer of prompts: prediction, explanation and training all use it.

A template is a sequence of literal texts and field slots. Rendering joins them, so the place of
each field in the prompt is known exactly, whatever the user's text holds.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from engine.errors import ConfigError, ExampleError
from engine.labels import LabelSet, resolve_labels

__all__ = [
    "LabelSet",
    "Message",
    "PromptTemplate",
    "Slot",
    "few_shot",
    "from_chat",
    "parse_template",
    "resolve_labels",
]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKENS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Message: TypeAlias = dict[str, str]
"""One turn of a chat: `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of an input field in a template."""

    name: str


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Literal texts and field slots, in order.

    Attributes:
        pieces: Strings are literal. Each field has one slot, so that its tokens are known.
        add_special_tokens: Whether the tokenizer adds its own (a chat template writes them itself).

    Raises:
        ConfigError: The template has no slot, or two slots of one field.
    """

    pieces: tuple[str | Slot, ...]
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        names = self.variables
        if not names:
            raise ConfigError("the prompt has no slot for the text: write {text} where it belongs")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"the prompt has the slot {{{twice[0]}}} more than once: use each field once"
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the fields, in the order of their slots."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Slot))

    def render(self, fields: Mapping[str, str]) -> str:
        """Return the prompt; braces and special-token strings in a field stay what they are.

        Raises:
            ExampleError: A field is missing.
        """
        return "".join(self._parts(fields))

    def locate(self, fields: Mapping[str, str]) -> dict[str, int]:
        """Return where each field starts in the rendered prompt, in characters.

        Raises:
            ExampleError: A field is missing.
        """
        starts: dict[str, int] = {}
        position = 0
        for piece, part in zip(self.pieces, self._parts(fields), strict=True):
            if isinstance(piece, Slot):
                starts[piece.name] = position
            position += len(part)
        return starts

    def complete(self, fields: Mapping[str, str], label_string: str) -> str:
        """Return the prompt with its answer, as training and few-shot examples see it."""
        return self.render(fields) + label_string

    def _parts(self, fields: Mapping[str, str]) -> list[str]:
        try:
            return [fields[p.name] if isinstance(p, Slot) else p for p in self.pieces]
        except KeyError as error:
            raise ExampleError(
                "missing_field",
                f"the prompt needs the field {error.args[0]!r}, the example has {sorted(fields)}",
            ) from None


def parse_template(
    text: str, known: Collection[str] | None = None, add_special_tokens: bool = True
) -> PromptTemplate:
    """Return the template of `text`.

    Args:
        text: Slots are `{name}`; `{{` and `}}` stand for braces.
        known: Fields that exist; None accepts any name.
        add_special_tokens: See `PromptTemplate`.

    Raises:
        ConfigError: A slot is malformed or unknown, used twice, or there is none.

    Example:
        >>> parse_template("Review: {text}").render({"text": "so {good}"})
        'Review: so {good}'
    """
    return PromptTemplate(_pieces(text, known), add_special_tokens)


def slot_names(text: str) -> frozenset[str]:
    """Return the fields that a template's text has slots for; see `parse_template`.

    Raises:
        ConfigError: A slot is malformed.
    """
    return frozenset(piece.name for piece in _pieces(text, None) if isinstance(piece, Slot))


def few_shot(
    template: PromptTemplate,
    examples: Sequence[tuple[Mapping[str, str], str]],
    labels: Mapping[str, str],
    separator: str = "\n\n",
) -> PromptTemplate:
    """Return `template` with solved examples in front of it, each followed by `separator`.

    Args:
        template: Of the example to be solved, and of those in front.
        examples: Fields and label name of each, in their order.
        labels: Label name -> label string.
        separator: Between two examples.

    Raises:
        ConfigError: An example has an unknown label.
    """
    front = ""
    for number, (fields, label) in enumerate(examples, 1):
        if label not in labels:
            raise ConfigError(
                f"few-shot example {number} has the label {label!r}; the labels are {list(labels)}"
            )
        front += template.complete(fields, labels[label]) + separator
    return PromptTemplate(_joined([front, *template.pieces]), template.add_special_tokens)


def from_chat(
    messages: Sequence[Message], render: Callable[[list[Message]], str]
) -> PromptTemplate:
    """Return the template that a tokenizer's chat template makes of `messages`.

    The chat template runs once, with a marker in the place of each field, and what it returns is
    split at the markers. Chat templates that strip a message's content therefore never strip a
    field's own white space. Special tokens are in the text, so none are added later.

    Args:
        messages: Their contents are templates as of `parse_template`.
        render: The tokenizer's chat template, with the opening of the answer.

    Raises:
        ConfigError: A content is malformed, or the chat template changes, drops or repeats a field.
    """
    contents = [_pieces(message["content"], None) for message in messages]
    # the marker of a field depends on all messages, so that none of them can hold it
    seed = repr([sorted(message.items()) for message in messages]).encode()
    names = [piece.name for pieces in contents for piece in pieces if isinstance(piece, Slot)]
    PromptTemplate(tuple(Slot(name) for name in names))  # checks them before anything is rendered
    marker = {
        name: "field" + hashlib.sha256(seed + name.encode()).hexdigest()[:24] for name in names
    }
    filled = [
        {**m, "content": "".join(marker[p.name] if isinstance(p, Slot) else p for p in pieces)}
        for m, pieces in zip(messages, contents, strict=True)
    ]
    text = render(filled)
    for name, mark in marker.items():
        if (count := text.count(mark)) != 1:
            raise ConfigError(
                f"the chat template {'drops or changes' if count == 0 else 'repeats'} the field "
                f"{{{name}}} (found {count} times): use a plain template for this model"
            )
    parts = re.split("(" + "|".join(marker.values()) + ")", text)
    field_of = {mark: Slot(name) for name, mark in marker.items()}
    return PromptTemplate(_joined([field_of.get(part, part) for part in parts]), False)


def _pieces(text: str, known: Collection[str] | None) -> tuple[str | Slot, ...]:
    pieces: list[str | Slot] = []
    end = 0
    for match in _TOKENS.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
        else:
            pieces.append(_slot(match[1], text, match.start(), known))
    return _joined([*pieces, text[end:]])


def _slot(name: str | None, text: str, start: int, known: Collection[str] | None) -> Slot:
    line = text.count("\n", 0, start) + 1
    place = f"the prompt, line {line}, column {start - text.rfind(chr(10), 0, start)}"
    if name is None:
        raise ConfigError(f"{place}: a single {text[start]!r}; write it twice to mean the brace")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: {{{name}}} is no field name; write {{{{ }}}} to mean braces")
    if known is not None and name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {{{near[0]}}}?" if near else f"the fields are {sorted(known)}"
        raise ConfigError(f"{place}: there is no field {name!r}; {hint}")
    return Slot(name)


def _joined(pieces: Sequence[str | Slot]) -> tuple[str | Slot, ...]:
    """Return `pieces` with neighbouring texts as one and without empty ones."""
    joined: list[str | Slot] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return tuple(joined)
