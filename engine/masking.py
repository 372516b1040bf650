"""From coalitions to token sequences: what the model is shown when features are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.deletion import cut_spans, delete_spans
from engine.errors import ExampleError
from engine.features import align
from engine.pool import keys
from engine.prompts import PromptTemplate
from engine.tokens import Tokenizer
from engine.types import BoolCF, Feature, FeatureKind, OperatorName

MaskedOn: TypeAlias = Literal["text", "ids"]


@dataclass(frozen=True, slots=True)
class Operator:
    """How a feature is removed.

    Attributes:
        name: `delete`; `mask` and `neutral`: the feature's place is taken by `replacement`; `pad`:
            its tokens keep their positions but nothing attends to them.
        replacement: For `mask` a string such as "[MASK]", for `neutral` a word. Where ids are
            masked it is tokenized as it stands here, so that byte-level tokenizers want the space.
        keep_separators: `delete` leaves all white space where it is, as lime does.

    Raises:
        ValueError: `mask` or `neutral` without a replacement.
    """

    name: OperatorName
    replacement: str = ""
    keep_separators: bool = False

    def __post_init__(self) -> None:
        if self.name in ("mask", "neutral") and not self.replacement:
            raise ValueError(f"the operator {self.name} needs a replacement, for example '[MASK]'")


def masked_on(kind: FeatureKind, operator: OperatorName) -> MaskedOn:
    """Return where features of this kind are removed: tokens on ids, words and sentences on text.

    `pad` hides tokens and so works on ids always.
    """
    return "ids" if kind == "tokens" or operator == "pad" else "text"


@dataclass(frozen=True, slots=True, eq=False)
class MaskedInputs:
    """What is to be scored for a set of coalitions.

    Attributes:
        sequences: Distinct token sequences of whole prompts [S].
        hidden: Positions of each sequence that nothing attends to [S]; None but for `pad`, where
            sequences that differ in these alone are distinct.
        row: Which sequence belongs to each coalition [C].
    """

    sequences: list[list[int]]
    hidden: list[list[int]] | None
    row: npt.NDArray[np.int64]


class Masker:
    """The masked prompts of one example.

    Args:
        template: Renders the prompt.
        tokenizer: Of the model.
        fields: Input field -> text.
        features: F features of the fields.
        operator: How they are removed.
        masked_on: From `masked_on`. On `ids` a token that several features share goes with the
            first of them that is removed.
        max_tokens: Longest sequence the model can be given, room for the labels subtracted.

    Attributes:
        masked_on: "text" or "ids".
        ids: Tokens of the full prompt [T].
        positions: Positions of each feature's tokens in `ids` [F].

    Raises:
        ExampleError: `too_long`: the full prompt has more than `max_tokens` tokens.
        ValueError: Features overlap or lie outside their field, or `pad` on text.
    """

    def __init__(
        self,
        template: PromptTemplate,
        tokenizer: Tokenizer,
        fields: Mapping[str, str],
        features: Sequence[Feature],
        operator: Operator,
        masked_on: MaskedOn,
        max_tokens: int,
    ) -> None:
        if operator.name == "pad" and masked_on == "text":
            raise ValueError("the operator pad works on token ids: masked_on='ids'")
        self.masked_on = masked_on
        self._template = template
        self._tokenizer = tokenizer
        self._fields = {name: fields[name] for name in template.variables if name in fields}
        self._operator = operator
        self._max_tokens = max_tokens
        self._n_features = len(features)
        self._spans = _spans_by_field(self._fields, features)
        prompt = template.render(fields)
        encoded = tokenizer.encode_with_offsets(prompt, template.add_special_tokens)
        self.ids = encoded.ids
        self.positions = align(features, encoded, template.locate(fields))
        self._replacement = tokenizer.encode_batch([operator.replacement], False)[0]
        self._check(len(self.ids), "the prompt has")

    def apply(self, coalitions: BoolCF) -> MaskedInputs:
        """Return the distinct sequences of `coalitions` [C, F].

        The full coalition gives exactly the tokens of the full prompt.

        Raises:
            ExampleError: `too_long`: a replacement made a prompt longer than `max_tokens` tokens.
        """
        first: dict[bytes, int] = {}
        number = [first.setdefault(key, len(first)) for key in keys(coalitions)]
        _, rows = np.unique(number, return_index=True)
        distinct = np.asarray(coalitions[rows], dtype=bool)
        if self._operator.name == "pad":
            hidden = [self._removed_positions(kept) for kept in distinct]
            sequences = [self.ids] * len(hidden)
        else:
            hidden = None
            sequences = self._sequences(distinct)
        index: dict[tuple[int, ...], int] = {}
        told_apart = sequences if hidden is None else hidden
        place = np.array(
            [index.setdefault(tuple(ids), len(index)) for ids in told_apart], dtype=np.int64
        )
        _, chosen = np.unique(place, return_index=True)
        for i in chosen:
            self._check(len(sequences[i]), f"with {self._operator.replacement!r} the prompt has")
        return MaskedInputs(
            [sequences[i] for i in chosen],
            None if hidden is None else [hidden[i] for i in chosen],
            place[np.array(number, dtype=np.int64)],
        )

    def masked_fields(self, kept: npt.NDArray[np.bool_]) -> dict[str, str]:
        """Return the fields with the features outside `kept` [F] removed from their texts."""
        operator = self._operator
        fields = dict(self._fields)
        for name, (spans, owners) in self._spans.items():
            gone = [span for span, owner in zip(spans, owners, strict=True) if not kept[owner]]
            if operator.name == "delete" and not operator.keep_separators:
                fields[name] = delete_spans(fields[name], gone)
            else:
                fields[name] = cut_spans(fields[name], gone, operator.replacement)
        return fields

    def text(self, kept: npt.NDArray[np.bool_]) -> str:
        """Return the prompt that the coalition `kept` [F] stands for, for display.

        Where ids are masked it is their decoding; for `pad` without the hidden tokens.
        """
        if self.masked_on == "text":
            return self._template.render(self.masked_fields(kept))
        return self._tokenizer.decode(self._masked_ids(kept))

    def _sequences(self, distinct: BoolCF) -> list[list[int]]:
        if self.masked_on == "ids":
            return [self._masked_ids(kept) for kept in distinct]
        texts = [self._template.render(self.masked_fields(kept)) for kept in distinct]
        unique = list(dict.fromkeys(texts))
        encoded = self._tokenizer.encode_batch(unique, self._template.add_special_tokens)
        ids_of = dict(zip(unique, encoded, strict=True))
        return [ids_of[text] for text in texts]

    def _removed_positions(self, kept: npt.NDArray[np.bool_]) -> list[int]:
        return sorted({p for f in np.flatnonzero(~kept) for p in self.positions[f]})

    def _masked_ids(self, kept: npt.NDArray[np.bool_]) -> list[int]:
        gone = set(self._removed_positions(kept))
        if self._operator.name in ("delete", "pad"):
            return [token for i, token in enumerate(self.ids) if i not in gone]
        begins = set()  # a run of a removed feature's tokens is replaced as one
        for f in np.flatnonzero(~kept):
            own = set(self.positions[f])
            begins |= {p for p in own if p - 1 not in own}
        out: list[int] = []
        for i, token in enumerate(self.ids):
            if i in begins:
                out += self._replacement
            elif i not in gone:
                out.append(token)
        return out

    def _check(self, length: int, what: str) -> None:
        if length > self._max_tokens:
            raise ExampleError(
                "too_long",
                f"{what} {length} tokens, the limit is {self._max_tokens}: "
                "shorten the text or the prompt, or take a model with a longer window",
            )


def _spans_by_field(
    fields: Mapping[str, str], features: Sequence[Feature]
) -> dict[str, tuple[list[tuple[int, int]], list[int]]]:
    """Return the spans of each field, in order, and the feature each belongs to."""
    found: dict[str, tuple[list[tuple[int, int]], list[int]]] = {}
    placed = sorted((span, f) for f, feature in enumerate(features) for span in feature.spans)
    for (start, end, name), f in placed:
        if name not in fields or not 0 <= start < end <= len(fields[name]):
            raise ValueError(f"feature {f} is not inside the field {name!r}: [{start}, {end})")
        spans, owners = found.setdefault(name, ([], []))
        if spans and start < spans[-1][1]:
            raise ValueError(f"features {owners[-1]} and {f} overlap at {start} in {name!r}")
        spans.append((start, end))
        owners.append(f)
    return found
