"""Labels: their tokens are those after the prompt, and strings that clash are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from engine.errors import ConfigError
from engine.prompts import parse_template, resolve_labels
from engine.tokens import ByteTokenizer, load_tokenizer

PLAIN = parse_template("Review: {text}\nSentiment:")
LABELS = {"bad": " negative", "good": " positive"}


@pytest.mark.parametrize("kind", ["bpe", "byte_level", "unigram", "fallback", "bytes"])
def test_tokens_of_prompt_and_label_together(kind: str, tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs[kind])
    labels = resolve_labels(PLAIN, tokenizer, LABELS)
    assert labels.names == ("bad", "good")
    assert labels.strings == (" negative", " positive")
    for text in ("A film like no other!", "e\u0301 🙂", "line\r\nline"):
        fields = {"text": text}
        prompt, *full = tokenizer.encode_batch(
            [PLAIN.render(fields), *(PLAIN.complete(fields, s) for s in labels.strings)], True
        )
        assert full == [prompt + list(ids) for ids in labels.token_ids]
    assert labels.longest == max(map(len, labels.token_ids))


def test_in_context_differs_from_the_label_alone(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs["unigram"])
    template = parse_template("Review: {text} Sentiment: well-")
    labels = resolve_labels(template, tokenizer, {"good": "good", "bad": "bad"})
    alone = tokenizer.encode_batch(["good"], False)[0]
    assert tokenizer.decode(labels.token_ids[0]) == "good"
    assert list(labels.token_ids[0]) != alone  # which begins with a blank


def test_merging_with_the_end_of_the_prompt(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs["bpe"])
    with pytest.raises(ConfigError, match="take the white space off the prompt's end"):
        resolve_labels(parse_template("{text} is "), tokenizer, {"good": "good", "bad": "bad"})
    with pytest.raises(ConfigError, match="add a leading space, ' d'"):
        resolve_labels(parse_template("{text}\nba"), tokenizer, {"x": "d", "y": "r"})
    assert resolve_labels(parse_template("{text} is"), tokenizer, {"g": " good", "b": " bad"})


def test_tokenizers_that_end_every_text_are_named(tokenizer_specs: dict[str, str]) -> None:
    content = json.loads(tokenizer_specs["unigram"])
    content["post_processor"]["single"].append({"SpecialToken": {"id": "<s>", "type_id": 0}})
    with pytest.raises(ConfigError, match="add_special_tokens to false"):
        resolve_labels(PLAIN, load_tokenizer(json.dumps(content)), LABELS)


def test_labels_right_after_the_text_must_not_depend_on_it(
    tokenizer_specs: dict[str, str],
) -> None:
    class Moody(ByteTokenizer):
        """Writes a label after a full stop in another way."""

        def encode_batch(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
            return [
                [b + 300 * (". good" in t and i >= len(t) - 5) for i, b in enumerate(t.encode())]
                for t in texts
            ]

    with pytest.raises(ConfigError, match="depend on the text before it"):
        resolve_labels(parse_template("{text}"), Moody(), {"g": " good", "b": " bad"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "no labels"),
        ({"a": " x", "b": ""}, "label 'b' is empty"),
        ({"a": " x", "b": " y", "c": " x"}, "'a' and 'c' are the same"),
        ({"a": " not good", "b": " bad", "c": " not"}, "'c' can't be told from 'a'"),
    ],
)
def test_strings_that_clash_are_refused(labels: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_labels(PLAIN, ByteTokenizer(), labels)


def test_tokens_that_clash_are_refused(tokenizer_specs: dict[str, str]) -> None:
    tokenizer = load_tokenizer(tokenizer_specs["unigram"])
    # other strings, but compatibility normalisation makes them the same tokens
    with pytest.raises(ConfigError, match="'a' and 'b' are the same"):
        resolve_labels(PLAIN, tokenizer, {"a": " ﬁlm", "b": " film"})
    with pytest.raises(ConfigError, match="its tokens are the beginning"):
        resolve_labels(PLAIN, tokenizer, {"a": " ﬁ", "b": " film"})


def test_one_label_and_a_thousand() -> None:
    assert resolve_labels(PLAIN, ByteTokenizer(), {"only": " x"}).longest == 2
    many = {str(i): f" {i:04d}" for i in range(1200)}
    assert len(resolve_labels(PLAIN, ByteTokenizer(), many).token_ids) == 1200
