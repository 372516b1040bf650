"""Deletion: one separator goes with the word, and nothing is glued."""

from __future__ import annotations

import pytest

from engine.deletion import cut_spans, delete_spans
from engine.features import split_features


def without(text: str, removed: str) -> str:
    """Remove the words of `removed` from `text`, one occurrence each."""
    wanted = removed.split()
    spans = []
    for feature in split_features({"text": text}, "words"):
        if feature.text in wanted:
            wanted.remove(feature.text)
            spans.append(feature.spans[0][:2])
    assert not wanted
    return delete_spans(text, spans)


@pytest.mark.parametrize(
    ("text", "removed", "expected"),
    [
        ("a good film", "good", "a film"),
        ("a good film", "a", "good film"),
        ("a good film", "film", "a good"),
        ("a good film", "a film", "good"),
        ("a good film", "a good film", ""),
        ("very very good", "very", "very good"),
        ("not note not", "not not", "note"),  # never a part of another word
        ("  a good\n", "a", "  good\n"),
        ("  a good\n", "good", "  a\n"),
        ("  a good\n", "a good", ""),
        ("a  good\tfilm", "good", "a  film"),
        ("a\r\ngood\r\nfilm", "good", "a\r\nfilm"),
        ("so good, or bad.", "good", "so, or bad."),
        ("so good, or bad.", "bad", "so good, or."),
        ("good, bad.", "good bad", ",."),
        ("so (very good) film", "very", "so (good) film"),
        ("(very good)", "very", "(good)"),
        ("a very good film", "very good", "a film"),
        ("x y -- z", "y", "x -- z"),
        ("great🙂 nice", "great", "🙂 nice"),
        ("so great🙂 nice", "great", "so 🙂 nice"),
        ("great🙂nice", "🙂", "great nice"),
        ("🙂good🙂", "good", "🙂 🙂"),
        ("3.🙂5", "🙂", "3. 5"),
        ("yes/no/so", "no", "yes//so"),
        ("this e\u0301te\u0301 ends", "e\u0301te\u0301", "this ends"),
        ("شاهدت الفيلم وكان", "الفيلم", "شاهدت وكان"),
    ],
)
def test_delete(text: str, removed: str, expected: str) -> None:
    assert without(text, removed) == expected


def test_nothing_removed_is_the_text() -> None:
    for text in ("", "  ", " a  b \r\n"):
        assert delete_spans(text, []) == text
        assert cut_spans(text, [], "x") == text


def test_cutting_keeps_all_separators() -> None:
    text = "the movie was not good at all but fun"
    features = split_features({"text": text}, "words")
    spans = [f.spans[0][:2] for f in features if f.text not in ("the", "but")]
    assert cut_spans(text, spans) == "the       but "
    assert cut_spans("a b, c", [(0, 1), (2, 3)], "[MASK]") == "[MASK] [MASK], c"
