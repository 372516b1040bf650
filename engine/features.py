"""Features: spans of the user's text that are kept or removed as one, and which tokens they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from engine.errors import ConfigError
from engine.graphemes import CharKind, Grapheme, graphemes
from engine.prompts import PromptTemplate
from engine.sentences import sentences
from engine.tokens import Encoded, Tokenizer
from engine.types import Feature, FeatureKind, Span

LIME_SPLIT = r"\W+"
"""`split_expression` of `lime.lime_text` (lime 0.2.0.1)."""

_IN_WORDS = frozenset("'’‘-‐‑_")
_IN_NUMBERS = frozenset(".,:")
_ASCII_WORD = re.compile(
    r"[A-Za-z0-9]+(?:(?:['_-](?=[A-Za-z0-9])|(?<=[0-9])[.,:](?=[0-9]))[A-Za-z0-9]+)*"
)
"""A word where every character is a grapheme and none is a symbol."""


def split_features(
    fields: Mapping[str, str],
    kind: FeatureKind,
    *,
    bag_of_words: bool = False,
    split_expression: str | None = None,
    punctuation: bool = False,
    template: PromptTemplate | None = None,
    tokenizer: Tokenizer | None = None,
) -> tuple[Feature, ...]:
    """Return the features of the user's text, in its order; of empty text there are none.

    - `words`: letters and digits with the marks, apostrophes and hyphens inside them; a symbol such
      as an emoji is a word of its own; punctuation is context. A script without spaces between its
      words gives one word a run: use `tokens` for it.
    - `sentences`: see `engine.sentences`.
    - `tokens`: the spans of the tokens in the prompt, without the template's characters. Tokens
      that share a character are one feature. A token that reaches into the template counts if it
      holds a visible character of the user's.

    Args:
        fields: Input field -> text.
        kind: What a feature is.
        bag_of_words: All occurrences of a word, case-sensitive and over all fields, are one feature
            (lime's `bow=True`); words only.
        split_expression: Words are what lies between the matches, as in `lime.lime_text`.
        punctuation: Runs of punctuation are features as well; words only.
        template: Says which fields are features, in which order; None takes all of `fields`.
        tokenizer: Of the model; tokens only, with `template`.

    Raises:
        ConfigError: The split expression is no regular expression, or matches the empty text.
    """
    if kind == "tokens":
        if template is None or tokenizer is None:
            raise ValueError("features of kind 'tokens' need the template and the tokenizer")
        encoded = tokenizer.encode_with_offsets(
            template.render(fields), template.add_special_tokens
        )
        return _tokens(fields, encoded, template.locate(fields))
    spans = []
    for name in fields if template is None else template.variables:
        if kind == "sentences":
            pairs = sentences(fields[name])
        elif split_expression is not None:
            pairs = _between(fields[name], split_expression)
        else:
            pairs = _words(fields[name], punctuation)
        spans += [Span(start, end, name) for start, end in pairs]
    if bag_of_words and kind == "words":
        return _by_word(fields, spans)
    return _features(fields, spans)


def align(
    features: Sequence[Feature], encoded: Encoded, starts: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    """Return the positions of each feature's tokens: those that share a character with it.

    Args:
        features: Spans in their fields.
        encoded: The rendered prompt.
        starts: Field -> its first character in the prompt (`PromptTemplate.locate`).
    """
    offsets = np.array(encoded.offsets, dtype=np.int64).reshape(-1, 2)
    positions = []
    for feature in features:
        inside = np.zeros(len(offsets), dtype=bool)
        for start, end, field in feature.spans:
            first, last = starts[field] + start, starts[field] + end
            inside |= (offsets[:, 0] < last) & (offsets[:, 1] > first)
        # a token that stands for no character has an empty span
        inside &= offsets[:, 0] < offsets[:, 1]
        positions.append(tuple(np.flatnonzero(inside).tolist()))
    return tuple(positions)


def _features(fields: Mapping[str, str], spans: Sequence[Span]) -> tuple[Feature, ...]:
    return tuple(Feature((s,), fields[s.field][s.start : s.end]) for s in spans)


def _by_word(fields: Mapping[str, str], spans: Sequence[Span]) -> tuple[Feature, ...]:
    places: dict[str, list[Span]] = {}
    for span in spans:
        places.setdefault(fields[span.field][span.start : span.end], []).append(span)
    return tuple(Feature(tuple(found), word) for word, found in places.items())


def _between(text: str, expression: str) -> list[tuple[int, int]]:
    try:
        splitter = re.compile(expression)
    except re.error as error:
        raise ConfigError(
            f"split_expression {expression!r} is no regular expression: {error}"
        ) from None
    if splitter.fullmatch(""):
        raise ConfigError(
            f"split_expression {expression!r} matches the empty text: use + instead of *"
        )
    pairs = []
    start = 0
    for match in splitter.finditer(text):
        pairs.append((start, match.start()))
        start = match.end()
    pairs.append((start, len(text)))
    return [(start, end) for start, end in pairs if start < end]


def _words(text: str, punctuation: bool) -> list[tuple[int, int]]:
    if text.isascii() and not punctuation:
        return [match.span() for match in _ASCII_WORD.finditer(text)]
    parts = graphemes(text)
    pairs: list[tuple[int, int]] = []
    running: CharKind | None = None  # kind of the run that the next grapheme may continue
    for i, part in enumerate(parts):
        kind = part.kind
        if kind is CharKind.PUNCTUATION and running is CharKind.WORD and _joins(text, parts, i):
            kind = CharKind.WORD
        if kind is CharKind.SPACE or (kind is CharKind.PUNCTUATION and not punctuation):
            running = None
            continue
        if kind is running and kind is not CharKind.SYMBOL:
            pairs[-1] = (pairs[-1][0], part.end)
        else:
            pairs.append((part.start, part.end))
        running = kind
    return pairs


def _joins(text: str, parts: Sequence[Grapheme], i: int) -> bool:
    """Whether punctuation after a word's grapheme continues the word: don't, well-made, 3.5."""
    if i + 1 == len(parts) or parts[i + 1].kind is not CharKind.WORD:
        return False
    mark = text[parts[i].start : parts[i].end]
    if mark in _IN_NUMBERS:
        return text[parts[i - 1].start].isdigit() and text[parts[i + 1].start].isdigit()
    return mark in _IN_WORDS and parts[i - 1].kind is CharKind.WORD


def _tokens(
    fields: Mapping[str, str], encoded: Encoded, starts: Mapping[str, int]
) -> tuple[Feature, ...]:
    spans: list[Span] = []
    for name, first in starts.items():
        last = first + len(fields[name])
        clipped = sorted(
            (max(start, first) - first, min(end, last) - first)
            for start, end in encoded.offsets
            if start < last and end > first and start < end
            if (first <= start and end <= last)
            or not fields[name][max(start, first) - first : min(end, last) - first].isspace()
        )
        for start, end in clipped:
            if spans and spans[-1].field == name and start < spans[-1].end:
                spans[-1] = spans[-1]._replace(end=max(end, spans[-1].end))
            else:
                spans.append(Span(start, end, name))
    return _features(fields, spans)
