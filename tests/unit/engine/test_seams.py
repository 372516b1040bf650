"""Assembled prompts have exactly the tokens of the whole text, for any text and tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cuts import ANCHOR, cuts_of
from engine.features import LIME_SPLIT, split_features
from engine.masking import Masker, Operator
from engine.prompts import PromptTemplate, parse_template
from engine.tokens import Tokenizer, load_tokenizer

KINDS = ["bpe", "byte_level", "unigram", "fallback", "llama3", "digits", "metaspace", "bytes"]
TEMPLATES = [
    parse_template("Review: {text}\nSentiment:"),
    parse_template("{text}", add_special_tokens=False),
    parse_template("<|end|> a {claim} then{text} so, is it good ?\n\n"),
]
OPERATORS = [
    Operator("delete"),
    Operator("delete", keep_separators=True),
    Operator("mask", "[MASK]"),
    Operator("neutral", "it is"),
]
PIECES = [
    *"ab19é中ا", *" " * 12, *".,:;!?'’-_()\"/—$%", "  ", "   ", "\r\n", "\n\n", "\t", "\u00a0",
    "not", "don't", " 's", "3.5", "1234567", "🙂", "👍🏽", "👩\u200d👧", "★", "e\u0301", "\u0301",
    "\u200d", "\u200b", "كان", "㎏", "ﷺ", "½", "Σ", "{text}", "<|end|>", "<s>", "▁", "Ġ", "...",
]  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=24).map("".join),
    st.lists(st.sampled_from(["good", "film", "Ġit", "7", "so,", "(it)", "is.", "is▁"])).map(
        " ".join
    ),
    st.text(max_size=20),
)


@pytest.fixture(scope="module")
def load(tokenizer_specs: dict[str, str]) -> Callable[[str], Tokenizer]:
    return lambda kind: load_tokenizer(tokenizer_specs[kind])  # a fixture that prints in one line


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    fields=st.fixed_dictionaries({"text": texts, "claim": texts}),
    template=st.sampled_from(TEMPLATES),
    operator=st.sampled_from(OPERATORS),
    how=st.sampled_from(["words", "sentences", "lime", "bag"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_assembled_is_whole(
    kind: str,
    fields: dict[str, str],
    template: PromptTemplate,
    operator: Operator,
    how: str,
    seed: int,
    load: Callable[[str], Tokenizer],
) -> None:
    tokenizer = load(kind)
    features = split_features(
        fields,
        "sentences" if how == "sentences" else "words",
        bag_of_words=how == "bag",
        split_expression=LIME_SPLIT if how in ("lime", "bag") else None,
        template=template,
    )
    made = Masker(template, tokenizer, fields, features, operator, "text", 10_000)
    rng = np.random.default_rng(seed)
    coalitions = rng.random((12, len(features))) < rng.choice([0.2, 0.5, 0.9], (12, 1))
    coalitions[:2] = [[True], [False]]
    made._checked = True  # what the check of a few prompts would hide
    seams = made._seams
    for rows in (coalitions[:7], coalitions[5:]):  # the second time parts are known
        found = made._mask_text(rows)
        whole = [template.render({**fields, **made.masked_fields(kept)}) for kept in rows]
        assert found.to_lists() == tokenizer.encode_batch(whole, template.add_special_tokens)
    if seams is not None:
        assert made._seams is seams  # nothing fell back


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_the_parts_of_a_text_have_its_tokens(
    kind: str, text: str, load: Callable[[str], Tokenizer]
) -> None:
    tokenizer = load(kind)
    cuts = cuts_of(tokenizer, False)
    assert cuts is not None
    places = [0, *cuts.find(text), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    encoded = tokenizer.encode_batch([parts[0], *(ANCHOR + part for part in parts[1:])], False)
    skip = len(cuts.anchor)
    joined = [*encoded[0], *(token for ids in encoded[1:] for token in ids[skip:])]
    assert joined == tokenizer.encode_batch([text], False)[0]
