"""Tokenizers whose texts can't be cut are known by what they are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.cuts import Cuts, cuts_of
from engine.tokens import ByteTokenizer, Encoded, load_tokenizer


def changed(spec: str, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(spec)
    change(content)
    return json.dumps(content)


def added(text: str, **flags: bool) -> Callable[[dict[str, Any]], object]:
    token = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
    return lambda content: content["added_tokens"].append(
        {"id": len(content["model"]["vocab"]), "content": text, **token, **flags}
    )


def split_by(expression: str) -> Callable[[dict[str, Any]], object]:
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}
    step["invert"] = False
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    byte_level["trim_offsets"] = False
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [step, byte_level]}
    return lambda content: content.update(pre_tokenizer=pre_tokenizer)


def in_vocabulary(text: str) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[text] = max(vocabulary.values()) + 1

    return change


def test_places_are_before_spaces_between_visible_characters() -> None:
    cuts = Cuts((1,), (), (), never_after=frozenset(">"), never_before=frozenset("<"))
    text = "good film,  so\n it's <b> bold <b>x 🙂 \u200b e\u0301 ! ▁ a ▁"
    parts, start = [], 0
    for place in cuts.find(text):
        parts.append(text[start:place])
        start = place
    assert [*parts, text[start:]] == [
        "good", " film,", "  so\n it's <b> bold <b>x", " 🙂 \u200b e\u0301 ! ▁ a ▁",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("bpe", added("New York")),
        ("bpe", added("a")),
        ("bpe", lambda content: content["model"].update(dropout=0.1)),
        ("bpe", lambda content: content.update(pre_tokenizer={"type": "UnicodeScripts"})),
        ("bpe", split_by(r"(?<=e) ?\w+|\s+|.")),
        ("bpe", split_by(r"\b\w+\b|\s+|.")),
        ("bpe", split_by(r"^.+? |.")),
        ("byte_level", in_vocabulary("aĠb")),
        ("fallback", in_vocabulary("a▁")),
        ("fallback", lambda content: content["model"].update(ignore_merges=True)),
        ("unigram", lambda content: content["pre_tokenizer"].update(split=False)),
        (
            "unigram",
            lambda content: content.update(
                normalizer={"type": "Replace", "pattern": {"String": "a b"}, "content": "c"}
            ),
        ),
    ],
)
def test_what_could_look_across_is_not_cut(
    kind: str, change: Callable[[dict[str, Any]], object], tokenizer_specs: dict[str, str]
) -> None:
    spec = tokenizer_specs[kind]
    assert cuts_of(load_tokenizer(spec), True) is not None
    assert cuts_of(load_tokenizer(changed(spec, change)), True) is None


def test_an_expression_that_joins_words_is_found_out(tokenizer_specs: dict[str, str]) -> None:
    """It neither looks back nor at ends, but its pieces reach over spaces after a digit."""
    spec = changed(tokenizer_specs["llama3"], split_by(r"\d \p{L}+| ?\S+|\s+"))
    assert cuts_of(load_tokenizer(spec), False) is not None  # no token of it has such a space
    spec = changed(spec, in_vocabulary("7Ġa"))
    assert cuts_of(load_tokenizer(spec), False) is None


def test_added_tokens_are_not_cut_off(tokenizer_specs: dict[str, str]) -> None:
    cuts = cuts_of(
        load_tokenizer(changed(tokenizer_specs["bpe"], added("[so]", rstrip=True))), True
    )
    assert cuts is not None
    assert list(cuts.find("a b] c [d")) == [1]


def test_tokens_around_the_text_are_found(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs["metaspace"])
    framed, bare = cuts_of(tokenizer, True), cuts_of(tokenizer, False)
    assert framed is not None
    assert bare is not None
    assert (framed.prefix, framed.suffix) == ((1,), (2,))
    assert (bare.prefix, bare.suffix) == ((), ())


def test_an_unknown_tokenizer_is_not_cut() -> None:
    class Foreign:
        def encode_batch(self, texts: Any, add_special_tokens: bool) -> list[list[int]]:
            return ByteTokenizer().encode_batch(texts, add_special_tokens)

        def encode_with_offsets(self, text: str, add_special_tokens: bool) -> Encoded:
            return ByteTokenizer().encode_with_offsets(text, add_special_tokens)

        def decode(self, ids: Any) -> str:
            return ByteTokenizer().decode(ids)

    assert cuts_of(Foreign(), False) is None
