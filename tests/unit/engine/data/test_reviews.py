"""The project's own reviews: what their file promises, checked over every row."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

REVIEWS = Path(__file__).resolve().parents[4] / "engine" / "data" / "reviews.jsonl"
FIELDS = {"id", "text", "label", "label_name", "kind", "author_marked"}
LABEL_NAMES = {0: "negative", 1: "positive"}
KINDS = {"plain", "negation", "mixed"}
WORD = re.compile(r"[\w'’-]+")
MIN_ROWS = 200
MIN_WORDS, MAX_WORDS = 5, 40
MIN_NEGATION, MIN_MIXED = 40, 30
MAX_MARKS = 6
MAX_OVERLAP = 0.5

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """All rows of the file, in its order."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def marks(row: Row) -> list[tuple[int, int]]:
    """The author's marked spans of a row's text, start inclusive, end exclusive."""
    return [(start, end) for start, end in row["author_marked"]["text"]]


def test_rows_have_exactly_the_agreed_fields(rows: list[Row]) -> None:
    """Each row has the six fields, a known kind, and marks on its text alone."""
    wrong = [
        row.get("id")
        for row in rows
        if set(row) != FIELDS or row["kind"] not in KINDS or set(row["author_marked"]) != {"text"}
    ]
    assert not wrong, f"rows with wrong fields: {wrong}"


def test_there_are_enough_rows(rows: list[Row]) -> None:
    """The file has at least the promised number of reviews."""
    assert len(rows) >= MIN_ROWS, f"{len(rows)} rows, fewer than {MIN_ROWS}"


def test_ids_are_unique_and_sorted(rows: list[Row]) -> None:
    """No id occurs twice, and the rows are in the order of their ids."""
    ids = [row["id"] for row in rows]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    assert not twice, f"ids that occur more than once: {twice}"
    unsorted = [after for before, after in itertools.pairwise(ids) if after < before]
    assert not unsorted, f"ids that come after a larger one: {unsorted}"


def test_half_of_the_reviews_are_positive(rows: list[Row]) -> None:
    """The two labels are exactly balanced."""
    positive = sum(row["label"] == 1 for row in rows)
    assert 2 * positive == len(rows), f"{positive} of {len(rows)} rows are positive"


def test_labels_are_mixed_along_the_file(rows: list[Row]) -> None:
    """Each quarter of the file holds both labels in fair number."""
    size = len(rows) // 4
    for start in range(0, 4 * size, size):
        part = rows[start : start + size]
        positive = sum(row["label"] == 1 for row in part)
        assert size // 3 <= positive <= size - size // 3, (
            f"{positive} of {size} rows are positive from {part[0]['id']} to {part[-1]['id']}"
        )


def test_label_name_agrees_with_label(rows: list[Row]) -> None:
    """A label is 0 or 1, and its name says the same."""
    wrong = [row["id"] for row in rows if LABEL_NAMES.get(row["label"]) != row["label_name"]]
    assert not wrong, f"rows whose label and label_name disagree: {wrong}"


def test_texts_are_of_the_agreed_length(rows: list[Row]) -> None:
    """Every text has 5 to 40 whitespace-separated words."""
    wrong = {
        row["id"]: count
        for row in rows
        if not MIN_WORDS <= (count := len(row["text"].split())) <= MAX_WORDS
    }
    assert not wrong, f"rows too short or too long, with their words: {wrong}"


def test_texts_have_clean_whitespace(rows: list[Row]) -> None:
    """Words are set apart by single spaces, with none at the ends."""
    wrong = [row["id"] for row in rows if row["text"] != " ".join(row["text"].split())]
    assert not wrong, f"rows with stray whitespace: {wrong}"


@pytest.mark.parametrize(("kind", "least"), [("negation", MIN_NEGATION), ("mixed", MIN_MIXED)])
def test_hard_kinds_are_well_represented(rows: list[Row], kind: str, least: int) -> None:
    """The hard kinds are frequent, and each occurs with both labels."""
    labels = Counter(row["label"] for row in rows if row["kind"] == kind)
    assert labels.total() >= least, f"{labels.total()} {kind} rows, fewer than {least}"
    assert set(labels) == {0, 1}, f"{kind} rows have labels {sorted(labels)} only"


def test_no_text_occurs_twice(rows: list[Row]) -> None:
    """No two texts are equal, letter case and punctuation aside."""
    seen: dict[tuple[str, ...], str] = {}
    twice: list[tuple[str, str]] = []
    for row in rows:
        words = tuple(WORD.findall(row["text"].lower()))
        if words in seen:
            twice.append((seen[words], row["id"]))
        seen.setdefault(words, row["id"])
    assert not twice, f"pairs of equal texts: {twice}"


def test_no_pair_shares_more_than_half_of_its_words(rows: list[Row]) -> None:
    """Over all pairs, at most half of the smaller set of words is in the larger."""
    words = [(row["id"], set(WORD.findall(row["text"].lower()))) for row in rows]
    wrong = [
        (first, second, round(overlap, 3))
        for (first, a), (second, b) in itertools.combinations(words, 2)
        if (overlap := len(a & b) / min(len(a), len(b))) > MAX_OVERLAP
    ]
    assert not wrong, f"pairs that share more than half of their words: {wrong}"


def test_marks_are_valid_spans_of_the_text(rows: list[Row]) -> None:
    """Each row has 1 to 6 spans, none empty and none outside of its text."""
    wrong = [
        row["id"]
        for row in rows
        if not 1 <= len(marks(row)) <= MAX_MARKS
        or not all(0 <= start < end <= len(row["text"]) for start, end in marks(row))
    ]
    assert not wrong, f"rows with no, too many or invalid spans: {wrong}"


def test_marks_are_sorted_and_do_not_overlap(rows: list[Row]) -> None:
    """Each span starts after the one before it has ended."""
    wrong = [
        row["id"]
        for row in rows
        if any(after[0] < before[1] for before, after in itertools.pairwise(marks(row)))
    ]
    assert not wrong, f"rows with unsorted or overlapping spans: {wrong}"


def test_marks_start_and_end_at_words(rows: list[Row]) -> None:
    """A span starts where a word starts and ends where a word ends."""
    wrong: list[tuple[str, str]] = []
    for row in rows:
        words = [match.span() for match in WORD.finditer(row["text"])]
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        wrong += [
            (row["id"], row["text"][start:end])
            for start, end in marks(row)
            if start not in starts or end not in ends
        ]
    assert not wrong, f"spans that are not word-aligned: {wrong}"


def test_marks_never_cover_the_whole_text(rows: list[Row]) -> None:
    """In every row at least one word stays unmarked."""
    wrong = [
        row["id"]
        for row in rows
        if all(
            any(start <= word.start() and word.end() <= end for start, end in marks(row))
            for word in WORD.finditer(row["text"])
        )
    ]
    assert not wrong, f"rows marked as a whole: {wrong}"
