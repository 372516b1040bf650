"""The rule-based splitter of sentences."""

from __future__ import annotations

import pytest

from engine.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \r\n ", []),
        ("One.", ["One."]),
        ("no end", ["no end"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("Dr. Who vs. Mr. T. It was 3.5 stars, e.g. fine.",
         ["Dr. Who vs. Mr. T. It was 3.5 stars, e.g. fine."]),
        ("it 's slow . very slow .", ["it 's slow .", "very slow ."]),
        ("good. loved it", ["good.", "loved it"]),
        ("well... maybe. Well... Maybe.", ["well... maybe.", "Well...", "Maybe."]),
        ("a line\r\nanother\n\nlast", ["a line", "another", "last"]),
        ("Great! 🙂 Really.", ["Great!", "🙂 Really."]),
        ("Great !! ?? Yes.", ["Great !! ??", "Yes."]),
        ("... Yes. No.", ["... Yes.", "No."]),
        ("!!!", ["!!!"]),
        ("很好。不错!好", ["很好。", "不错!好"]),
        ("هل أعجبك؟ نعم.", ["هل أعجبك؟", "نعم."]),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected
