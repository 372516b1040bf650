"""Tokenizers as the engine sees them: text to ids with character offsets, and back.

Steps run in tasks that get the text of a `tokenizer.json`; no model library is needed to read it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import tokenizers

from engine.errors import ModelError

BYTES = "bytes"
"""The spec of `ByteTokenizer`."""

_LOADED: dict[str, JsonTokenizer] = {}  # by the spec, whose hash Python keeps; oldest first
_MOST_LOADED = 8


class Encoded(NamedTuple):
    """The tokens of one text.

    Attributes:
        ids: Token ids [T].
        offsets: Characters [start, end) each token stands for [T]. Empty where it stands for none,
            as a token the tokenizer adds; several tokens of one character share its span.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


class Tokenizer(Protocol):
    """What the engine asks of a tokenizer; none of these pads or truncates."""

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text."""

    def encode_with_offsets(self, text: str, add_special_tokens: bool) -> Encoded:
        """Return the ids of one text with the characters they stand for."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""


class JsonTokenizer:
    """A fast tokenizer, read from the text of its `tokenizer.json`.

    A string such as `<|end|>` that the tokenizer knows as special is one token wherever it stands,
    in a template or in a user's text; its offsets are exact all the same.

    Args:
        spec: The JSON text.

    Attributes:
        spec: The JSON text.

    Raises:
        ModelError: The text is no tokenizer.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(_untrimmed(spec))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(
                f"this is not the text of a tokenizer.json ({error}): give the text that "
                "`tokenizer.backend_tokenizer.to_str()` returns"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text."""
        batch = self._tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=add_special_tokens
        )
        return [encoding.ids for encoding in batch]

    def encode_with_offsets(self, text: str, add_special_tokens: bool) -> Encoded:
        """Return the ids of one text with the characters they stand for."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return Encoded(encoding.ids, encoding.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class ByteTokenizer:
    """Ids are the bytes of the text in UTF-8: lossless, needs no file; for the analytic host."""

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Return the bytes of each text; there are no special tokens to add."""
        return [list(text.encode()) for text in texts]

    def encode_with_offsets(self, text: str, add_special_tokens: bool) -> Encoded:
        """Return the bytes of the text; all bytes of a character share its span."""
        if text.isascii():
            return Encoded(list(text.encode()), list(itertools.pairwise(range(len(text) + 1))))
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for position, character in enumerate(text):
            code = character.encode()
            ids.extend(code)
            offsets.extend([(position, position + 1)] * len(code))
        return Encoded(ids, offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        return bytes(ids).decode(errors="replace")


def load_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of `spec`: "bytes", or the text of a `tokenizer.json`.

    Each process reads a text once; the last eight stay.

    Raises:
        ModelError: The text is no tokenizer.
    """
    if spec == BYTES:
        return ByteTokenizer()
    tokenizer = _LOADED.get(spec)
    if tokenizer is None:
        tokenizer = JsonTokenizer(spec)
        if len(_LOADED) >= _MOST_LOADED:
            _LOADED.pop(next(iter(_LOADED)), None)
        _LOADED[spec] = tokenizer
    return tokenizer


def _untrimmed(spec: str) -> str:
    """Return `spec` with offsets that keep white space.

    Byte-level post-processors may trim it, and then a token of spaces has an empty span like a
    token that was added, so that it could neither be aligned nor removed.
    """
    content = json.loads(spec)
    _switch_off_trimming(content.get("post_processor"))
    return json.dumps(content, ensure_ascii=False)


def _switch_off_trimming(processor: dict[str, Any] | None) -> None:
    if processor is None:
        return
    if "trim_offsets" in processor:
        processor["trim_offsets"] = False
    for inner in processor.get("processors", ()):
        _switch_off_trimming(inner)
