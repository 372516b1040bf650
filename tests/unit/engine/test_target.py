from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.target import LOG_FLOOR, Normaliser, normalise, transform
from engine.types import FloatCL, Target

SCORES = st.integers(2, 12).flatmap(
    lambda n: arrays(np.float64, (3, n), elements=st.floats(-60, 0, width=32))
)
NORMALISERS: tuple[Normaliser, ...] = ("labels", "vocab")
TARGETS: tuple[Target, ...] = ("log_odds", "probability", "logprob")


def softmax(scores: FloatCL) -> FloatCL:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


class TestClosedForms:
    def test_log_odds_of_two_labels_are_the_difference(self) -> None:
        values = transform(np.array([[-1.0, -3.5]]), "log_odds")
        np.testing.assert_allclose(values, [[2.5, -2.5]], atol=1e-12)

    def test_log_odds_of_three_labels(self) -> None:
        p = np.array([[0.5, 0.3, 0.2]])
        values = transform(np.log(p * 0.01), "log_odds")
        np.testing.assert_allclose(values, np.log(p / (1 - p)), atol=1e-12)

    def test_probability_over_labels_and_over_the_vocabulary(self) -> None:
        p = np.array([[0.2, 0.1, 0.1]])
        np.testing.assert_allclose(transform(np.log(p), "probability"), [[0.5, 0.25, 0.25]])
        np.testing.assert_allclose(transform(np.log(p), "probability", "vocab"), p)

    def test_logprob_over_labels_and_over_the_vocabulary(self) -> None:
        p = np.array([[0.2, 0.1, 0.1]])
        np.testing.assert_allclose(transform(np.log(p), "logprob"), np.log([[0.5, 0.25, 0.25]]))
        np.testing.assert_allclose(transform(np.log(p), "logprob", "vocab"), np.log(p))

    def test_many_labels(self) -> None:
        scores = np.random.default_rng(0).normal(size=(4, 50)) * 5
        p = softmax(scores)
        np.testing.assert_allclose(transform(scores, "probability"), p, rtol=1e-12)
        np.testing.assert_allclose(transform(scores, "logprob"), np.log(p), rtol=1e-10)
        odds = np.log(p) - np.log(np.stack([np.delete(p, j, 1).sum(1) for j in range(50)], 1))
        np.testing.assert_allclose(transform(scores, "log_odds"), odds, rtol=1e-9)


@given(SCORES, st.floats(-500, 10))
def test_log_odds_do_not_depend_on_the_normaliser(scores: FloatCL, shift: float) -> None:
    values = transform(scores, "log_odds")
    np.testing.assert_allclose(transform(scores + shift, "log_odds"), values, atol=1e-9)
    np.testing.assert_allclose(transform(normalise(scores), "log_odds"), values, atol=1e-9)
    np.testing.assert_array_equal(transform(scores, "log_odds", "vocab"), values)


@given(SCORES)
def test_targets_agree_with_one_another(scores: FloatCL) -> None:
    p = transform(scores, "probability")
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_allclose(np.log(p), transform(scores, "logprob"), atol=1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-transform(scores, "log_odds"))), p, atol=1e-12)


def test_labels_of_many_tokens_keep_their_odds() -> None:
    """Improbable by their length alone: both lie far below the floor, their ratio doesn't."""
    values = transform(np.array([[-210.0, -200.0]]), "log_odds")
    np.testing.assert_allclose(values, [[-10.0, 10.0]])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "scores",
    [[0.0, -np.inf], [-np.inf, -np.inf], [0.0, -1e9], [-np.inf, -1e9, -3.0], [0.0, 0.0]],
)
def test_probabilities_of_zero_and_one_stay_finite(target: Target, scores: list[float]) -> None:
    for normaliser in NORMALISERS:
        assert np.isfinite(transform(np.array([scores]), target, normaliser)).all()


def test_the_floor_bounds_the_odds_of_certainty() -> None:
    values = transform(np.array([[0.0, -np.inf]]), "log_odds")
    np.testing.assert_array_equal(values, [[-LOG_FLOOR, LOG_FLOOR]])


def test_a_single_label_has_no_odds() -> None:
    with pytest.raises(ValueError, match="two labels"):
        transform(np.array([[-1.0]]), "log_odds")
    np.testing.assert_array_equal(transform(np.array([[-1.0]]), "probability"), [[1.0]])
    np.testing.assert_array_equal(transform(np.array([[-1.0]]), "logprob", "vocab"), [[-1.0]])


def test_normalise_sums_to_one_far_below_zero() -> None:
    np.testing.assert_allclose(
        np.exp(normalise(np.array([[-1000.0, -1001.0]]))).sum(), 1.0, rtol=1e-12
    )
