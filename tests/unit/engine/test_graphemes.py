"""Graphemes: marks, emoji sequences, flags and keycaps are one."""

from __future__ import annotations

import pytest

from engine.graphemes import CharKind, graphemes, kind_of


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",
        "a\u0301\u0323",
        "נָ",
        "कि",
        "👍🏽",
        "👩\u200d👩\u200d👧",
        "❤\ufe0f\u200d🔥",
        "🇩🇪",
        "1\ufe0f\u20e3",
        "#\ufe0f\u20e3",
        "‼\ufe0f",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
)
def test_one_grapheme(cluster: str) -> None:
    text = f"x {cluster} y"
    found = [text[g.start : g.end] for g in graphemes(text)]
    assert found == ["x", " ", cluster, " ", "y"]


def test_neighbours_stay_apart() -> None:
    text = "🇩🇪🇫🇷🙂🙂a\u200d🙂"
    found = [text[g.start : g.end] for g in graphemes(text)]
    assert found == ["🇩🇪", "🇫🇷", "🙂", "🙂", "a\u200d", "🙂"]


def test_together_they_are_the_text() -> None:
    text = "\u0301 \u0301é🙂\r\n1️⃣ !\u200b"
    parts = graphemes(text)
    assert "".join(text[g.start : g.end] for g in parts) == text
    assert all(g.kind is not CharKind.EXTEND for g in parts)


@pytest.mark.parametrize(
    ("characters", "kind"),
    [
        ("aZéßжם中あ9½²Ⅷ", CharKind.WORD),
        (" \t\r\n\u00a0\u3000", CharKind.SPACE),
        ("🙂★™°\ue000\U0001fae9", CharKind.SYMBOL),
        (".,!?'’-—_$+<«\u200b\x00", CharKind.PUNCTUATION),
        ("\u0301\u200d\ufe0f🏽\u200f", CharKind.EXTEND),
    ],
)
def test_kinds(characters: str, kind: CharKind) -> None:
    assert {kind_of(character) for character in characters} == {kind}
