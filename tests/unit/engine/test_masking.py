"""Masking: what the model is shown for a coalition, on text and on ids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.errors import ExampleError
from engine.features import LIME_SPLIT, split_features
from engine.masking import Masker, Operator, masked_on
from engine.prompts import parse_template
from engine.tokens import load_tokenizer
from engine.types import Feature, FeatureKind, Span

KINDS = ["bpe", "byte_level", "unigram", "fallback", "bytes"]
TEMPLATE = parse_template("Review: {text}\nSentiment:")
DELETE = Operator("delete")
TEXT = "not a note, not🙂 good"


def masker(
    text: str = TEXT,
    operator: Operator = DELETE,
    kind: FeatureKind = "words",
    spec: str = "bytes",
    max_tokens: int = 1000,
    **options: object,
) -> Masker:
    tokenizer = load_tokenizer(spec)
    fields = {"text": text}
    features = split_features(fields, kind, template=TEMPLATE, tokenizer=tokenizer, **options)
    on = masked_on(kind, operator.name)
    return Masker(TEMPLATE, tokenizer, fields, features, operator, on, max_tokens)


def kept(*flags: int) -> np.ndarray:
    return np.array(flags, dtype=bool)


def every(n_features: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=n_features)), dtype=bool)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (DELETE, "note, not good"),
        (Operator("delete", keep_separators=True), "  note, not good"),
        (Operator("mask", "[MASK]"), "[MASK] [MASK] note, not[MASK] good"),
        (Operator("neutral", "it"), "it it note, notit good"),
    ],
)
def test_words_are_masked_on_text(operator: Operator, expected: str) -> None:
    made = masker(operator=operator)
    coalition = kept(0, 0, 1, 1, 0, 1)
    assert made.masked_on == "text"
    assert made.text(coalition) == f"Review: {expected}\nSentiment:"
    assert made.masked_fields(coalition) == {"text": expected}
    (ids,) = made.apply(coalition[None]).sequences.to_lists()
    assert bytes(ids).decode() == made.text(coalition)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", ["words", "sentences", "tokens"])
@pytest.mark.parametrize(
    "operator",
    [DELETE, Operator("mask", "[MASK]"), Operator("neutral", "it"), Operator("pad")],
    ids=lambda o: o.name,
)
def test_the_full_coalition_is_the_full_prompt(
    kind: str, features: FeatureKind, operator: Operator, tokenizer_specs: dict[str, str]
) -> None:
    text = " The film\r\nwas e\u0301 🙂. رائعا  "
    made = masker(text, operator, features, tokenizer_specs[kind])
    coalitions = np.ones((2, len(made.positions)), dtype=bool)
    masked = made.apply(coalitions)
    expected = load_tokenizer(tokenizer_specs[kind]).encode_batch(
        [TEMPLATE.render({"text": text})], True
    )
    assert masked.sequences.to_lists() == expected
    assert masked.row.tolist() == [0, 0]
    hidden = None if masked.hidden is None else masked.hidden.to_lists()
    assert hidden == ([[]] if operator.name == "pad" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_are_distinct_and_rows_find_them(
    kind: str, tokenizer_specs: dict[str, str]
) -> None:
    made = masker("very very good", spec=tokenizer_specs[kind])
    coalitions = every(3)[[7, 0, 1, 2, 3, 4, 5, 6, 7, 0]]
    masked = made.apply(coalitions)
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    # removing the one or the other "very" leaves the same text
    sequences = masked.sequences.to_lists()
    assert len(sequences) == 6
    assert len({tuple(ids) for ids in sequences}) == 6
    for row, coalition in zip(masked.row, coalitions, strict=True):
        expected = tokenizer.encode_batch([made.text(coalition)], True)[0]
        assert sequences[row] == expected
    assert masked.row.dtype == np.int64


def test_positions_not_strings_are_replaced() -> None:
    made = masker("not note not", Operator("mask", "#"))
    assert made.masked_fields(kept(1, 1, 0)) == {"text": "not note #"}
    assert made.masked_fields(kept(0, 1, 1)) == {"text": "# note not"}


@pytest.mark.parametrize("text", ["not note not", "Don't, don't! (don't)", "a🙂b\r\nc", "e\u0301"])
@pytest.mark.parametrize("bag_of_words", [True, False])
def test_limes_texts(text: str, bag_of_words: bool) -> None:
    from lime.lime_text import IndexedString

    lime = IndexedString(text, bow=bag_of_words)
    operator = (
        Operator("delete", keep_separators=True) if bag_of_words else Operator("mask", "UNKWORDZ")
    )
    made = masker(text, operator, bag_of_words=bag_of_words, split_expression=LIME_SPLIT)
    for coalition in every(len(made.positions)):
        gone = np.flatnonzero(~coalition)
        assert made.masked_fields(coalition) == {"text": lime.inverse_removing(gone)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["The film was good.", "e\u0301🙂 x\r\n", "رائعا"])
def test_tokens_are_masked_on_ids(kind: str, text: str, tokenizer_specs: dict[str, str]) -> None:
    spec = tokenizer_specs[kind]
    tokenizer = load_tokenizer(spec)
    made = masker(text, DELETE, "tokens", spec)
    assert made.masked_on == "ids"
    n = len(made.positions)
    for f in range(n):
        coalition = np.ones(n, dtype=bool)
        coalition[f] = False
        (ids,) = made.apply(coalition[None]).sequences.to_lists()
        assert ids == [t for i, t in enumerate(made.ids) if i not in made.positions[f]]
        assert made.text(coalition) == tokenizer.decode(ids)
        masked = masker(text, Operator("mask", "it"), "tokens", spec).apply(coalition[None])
        own = made.positions[f]
        it = tokenizer.encode_batch(["it"], False)[0]
        assert masked.sequences.to_lists() == [[*made.ids[: own[0]], *it, *made.ids[own[-1] + 1 :]]]


@pytest.mark.parametrize("kind", KINDS)
def test_removing_all_tokens_leaves_the_template(
    kind: str, tokenizer_specs: dict[str, str]
) -> None:
    made = masker("so good", DELETE, "tokens", tokenizer_specs[kind])
    (ids,) = made.apply(np.zeros((1, len(made.positions)), dtype=bool)).sequences.to_lists()
    assert "so" not in load_tokenizer(tokenizer_specs[kind]).decode(ids)
    assert len(ids) == len(made.ids) - sum(len(own) for own in made.positions)


def test_pad_keeps_positions_and_hides_tokens() -> None:
    made = masker("a good film", Operator("pad"))
    masked = made.apply(np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 0, 1]], dtype=bool))
    assert masked.hidden is not None
    assert masked.sequences.to_lists() == [made.ids] * 3
    assert masked.row.tolist() == [0, 1, 2, 1]
    start = len("Review: ")
    good = [start + i for i in range(2, 6)]
    assert masked.hidden.to_lists() == [[], good, [start, *good]]
    assert made.text(kept(1, 0, 1)) == "Review: a  film\nSentiment:"
    with pytest.raises(ValueError, match="masked_on='ids'"):
        Masker(TEMPLATE, load_tokenizer("bytes"), {"text": "a"}, (), Operator("pad"), "text", 99)


def test_a_bag_of_words_is_removed_everywhere_on_ids() -> None:
    tokenizer = load_tokenizer("bytes")
    features = (Feature((Span(0, 1), Span(4, 5)), "a"), Feature((Span(2, 3),), "b"))
    fields = {"text": "a b a"}
    made = Masker(TEMPLATE, tokenizer, fields, features, Operator("mask", "__"), "ids", 99)
    (ids,) = made.apply(np.array([[False, True]])).sequences.to_lists()
    assert tokenizer.decode(ids) == "Review: __ b __\nSentiment:"


def test_several_fields() -> None:
    template = parse_template("{premise} => {claim}")
    tokenizer = load_tokenizer("bytes")
    fields = {"claim": "not so", "premise": "is so"}
    features = split_features(fields, "words", template=template)
    made = Masker(template, tokenizer, fields, features, DELETE, "text", 99)
    assert made.text(kept(1, 0, 0, 1)) == "is => so"
    assert made.text(kept(0, 0, 0, 0)) == " => "


@pytest.mark.parametrize("operator", [DELETE, Operator("mask", "x"), Operator("pad")])
def test_without_features_there_is_the_full_prompt(operator: Operator) -> None:
    for text in ("", "...", " \r\n"):
        made = masker(text, operator)
        masked = made.apply(np.ones((3, 0), dtype=bool))
        assert masked.sequences.to_lists() == [made.ids]
        assert masked.row.tolist() == [0, 0, 0]
        assert bytes(made.ids).decode() == TEMPLATE.render({"text": text})


def test_no_coalitions_no_sequences() -> None:
    for operator in (DELETE, Operator("pad")):
        masked = masker(operator=operator).apply(np.zeros((0, 6), dtype=bool))
        assert masked.sequences.n_rows == 0
        assert masked.row.shape == (0,)


def test_too_long_says_length_and_limit() -> None:
    length = len(TEMPLATE.render({"text": TEXT}).encode())
    assert len(masker(max_tokens=length).ids) == length
    with pytest.raises(ExampleError, match=f"{length} tokens, the limit is {length - 1}") as error:
        masker(max_tokens=length - 1).apply(np.zeros((1, 6), dtype=bool))
    assert error.value.code == "too_long"


def test_a_replacement_that_makes_it_too_long_is_refused() -> None:
    length = len(TEMPLATE.render({"text": "a b"}).encode())
    made = masker("a b", Operator("mask", "[MASK]"), max_tokens=length + 5)
    assert made.apply(np.array([[True, False]])).sequences.lengths.tolist() == [length + 5]
    with pytest.raises(ExampleError, match=r"with '\[MASK\]'") as error:
        made.apply(np.array([[False, False]]))
    assert error.value.code == "too_long"


def test_operators_and_features_are_checked() -> None:
    with pytest.raises(ValueError, match="needs a replacement"):
        Operator("neutral")
    tokenizer = load_tokenizer("bytes")
    for spans, message in [
        ([Span(0, 2), Span(1, 3)], "overlap"),
        ([Span(0, 9)], "not inside"),
        ([Span(0, 1, "other")], "not inside"),
    ]:
        features = [Feature((span,), "x") for span in spans]
        with pytest.raises(ValueError, match=message):
            Masker(TEMPLATE, tokenizer, {"text": "abc"}, features, DELETE, "text", 99)


def test_where_features_are_masked() -> None:
    assert masked_on("words", "delete") == masked_on("sentences", "mask") == "text"
    assert masked_on("tokens", "delete") == masked_on("words", "pad") == "ids"


def test_a_table_that_is_wrong_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few prompts of each example are tokenized both ways."""
    made = masker()
    monkeypatch.setattr(made, "_gap", lambda left, right: "so" if left else "Review: ")
    coalitions = every(6)
    found = made.apply(coalitions)
    expected = masker().apply(coalitions)
    assert found.sequences.to_lists() == expected.sequences.to_lists()
    assert made._seams is None


@pytest.mark.parametrize("text", ["_ a (_) b", "... . a", "a _, (b) c"])
def test_words_of_punctuation_alone_close_up_as_they_did(text: str) -> None:
    """lime's words may be underscores, past which the rules of deletion look."""
    made = masker(text, split_expression=LIME_SPLIT)
    coalitions = every(len(made.positions))
    masked = made.apply(coalitions)
    for row, coalition in zip(masked.row, coalitions, strict=True):
        assert bytes(masked.sequences.row(row).tolist()).decode() == made.text(coalition)
