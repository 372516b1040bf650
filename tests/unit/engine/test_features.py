"""Features: exact spans of the user's text, and exactly the tokens that hold them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.features import LIME_SPLIT, align, split_features
from engine.prompts import parse_template
from engine.tokens import Encoded, load_tokenizer
from engine.types import Feature, Span

KINDS = ["bpe", "byte_level", "unigram", "fallback", "bytes"]
TEXTS = [
    "The movie was not good at all, but fun.",
    "great🙂 👍🏽👩\u200d👩\u200d👧 e\u0301te\u0301 déjà-vu",
    "شاهدت الفيلم، وكان רע רָע",
    "a line\r\nanother\r\n\r\nend\r\n",
    "  <|end|> {text}  ½ ﬁne",
    "one",
    "",
]


def words(text: str, **options: bool) -> list[str]:
    features = split_features({"text": text}, "words", **options)
    for feature in features:
        (span,) = feature.spans
        assert text[span.start : span.end] == feature.text
    return [feature.text for feature in features]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \r\n\t", []),
        ("...", []),
        ("one", ["one"]),
        ('"Good," (he said) — \'tis well-made.', ["Good", "he", "said", "tis", "well-made"]),
        ("don't isn’t rock'n'roll snake_case", ["don't", "isn’t", "rock'n'roll", "snake_case"]),
        ("3.5 of 5, 1,000 at 10:30. 50%", ["3.5", "of", "5", "1,000", "at", "10:30", "50"]),
        (
            "end.Start good...but yes/no a--b",
            ["end", "Start", "good", "but", "yes", "no", "a", "b"],
        ),
        (
            "great🙂 👍🏽 ★★ 👩\u200d👩\u200d👧",
            ["great", "🙂", "👍🏽", "★", "★", "👩\u200d👩\u200d👧"],
        ),
        ("e\u0301te\u0301 नमस्ते", ["e\u0301te\u0301", "नमस्ते"]),
        ("a\r\nb", ["a", "b"]),
        ("وكان رائعا!", ["وكان", "رائعا"]),
        ("רָע\u200f!", ["רָע\u200f"]),
        ("very very", ["very", "very"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text("ab1. ,:'-_(\n", max_size=12))
def test_plain_texts_have_the_words_of_any_text(text: str) -> None:
    """A text with a letter outside ASCII is split grapheme by grapheme."""
    assert [*words(text), "é"] == words(f"{text} é")


def test_punctuation_can_be_features() -> None:
    assert words("Well... it's good!! (Yes)", punctuation=True) == [
        "Well", "...", "it's", "good", "!!", "(", "Yes", ")",
    ]  # fmt: skip


def test_fields_of_the_template_alone_in_its_order() -> None:
    fields = {"claim": "It is wet.", "note": "unused", "premise": "It rains."}
    template = parse_template("{premise}\n{claim}")
    features = split_features(fields, "words", template=template)
    assert [(f.text, f.spans[0].field) for f in features] == [
        ("It", "premise"), ("rains", "premise"), ("It", "claim"), ("is", "claim"), ("wet", "claim"),
    ]  # fmt: skip


def test_sentences_are_features() -> None:
    features = split_features({"text": "One. Two!"}, "sentences")
    assert [f.spans for f in features] == [(Span(0, 4),), (Span(5, 9),)]


def test_limes_bag_of_words() -> None:
    text = "Please, take your time. Please"  # lime's own test of IndexedString
    features = split_features(
        {"text": text}, "words", bag_of_words=True, split_expression=LIME_SPLIT
    )
    assert [f.text for f in features] == ["Please", "take", "your", "time"]
    assert features[0].spans == (Span(0, 6), Span(24, 30))


@pytest.mark.parametrize("text", [*TEXTS[:5], "Not not NOT", "x_1 -- 'y'", "ça e\u0301e"])
@pytest.mark.parametrize("bag_of_words", [True, False])
def test_limes_split_is_limes(text: str, bag_of_words: bool) -> None:
    from lime.lime_text import IndexedString

    lime = IndexedString(text, bow=bag_of_words)
    features = split_features(
        {"text": text}, "words", bag_of_words=bag_of_words, split_expression=LIME_SPLIT
    )
    assert [f.text for f in features] == lime.inverse_vocab
    for i, feature in enumerate(features):
        expected = lime.string_position(i)
        assert [span.start for span in feature.spans] == list(expected.ravel())


def test_split_expressions_are_checked() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        split_features({"text": "a"}, "words", split_expression="(")
    with pytest.raises(ConfigError, match="empty text"):
        split_features({"text": "a"}, "words", split_expression=r"\W*")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("plain", ["Review: {text}\nSentiment:", "{text}", "\n{text}  "])
def test_token_features_partition_the_users_tokens(
    kind: str, text: str, plain: str, tokenizer_specs: dict[str, str]
) -> None:
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    template = parse_template(plain)
    fields = {"text": text}
    features = split_features(fields, "tokens", template=template, tokenizer=tokenizer)
    spans = [f.spans[0] for f in features]
    assert all(left.end <= right.start for left, right in itertools.pairwise(spans))
    assert all(0 <= span.start < span.end <= len(text) for span in spans)

    encoded = tokenizer.encode_with_offsets(template.render(fields), True)
    start = template.locate(fields)["text"]
    positions = align(features, encoded, {"text": start})
    flat = [p for own in positions for p in own]
    assert len(flat) == len(set(flat)), "a token belongs to one feature"
    assert all(positions), "each feature has a token"
    inside = {
        i
        for i, (first, last) in enumerate(encoded.offsets)
        if start <= first < last <= start + len(text)
    }
    assert inside <= set(flat), "every token of the user's text is in a feature"
    for i in set(flat) - inside:  # tokens that reach into the template hold something of the user's
        first, last = encoded.offsets[i]
        assert text[max(first - start, 0) : last - start].strip()


def test_tokens_of_one_character_are_one_feature(tokenizer_specs: dict[str, str]) -> None:
    template = parse_template("{text}!")
    tokenizer = load_tokenizer(tokenizer_specs["byte_level"])
    features = split_features({"text": "aé🙂"}, "tokens", template=template, tokenizer=tokenizer)
    assert [f.text for f in features] == ["a", "é", "🙂"]


def test_a_template_of_its_own_gives_no_features(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs["bpe"])
    template = parse_template("Review: {text}\nSentiment:")
    assert split_features({"text": ""}, "tokens", template=template, tokenizer=tokenizer) == ()
    # the user's line break is one token with the template's: no visible character, no feature
    merged = Encoded([1, 2, 3], [(0, 9), (8, 10), (10, 20)])

    class Fixed:
        def encode_with_offsets(self, text: str, add_special_tokens: bool) -> Encoded:
            return merged

    assert split_features({"text": "\n"}, "tokens", template=template, tokenizer=Fixed()) == ()


def test_tokens_need_template_and_tokenizer() -> None:
    with pytest.raises(ValueError, match="need the template"):
        split_features({"text": "a"}, "tokens")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("features", ["words", "sentences"])
def test_alignment_is_by_shared_characters(
    kind: str, text: str, features: str, tokenizer_specs: dict[str, str]
) -> None:
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    template = parse_template("A: {note}\nReview: {text}\nSentiment:")
    fields = {"text": text, "note": "not good"}
    found = split_features(fields, features, template=template)
    starts = template.locate(fields)
    prompt = template.render(fields)
    encoded = tokenizer.encode_with_offsets(prompt, True)
    for feature, positions in zip(found, align(found, encoded, starts), strict=True):
        characters = {starts[s.field] + i for s in feature.spans for i in range(s.start, s.end)}
        expected = [
            i
            for i, (first, last) in enumerate(encoded.offsets)
            if characters & set(range(first, last))
        ]
        assert list(positions) == expected
        assert positions, f"{feature.text!r} has no token"


def test_bytes_of_a_word_are_its_own(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer("bytes")
    template = parse_template("é {text}.")
    fields = {"text": "à la 🙂"}
    features = split_features(fields, "words", template=template)
    encoded = tokenizer.encode_with_offsets(template.render(fields), False)
    for feature, positions in zip(
        features, align(features, encoded, template.locate(fields)), strict=True
    ):
        assert bytes(encoded.ids[i] for i in positions).decode() == feature.text


def test_alignment_of_a_bag_of_words() -> None:
    tokenizer = load_tokenizer("bytes")
    encoded = tokenizer.encode_with_offsets("ab cd ab", False)
    feature = Feature((Span(0, 2), Span(6, 8)), "ab")
    assert align([feature], encoded, {"text": 0}) == ((0, 1, 6, 7),)
    assert align([], encoded, {"text": 0}) == ()
