"""From coalitions to token sequences: what the model is shown when features are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.cuts import cuts_of
from engine.deletion import cut_spans, delete_spans, is_local, is_plain
from engine.errors import ExampleError
from engine.features import align
from engine.id_masking import IdMasker
from engine.prompts import PromptTemplate
from engine.ragged import Ragged, distinct
from engine.seams import Seams
from engine.tokens import Encoded, Tokenizer
from engine.types import BoolCF, Feature, FeatureKind, OperatorName

MaskedOn: TypeAlias = Literal["text", "ids"]

_FEW = 4
"""Fewer prompts are tokenized as they are."""
_CHECKED = 3
"""Prompts of each example that are tokenized both ways."""
_MOST_SPANS = 2000
"""Of a text whose table of neighbours (the square of it) is worth its memory."""


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

    sequences: Ragged
    hidden: Ragged | None
    row: npt.NDArray[np.int64]


class _Place(NamedTuple):
    """A span in the order of the prompt: its field, its number there, and its feature."""

    field: str
    number: int
    owner: int


class Masker:
    """The masked prompts of one example.

    Nothing is tokenized before it is needed.

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

    Raises:
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
        self._all_fields = fields
        self._fields = {name: fields[name] for name in template.variables if name in fields}
        self._features = features
        self._operator = operator
        self._max_tokens = max_tokens
        self._spans = _spans_by_field(self._fields, features)
        self._checked = False

    @property
    def ids(self) -> list[int]:
        """Tokens of the full prompt [T].

        Raises:
            ExampleError: `too_long`: there are more than `max_tokens`.
        """
        return self._encoded.ids

    @cached_property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Positions of each feature's tokens in `ids` [F]."""
        return align(self._features, self._encoded, self._template.locate(self._all_fields))

    def apply(self, coalitions: BoolCF) -> MaskedInputs:
        """Return the distinct sequences of `coalitions` [C, F].

        The full coalition gives exactly the tokens of the full prompt.

        Raises:
            ExampleError: `too_long`: the full prompt has more than `max_tokens` tokens, or a
                replacement made one longer.
        """
        self._encoded  # noqa: B018  a text that is too long fails whatever is asked of it
        if self.masked_on == "text":
            made = self._mask_text(coalitions)
        elif self._operator.name == "pad":
            hidden = self._on_ids.hidden(coalitions)
            found = distinct(hidden)
            return MaskedInputs(
                self._on_ids.repeated(len(found.first)), hidden.take(found.first), found.which
            )
        else:
            made = self._on_ids.apply(coalitions, self._operator.name != "delete")
        found = distinct(made)
        longest = int(made.lengths.max(initial=0))
        self._check(longest, f"with {self._operator.replacement!r} the prompt has")
        if len(found.first) < made.n_rows:
            made = made.take(found.first)
        return MaskedInputs(made, None, found.which)

    def masked_fields(self, kept: npt.NDArray[np.bool_]) -> dict[str, str]:
        """Return the fields with the features outside `kept` [F] removed from their texts."""
        fields = dict(self._fields)
        for name, (spans, owners) in self._spans.items():
            gone = [span for span, owner in zip(spans, owners, strict=True) if not kept[owner]]
            fields[name] = self._remove(fields[name], gone)
        return fields

    def text(self, kept: npt.NDArray[np.bool_]) -> str:
        """Return the prompt that the coalition `kept` [F] stands for, for display.

        Where ids are masked it is their decoding; for `pad` without the hidden tokens.
        """
        if self.masked_on == "text":
            return self._template.render(self.masked_fields(kept))
        replaced = self._operator.name in ("mask", "neutral")
        return self._tokenizer.decode(self._on_ids.apply(kept[None], replaced).flat.tolist())

    def _remove(self, text: str, gone: Sequence[tuple[int, int]]) -> str:
        operator = self._operator
        if operator.name == "delete" and not operator.keep_separators:
            return delete_spans(text, gone)
        return cut_spans(text, gone, operator.replacement)

    @cached_property
    def _encoded(self) -> Encoded:
        prompt = self._template.render(self._all_fields)
        encoded = self._tokenizer.encode_with_offsets(prompt, self._template.add_special_tokens)
        self._check(len(encoded.ids), "the prompt has")
        return encoded

    @cached_property
    def _seams(self) -> Seams | None:
        return self._make_seams()

    @cached_property
    def _on_ids(self) -> IdMasker:
        replacement = self._tokenizer.encode_batch([self._operator.replacement], False)[0]
        return IdMasker(self.ids, self.positions, replacement)

    def _mask_text(self, coalitions: BoolCF) -> Ragged:
        """Return the tokens of each masked prompt [C]."""
        if len(coalitions) < _FEW:
            return self._tokenize_whole(coalitions)
        places = self._places
        if self._seams is not None:
            owners = np.array([place.owner for place in places], dtype=np.int64)
            made = self._seams.assemble(coalitions[:, owners])
            if made is not None and self._is_right(made, coalitions):
                return made
            self._seams = None
        return self._tokenize_whole(coalitions)

    def _is_right(self, made: Ragged, coalitions: BoolCF) -> bool:
        """Check a few coalitions against tokenizing the whole prompt, once for each example."""
        if self._checked:
            return True
        rows = np.linspace(0, len(coalitions) - 1, _CHECKED).astype(np.int64)
        self._checked = True
        return made.take(rows).to_lists() == self._tokenize_whole(coalitions[rows]).to_lists()

    @cached_property
    def _places(self) -> list[_Place]:
        return [
            _Place(name, number, owner)
            for name in self._template.variables
            for number, owner in enumerate(self._spans.get(name, ((), ()))[1])
        ]

    def _make_seams(self) -> Seams | None:
        """Return the table of this example's parts, None if prompts have to be tokenized whole."""
        cuts = cuts_of(self._tokenizer, self._template.add_special_tokens)
        places = self._places
        if cuts is None or len(places) > _MOST_SPANS:
            return None
        texts = [self._fields[p.field][slice(*self._spans[p.field][0][p.number])] for p in places]
        closes_up = self._operator.name == "delete" and not self._operator.keep_separators
        if closes_up and not all(map(is_local, texts)):
            return None
        plain = np.zeros(len(places) + 1, dtype=bool)
        if closes_up:
            sound = [is_plain(t) and cuts.before(t[0]) and cuts.after(t[-1]) for t in texts]
            for i in range(1, len(places)):
                plain[i] = sound[i - 1] and sound[i] and self._gap(i, i + 1) == " "
        return Seams(self._tokenizer, cuts, texts, self._gap, plain)

    def _gap(self, left: int, right: int) -> str:
        """Return the text between two nodes of `Seams` when all spans between them are removed."""
        begin = self._places[left - 1] if left else None
        end = self._places[right - 1] if right <= len(self._places) else None
        if begin and end and begin.field == end.field:
            return self._stretch(begin.field, begin.number, end.number)
        parts: list[str] = []
        inside = begin is None
        for piece in self._template.pieces:
            if isinstance(piece, str):
                if inside:
                    parts.append(piece)
            elif begin and piece.name == begin.field:
                parts.append(self._stretch(piece.name, begin.number, None))
                inside = True
            elif end and piece.name == end.field:
                parts.append(self._stretch(piece.name, None, end.number))
                break
            elif inside:
                parts.append(self._stretch(piece.name, None, None))
        return "".join(parts)

    def _stretch(self, name: str, left: int | None, right: int | None) -> str:
        """Return what is left of a field between two of its spans, or its ends."""
        text, (spans, _) = self._fields[name], self._spans.get(name, ([], []))
        start, inner = (0, 0) if left is None else (spans[left][0], spans[left][1] - spans[left][0])
        end, outer = (
            (len(text), 0)
            if right is None
            else (spans[right][1], spans[right][1] - spans[right][0])
        )
        first = 0 if left is None else left + 1
        gone = [(a - start, b - start) for a, b in spans[first:right]]
        made = self._remove(text[start:end], gone)
        return made[inner : len(made) - outer]

    def _tokenize_whole(self, coalitions: BoolCF) -> Ragged:
        texts = [self._template.render(self.masked_fields(kept)) for kept in coalitions]
        unique = list(dict.fromkeys(texts))
        encoded = Ragged.of(self._tokenizer.encode_batch(unique, self._template.add_special_tokens))
        number = {text: i for i, text in enumerate(unique)}
        return encoded.take([number[text] for text in texts])

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
