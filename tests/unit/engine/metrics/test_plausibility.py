from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from engine.metrics.plausibility import auprc, iou, rationale_mask, token_f1
from engine.types import Span

ALL = (iou, token_f1, auprc)


def test_a_feature_belongs_if_it_shares_a_character() -> None:
    # "not good at all": evidence "good a"
    words = [(Span(0, 3),), (Span(4, 8),), (Span(9, 11),), (Span(12, 15),)]
    assert rationale_mask(words, [Span(4, 10)]).tolist() == [False, True, True, False]
    assert rationale_mask(words, [Span(3, 4)]).tolist() == [False] * 4


def test_input_fields_are_kept_apart() -> None:
    words = [(Span(0, 3, "premise"),), (Span(0, 3, "hypothesis"),)]
    assert rationale_mask(words, [Span(0, 3, "hypothesis")]).tolist() == [False, True]


def test_a_feature_of_several_occurrences_belongs_if_one_does() -> None:
    types = [(Span(0, 3), Span(10, 13)), (Span(4, 9),)]
    assert rationale_mask(types, [Span(10, 13)]).tolist() == [True, False]


def test_overlap_by_hand() -> None:
    rationale = np.array([True, True, True, False, False])
    scores = np.array([5.0, 4.0, -9.0, 3.0, 0.0])  # top 3: features 0, 1, 3
    assert token_f1(scores, rationale) == pytest.approx(2 / 3)
    assert iou(scores, rationale) == pytest.approx(2 / 4)
    assert auprc(scores, rationale) == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_auprc_equals_sklearns_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 4, 40).astype(float)
    rationale = rng.random(40) < 0.3
    expected = average_precision_score(rationale, scores)
    assert auprc(scores, rationale) == pytest.approx(expected)


def test_perfect_and_opposite() -> None:
    rationale = np.array([True, False, False, False])
    assert [f(np.array([1.0, 0, 0, 0]), rationale) for f in ALL] == [1.0, 1.0, 1.0]
    assert [f(np.array([0.0, 1, 2, 3]), rationale) for f in ALL] == [0.0, 0.0, 0.25]


def test_ties_give_the_chance_level() -> None:
    rationale = np.array([True, False, False, False])
    assert token_f1(np.zeros(4), rationale) == pytest.approx(0.25)
    assert auprc(np.zeros(4), rationale) == pytest.approx(0.25)


@pytest.mark.parametrize("rationale", [[False, False], [True, True], []])
def test_undefined_where_the_rationale_is_empty_or_everything(rationale: list[bool]) -> None:
    mask = np.array(rationale, dtype=bool)
    assert [f(np.arange(len(mask)) * 1.0, mask) for f in ALL] == [None] * 3


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 scores"):
        iou(np.ones(2), np.array([True]))
