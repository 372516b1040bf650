"""A small rule-based splitter of sentences, without a model and without a language's data.

A sentence ends after full stops, question and exclamation marks (with the quotes and brackets that
close after them) before white space, after the full-width marks anywhere, and at line breaks. Not
after a known abbreviation or an initial, nor after an ellipsis that a small letter follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.graphemes import CharKind, kind_of

_END = re.compile(
    r"(?P<mark>[.!?…؟۔।]+)[\"'”’»)\]]*(?=\s|$)"
    r"|[。！？｡]+[」』”’）]*"
    r"|(?P<line>[\r\n]\s*)"
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]+$")
_INITIAL = re.compile(r"[^\W\d_]")
# fmt: off
_ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "e.g", "i.e", "cf", "al",
    "inc", "ltd", "co", "vol", "fig", "approx", "dept", "est",
))
# fmt: on


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the spans of the sentences of `text`, without the white space around them.

    A piece without a letter, digit or symbol belongs to the sentence before it, or to the next.
    """
    spans: list[tuple[int, int]] = []
    for start, end in _pieces(text):
        if spans and not (_says_something(text[start:end]) and _says_something(_of(text, spans))):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _END.finditer(text):
        if match["mark"] and _goes_on(text, start, match):
            continue
        end = match.start() if match["line"] else match.end()
        yield from _stripped(text, start, end)
        start = match.end()
    yield from _stripped(text, start, len(text))


def _goes_on(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether the sentence that began at `start` goes on after these marks."""
    if match["mark"] == ".":
        word = _LAST_WORD.search(text, start, match.start())
        if word is None:
            return False
        name = word[0].lower()
        return name in _ABBREVIATIONS or (
            len(name) == 1 and word[0].isupper() and _INITIAL.match(name) is not None
        )
    if match["mark"] in ("..", "...", "…"):
        return text[match.end() :].lstrip()[:1].islower()
    return False


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _of(text: str, spans: list[tuple[int, int]]) -> str:
    start, end = spans[-1]
    return text[start:end]


def _says_something(piece: str) -> bool:
    return any(kind_of(character) in (CharKind.WORD, CharKind.SYMBOL) for character in piece)
