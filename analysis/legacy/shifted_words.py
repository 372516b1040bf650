"""Which words the explanations before and after fine-tuning weigh differently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from analysis.legacy.phases import PhaseRows
from analysis.legacy.shap_files import feature_texts
from analysis.load import RunTables

THRESHOLD = 0.1
"""Least change of a word's share of Σ|attribution|."""
LISTED = 10


class ShiftedWords(NamedTuple):
    """Words with the number of texts in which they gain or lose, the most frequent first."""

    gained: list[tuple[str, int]]
    lost: list[tuple[str, int]]


def shifted_words(
    run: RunTables, before: PhaseRows, after: PhaseRows, explainer: str, compared: pl.DataFrame
) -> ShiftedWords:
    """Return the words whose share of a text's Σ|attribution| changes by more than `THRESHOLD`.

    A word that stands in a text several times has the sum of its shares. Texts without any
    attribution on one side are left out.

    Args:
        run: The rows.
        before: The phase of the reference.
        after: The other one.
        explainer: Id of the explainer.
        compared: Rows of `shift_examples`: examples with the label whose values are compared.
    """
    wanted = dict(compared.select("example", "class_name").iter_rows())
    sides = [dict(_shares(run, phase, explainer, wanted)) for phase in (before, after)]
    gained: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for example in wanted:
        if example in sides[0] and example in sides[1]:
            first, second = (side[example] for side in sides)
            change = {word: second[word] - first[word] for word in first}
            gained.update(word for word, by in change.items() if by > THRESHOLD)
            lost.update(word for word, by in change.items() if by < -THRESHOLD)
    return ShiftedWords(_most(gained), _most(lost))


def _shares(
    run: RunTables, phase: PhaseRows, explainer: str, wanted: dict[str, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield examples with each word's share of Σ|attribution to the wanted label|."""
    texts = {
        row["example"]: (json.loads(row["inputs"]), row["labels"])
        for row in phase.of(run.predictions).iter_rows(named=True)
    }
    rows = phase.of(run.attributions).filter(pl.col("explainer") == explainer)
    for row in rows.iter_rows(named=True):
        label = wanted.get(row["example"])
        if label is None:
            continue
        inputs, labels = texts[row["example"]]
        sizes = _sizes(row, label, labels)
        if not sizes.sum() > 0:
            continue
        shares: dict[str, float] = {}
        words = feature_texts(row["spans"], inputs)
        for word, share in zip(words, (sizes / sizes.sum()).tolist(), strict=True):
            shares[word] = shares.get(word, 0.0) + share
        yield row["example"], shares


def _sizes(row: dict[str, Any], label: str, labels: Sequence[str]) -> npt.NDArray[np.float64]:
    own = row["class_name"] == label
    values = row["values"] if own else row["values_by_label"][labels.index(label)]
    return np.abs(np.array(values, dtype=np.float64))


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:LISTED]
