"""Tokenizers: offsets are characters, nothing is cut, the same text is read once."""

from __future__ import annotations

import json

import pytest

from engine.errors import ModelError
from engine.tokens import ByteTokenizer, load_tokenizer

KINDS = ("bpe", "byte_level", "unigram", "fallback", "bytes")
TEXT = "Review: good 🙂👍🏽\r\nfilm e\u0301té رائعا\nSentiment:"


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_cover_every_visible_character(kind: str, tokenizer_specs: dict[str, str]) -> None:
    encoded = load_tokenizer(tokenizer_specs[kind]).encode_with_offsets(TEXT, False)
    covered = {i for start, end in encoded.offsets for i in range(start, end)}
    # normalisation composes a letter and its mark to one character, which has the letter's place
    composed = {i for i, character in enumerate(TEXT) if character == "\u0301"}
    assert {i for i, c in enumerate(TEXT) if not c.isspace()} - composed <= covered
    assert len(encoded.ids) == len(encoded.offsets)
    assert max(end for _, end in encoded.offsets) == len(TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_single_agree(kind: str, tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    texts = ["", "good", TEXT]
    for special in (False, True):
        single = [tokenizer.encode_with_offsets(text, special).ids for text in texts]
        assert tokenizer.encode_batch(texts, special) == single


@pytest.mark.parametrize("kind", ["bpe", "byte_level", "fallback", "bytes"])
def test_decoding_gives_the_text_back(kind: str, tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    assert tokenizer.decode(tokenizer.encode_with_offsets(TEXT, False).ids) == TEXT


def test_white_space_keeps_its_span(tokenizer_specs: dict[str, str]) -> None:
    encoded = load_tokenizer(tokenizer_specs["bpe"]).encode_with_offsets("x  good", False)
    assert encoded.offsets == [(0, 1), (1, 2), (2, 7)]


def test_added_tokens_stand_for_no_character(tokenizer_specs: dict[str, str]) -> None:
    encoded = load_tokenizer(tokenizer_specs["unigram"]).encode_with_offsets("good", True)
    assert encoded.offsets[0] == (0, 0)
    assert all(start < end for start, end in encoded.offsets[1:])


def test_truncation_and_padding_are_switched_off(tokenizer_specs: dict[str, str]) -> None:
    content = json.loads(tokenizer_specs["bpe"])
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 50},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|end|>",
    }
    cut = load_tokenizer(json.dumps(content))
    whole = load_tokenizer(tokenizer_specs["bpe"])
    assert cut.encode_batch([TEXT], False) == whole.encode_batch([TEXT], False)
    assert cut.encode_batch(["good"], False) == whole.encode_batch(["good"], False)


def test_bytes_are_lossless_and_know_their_characters() -> None:
    encoded = ByteTokenizer().encode_with_offsets("aé🙂", True)
    assert bytes(encoded.ids).decode() == "aé🙂"
    assert encoded.offsets == [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3), (2, 3)]
    assert ByteTokenizer().decode([195]) == "\ufffd"
    plain = ByteTokenizer().encode_with_offsets("ab", True)
    assert (plain.ids, plain.offsets) == ([97, 98], [(0, 1), (1, 2)])


def test_a_text_is_read_once(tokenizer_specs: dict[str, str]) -> None:
    spec = tokenizer_specs["bpe"]
    copy = spec[:100] + spec[100:]
    assert load_tokenizer(spec) is load_tokenizer(copy)
    assert load_tokenizer(spec) is not load_tokenizer(tokenizer_specs["unigram"])


@pytest.mark.parametrize("spec", ["", "{}", "not json", "[]"])
def test_what_is_no_tokenizer_is_refused(spec: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load_tokenizer(spec)
