"""Characters as a reader sees them: marks stay with their base, an emoji sequence is one.

A compact form of the extended grapheme clusters of Unicode Standard Annex 29, exact for what the
splitting of texts needs: combining marks, joiners, variation selectors, skin tones, flags, keycaps.
Hangul syllables in parts and Indic conjuncts are runs of letters and marks, which words keep whole.
"""

from __future__ import annotations

import unicodedata
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

_JOINER = "\u200d"
_KEYCAP = "\u20e3"
_EMOJI_STYLE = "\ufe0f"
# soft hyphen, Arabic letter mark, the two joiners, direction marks, word joiner
_INVISIBLE = frozenset("\u00ad\u061c\u200c\u200d\u200e\u200f\u2060")


class CharKind(Enum):
    """What a character, or the grapheme it begins, is to the splitting of texts."""

    SPACE = "space"
    WORD = "word"
    SYMBOL = "symbol"
    PUNCTUATION = "punctuation"
    EXTEND = "extend"


class Grapheme(NamedTuple):
    """Characters [start, end) of a text that a reader sees as one; never EXTEND."""

    start: int
    end: int
    kind: CharKind


@lru_cache(maxsize=4096)
def kind_of(character: str) -> CharKind:
    """Return the kind of one character.

    Letters and digits of all scripts are WORD. Pictures (emoji, stars, ™), private and yet unknown
    characters are SYMBOL. Signs of currency and mathematics are PUNCTUATION, as are controls.
    """
    if character.isspace():
        return CharKind.SPACE
    category = unicodedata.category(character)
    skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    tag = "\U000e0020" <= character <= "\U000e007f"
    if category[0] == "M" or character in _INVISIBLE or skin_tone or tag:
        return CharKind.EXTEND
    if character.isalnum():
        return CharKind.WORD
    if category in ("So", "Co", "Cn"):
        return CharKind.SYMBOL
    return CharKind.PUNCTUATION


def graphemes(text: str) -> list[Grapheme]:
    """Return the graphemes of `text`; together they are the whole of it.

    White space takes no marks, so that it can always be removed: a mark after it stands alone.
    """
    found: list[Grapheme] = []
    start = 0
    while start < len(text):
        end = _end(text, start)
        found.append(Grapheme(start, end, _kind(text[start:end])))
        start = end
    return found


def _end(text: str, start: int) -> int:
    base = kind_of(text[start])
    end = start + 1
    if base is CharKind.SPACE:
        return end
    if _is_flag_letter(text[start]) and end < len(text) and _is_flag_letter(text[end]):
        end += 1
    while end < len(text):
        kind = kind_of(text[end])
        joined = text[end - 1] == _JOINER and base is kind is CharKind.SYMBOL
        if kind is not CharKind.EXTEND and not joined:
            break
        end += 1
    return end


def _kind(grapheme: str) -> CharKind:
    base = kind_of(grapheme[0])
    if _KEYCAP in grapheme:
        return CharKind.SYMBOL
    if base is CharKind.PUNCTUATION and _EMOJI_STYLE in grapheme:
        return CharKind.SYMBOL
    return CharKind.PUNCTUATION if base is CharKind.EXTEND else base


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
