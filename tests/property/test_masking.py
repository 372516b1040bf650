"""Properties of features and masking that hold for any text, script and coalition."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.deletion import cut_spans, delete_spans
from engine.features import split_features
from engine.graphemes import graphemes
from engine.masking import Masker, Operator, masked_on
from engine.prompts import parse_template
from engine.sentences import sentences
from engine.tokens import ByteTokenizer
from engine.types import Feature

TEMPLATE = parse_template("Review: {text}\nSentiment:")
PIECES = [
    *"ab19é中ا ", *".,:;!?'’-_()\"/—$%", "  ", "\r\n", "\n\n", "\t", "\u00a0", "not", "don't",
    "3.5", "🙂", "👍🏽", "👩\u200d👧", "🇩🇪", "1\ufe0f\u20e3", "‼\ufe0f", "★", "e\u0301", "\u0301",
    "\u200d", "\u200f", "\u200b", "كان", "רָע", "{text}", "<|end|>",
]  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.text(max_size=20))


def features_of(text: str, kind: str = "words") -> tuple[Feature, ...]:
    tokenizer = ByteTokenizer()
    return split_features({"text": text}, kind, template=TEMPLATE, tokenizer=tokenizer)


def runs(text: str) -> list[str]:
    """The runs of white space in a text."""
    groups = itertools.groupby(text, key=str.isspace)
    return ["".join(run) for space, run in groups if space]


@st.composite
def texts_with_coalition(draw: st.DrawFn) -> tuple[str, tuple[Feature, ...], list[bool]]:
    text = draw(texts)
    features = features_of(text)
    kept = draw(st.lists(st.booleans(), min_size=len(features), max_size=len(features)))
    return text, features, kept


@given(texts)
def test_features_never_split_a_grapheme_nor_overlap(text: str) -> None:
    edges = {0, *(g.end for g in graphemes(text))}
    for kind in ("words", "sentences"):
        spans = [f.spans[0] for f in features_of(text, kind)]
        assert {s.start for s in spans} | {s.end for s in spans} <= edges
        assert all(left.end <= right.start for left, right in itertools.pairwise(spans))
        assert all(text[s.start : s.end].strip() == text[s.start : s.end] for s in spans)


@given(texts)
def test_sentences_leave_out_white_space_only(text: str) -> None:
    spans = sentences(text)
    covered = {i for start, end in spans for i in range(start, end)}
    assert all(c.isspace() for i, c in enumerate(text) if i not in covered)


@settings(max_examples=400)
@given(texts_with_coalition())
def test_deletion_leaves_exactly_the_kept_words(
    case: tuple[str, tuple[Feature, ...], list[bool]],
) -> None:
    text, features, kept = case
    gone = [f.spans[0][:2] for f, keep in zip(features, kept, strict=True) if not keep]
    left = delete_spans(text, gone)
    # neither glued to each other nor torn apart, so that they are found again
    expected = [f.text for f, keep in zip(features, kept, strict=True) if keep]
    assert [f.text for f in features_of(left)] == expected
    # no white space that wasn't there, but for the blank between words that touched the removed one
    assert set(runs(left)) <= {*runs(text), " "}
    assert len(left) <= len(text)
    # the punctuation stays as it is
    assert "".join(left.split()) == "".join(cut_spans(text, gone).split())


@settings(max_examples=100)
@given(texts_with_coalition(), st.sampled_from(["delete", "mask", "neutral", "pad"]), st.booleans())
def test_masking_is_the_same_alone_and_in_a_batch(
    case: tuple[str, tuple[Feature, ...], list[bool]], name: str, keep_separators: bool
) -> None:
    text, features, kept = case
    operator = Operator(name, "[MASK]", keep_separators)
    tokenizer = ByteTokenizer()
    fields = {"text": text}
    made = Masker(TEMPLATE, tokenizer, fields, features, operator, masked_on("words", name), 10_000)
    coalitions = np.array(
        [[True] * len(kept), kept, [not k for k in kept], [False] * len(kept), kept], dtype=bool
    )
    batch = made.apply(coalitions)
    prompt = TEMPLATE.render(fields)
    sequences = batch.sequences.to_lists()
    assert bytes(sequences[batch.row[0]]).decode() == prompt
    assert sorted(set(batch.row.tolist())) == list(range(len(sequences)))
    for row, coalition in zip(batch.row, coalitions, strict=True):
        alone = made.apply(coalition[None])
        assert alone.sequences.to_lists() == [sequences[row]]
        if batch.hidden is not None and alone.hidden is not None:
            assert alone.hidden.to_lists() == [batch.hidden.row(row).tolist()]
        else:
            assert bytes(alone.sequences.row(0).tolist()).decode() == made.text(coalition)


@settings(max_examples=100)
@given(texts, st.randoms(use_true_random=False))
def test_token_features_are_removed_exactly(text: str, random: object) -> None:
    features = features_of(text, "tokens")
    fields = {"text": text}
    assert "".join(f.text for f in features) == text  # a character each, of any number of bytes
    made = Masker(TEMPLATE, ByteTokenizer(), fields, features, Operator("delete"), "ids", 10_000)
    kept = np.array([random.random() < 0.5 for _ in features], dtype=bool)  # type: ignore[attr-defined]
    left = "".join(f.text for f, keep in zip(features, kept, strict=True) if keep)
    assert made.text(kept) == TEMPLATE.render({"text": left})
