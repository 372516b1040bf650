"""Taking spans out of a text, each with one of the separators beside it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.graphemes import CharKind, kind_of


def delete_spans(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return `text` without `spans` and without the white space that they leave over.

    Of the white space before and after a removed span one stays, the one before it where there is
    one. None stays at the ends of the text, nor between a word and the comma that closed up on the
    removed one, nor after a bracket that opened on it. Two words that only the removed one kept
    apart get a space. White space around the whole text stays, except where nothing else does.

    Args:
        text: Of one field.
        spans: Characters [start, end), in order, not overlapping.
    """
    if not spans:
        return text
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    out: list[str] = []
    left = ""  # the kept piece before the seam, if it holds more than white space
    separator = ""
    position = first
    for start, end in [*spans, (last, last)]:
        piece = text[position:start]
        position = end
        core = piece.strip()
        if not core:
            separator = separator or piece
            continue
        lead = piece[: len(piece) - len(piece.lstrip())]
        if out:
            ends = (len(out) == 1 and spans[0][0] > first, start == last)
            out.append(_between(left, separator or lead, piece, *ends))
        out.append(core)
        left, separator = piece, piece[len(piece.rstrip()) :]
    return text[:first] + "".join(out) + text[last:] if out else ""


def is_local(span: str) -> bool:
    """Whether a span that is kept decides alone how the text beside it closes up.

    The rules of `delete_spans` look past punctuation until the first other character. Where every
    span has one and none begins or ends with white space, what is left between two kept spans
    depends on these two and on what was between them, not on what else is kept.
    """
    edges = span[0].isspace() or span[-1].isspace()
    return not edges and not all(map(_is_punctuation, span))


def is_plain(span: str) -> bool:
    """Whether a single space beside the span stays a single space when its neighbour is removed."""
    return span[0].isalnum() and span[-1].isalnum()


def cut_spans(text: str, spans: Sequence[tuple[int, int]], replacement: str = "") -> str:
    """Return `text` with `replacement` in the place of each span, all else unchanged.

    Args:
        text: Of one field.
        spans: Characters [start, end), in order, not overlapping.
        replacement: Empty to remove and keep every separator, as lime does.
    """
    pieces = []
    position = 0
    for start, end in spans:
        pieces.append(text[position:start])
        position = end
    return replacement.join([*pieces, text[position:]])


def _between(left: str, separator: str, right: str, is_first: bool, is_last: bool) -> str:
    """Return what stands between two kept pieces that are not blank."""
    if not right[0].isspace() and _closes(right, is_last):
        return ""
    if not left[-1].isspace() and _opens(left, is_first):
        return ""
    if separator:
        return separator
    apart = _is_punctuation(left[-1]) and _is_punctuation(right[0])
    return "" if apart else " "


def _closes(piece: str, is_last: bool) -> bool:
    """Whether the piece begins with punctuation before white space or the end of the text."""
    for character in piece:
        if not _is_punctuation(character):
            return character.isspace()
    return is_last


def _opens(piece: str, is_first: bool) -> bool:
    """Whether the piece ends with punctuation after white space or the start of the text."""
    for character in reversed(piece):
        if not _is_punctuation(character):
            return character.isspace()
    return is_first


def _is_punctuation(character: str) -> bool:
    return kind_of(character) is CharKind.PUNCTUATION
