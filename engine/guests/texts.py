"""Evaluations named by their text: one input field is what a guest wrote, the others stay.

A text stands in the pools as a coalition of 128 bits, the head of its SHA-256, so that answers,
requests and the store treat it like any other evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import ExampleError
from engine.masking import MaskedInputs
from engine.pool import keys
from engine.prompts import PromptTemplate
from engine.ragged import Ragged
from engine.seeds import digest
from engine.tokens import Tokenizer
from engine.types import BoolCF

BITS = 128


def text_rows(texts: Sequence[str]) -> BoolCF:
    """Return the rows [n, BITS] that stand for these texts."""
    heads = b"".join(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[: BITS // 8]
        for text in texts
    )
    packed = np.frombuffer(heads, np.uint8).reshape(len(texts), BITS // 8)
    return np.unpackbits(packed, axis=1).astype(bool)


def text_space_key(field: str) -> str:
    """Return the key of the space of all texts of a field."""
    return digest(["text", field])


class TextMasker:
    """Renders the texts of one query.

    Args:
        template: Renders the prompt.
        tokenizer: Of the model.
        fields: Input field -> text.
        field: The one that is replaced.
        max_tokens: Longest sequence the model can be given.
        texts: By their rows' keys.
    """

    def __init__(
        self,
        template: PromptTemplate,
        tokenizer: Tokenizer,
        fields: Mapping[str, str],
        field: str,
        max_tokens: int,
        texts: Mapping[bytes, str],
    ) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._fields = fields
        self._field = field
        self._max_tokens = max_tokens
        self._texts = texts

    def apply(self, rows: BoolCF) -> MaskedInputs:
        """Return the sequences of distinct `rows` [n, BITS].

        Raises:
            ExampleError: `too_long`: a text makes a prompt longer than the model's window.
        """
        texts = [self._texts[key] for key in keys(rows)]
        prompts = [self._template.render({**self._fields, self._field: text}) for text in texts]
        encoded = self._tokenizer.encode_batch(prompts, self._template.add_special_tokens)
        longest = max(map(len, encoded), default=0)
        if longest > self._max_tokens:
            raise ExampleError(
                "too_long",
                f"a text the guest made gives a prompt of {longest} tokens, the limit is "
                f"{self._max_tokens}: shorten the text, or take a model with a longer window",
            )
        index: dict[tuple[int, ...], int] = {}
        place = [index.setdefault(tuple(ids), len(index)) for ids in encoded]
        return MaskedInputs(Ragged.of(index), None, np.array(place, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class TextSpace:
    """The texts of one field; stands where `engine.session.Space` does when values are asked."""

    key: str
    masker: TextMasker
    n_features: int = BITS
