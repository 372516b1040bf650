from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as oracle

from engine.metrics import performance

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def sample(n_labels: int, n: int = 120, seed: int = 0, digits: int = 2) -> Arrays:
    """Labels that lean towards gold; rounded probabilities, so that some tie."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, n_labels, size=n)
    logits = rng.normal(size=(n, n_labels)) + 1.2 * np.eye(n_labels)[gold]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if n_labels == 2:
        probabilities = np.round(probabilities, digits)
    return gold, probabilities.argmax(axis=1), probabilities


@pytest.mark.parametrize("n_labels", [2, 3, 7])
def test_classification_metrics_equal_sklearns(n_labels: int) -> None:
    gold, predicted, _ = sample(n_labels)
    counts = performance.class_counts(gold, predicted, n_labels)
    each = oracle.precision_recall_fscore_support(gold, predicted, zero_division=0)
    macro = oracle.precision_recall_fscore_support(
        gold, predicted, average="macro", zero_division=0
    )
    for i, define in enumerate((performance.precision, performance.recall, performance.f1)):
        np.testing.assert_allclose(define(counts)[0], each[i])
        assert performance.macro(define(counts))[0] == pytest.approx(macro[i])
    assert performance.accuracy(counts)[0] == pytest.approx(oracle.accuracy_score(gold, predicted))
    assert performance.mcc(counts)[0] == pytest.approx(oracle.matthews_corrcoef(gold, predicted))
    np.testing.assert_array_equal(
        performance.confusion_matrix(gold, predicted, n_labels),
        oracle.confusion_matrix(gold, predicted),
    )


def test_labels_that_are_missed_or_never_meant_count_as_sklearn_counts_them() -> None:
    gold, predicted = np.array([0, 0, 1, 1]), np.array([0, 3, 0, 0])
    counts = performance.class_counts(gold, predicted, 5)
    assert np.isnan(performance.f1(counts)[0]).tolist() == [False, False, True, False, True]
    expected = oracle.f1_score(gold, predicted, average="macro", zero_division=0)
    assert performance.macro(performance.f1(counts))[0] == pytest.approx(expected)


@pytest.mark.parametrize("predicted", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_mcc_of_a_constant_prediction_is_zero(predicted: list[int]) -> None:
    counts = performance.class_counts(np.array([0, 1, 1, 0]), np.array(predicted), 2)
    assert performance.mcc(counts).tolist() == [0.0]


def test_majority_rate() -> None:
    gold = np.array([2, 2, 2, 0, 1])
    assert performance.majority_rate(performance.class_counts(gold, gold, 3)).tolist() == [0.6]


@pytest.mark.parametrize("digits", [1, 6])
def test_binary_auroc_equals_sklearns_with_and_without_ties(digits: int) -> None:
    gold, _, probabilities = sample(2, digits=digits)
    expected = oracle.roc_auc_score(gold, probabilities[:, 1])
    assert performance.auroc(gold, probabilities)[0] == pytest.approx(expected, abs=1e-12)


def test_auroc_of_many_labels_is_macro_one_vs_rest() -> None:
    gold, _, probabilities = sample(4)
    expected = oracle.roc_auc_score(gold, probabilities, multi_class="ovr", average="macro")
    assert performance.auroc(gold, probabilities)[0] == pytest.approx(expected, abs=1e-12)


def test_auroc_is_undefined_without_two_classes() -> None:
    halves = np.full((3, 2), 0.5)
    assert np.isnan(performance.auroc(np.ones(3, dtype=int), halves)).all()
    assert np.isnan(performance.auroc(np.zeros(3, dtype=int), np.ones((3, 1)))).all()


def test_constant_probabilities_have_an_auroc_of_a_half() -> None:
    assert performance.auroc(np.array([0, 1, 1]), np.full((3, 2), 0.5)).tolist() == [0.5]


@pytest.mark.parametrize("n_labels", [2, 4])
def test_nll_and_brier_equal_sklearns(n_labels: int) -> None:
    gold, _, probabilities = sample(n_labels, digits=3)
    one_hot = np.eye(n_labels)[gold]
    expected = oracle.log_loss(gold, probabilities)
    assert performance.nll(gold, probabilities).mean() == pytest.approx(expected)
    expected = (
        oracle.brier_score_loss(gold, probabilities[:, 1])
        if n_labels == 2
        else ((probabilities - one_hot) ** 2).sum(axis=1).mean()
    )
    assert performance.brier(gold, probabilities).mean() == pytest.approx(expected)


def test_a_probability_of_zero_costs_a_finite_80_nats() -> None:
    assert performance.nll(np.array([0]), np.array([[0.0, 1.0]])).tolist() == pytest.approx([80.0])


def test_calibration_error_by_hand() -> None:
    correct = np.array([True, False, True, True])
    # 0.35 alone in the 6th bin; 0.95 three times in the last one
    confidence = np.array([0.35, 0.95, 0.95, 0.95])
    expected = 0.25 * 0.65 + 0.75 * abs(2 / 3 - 0.95)
    assert performance.ece(correct, confidence)[0] == pytest.approx(expected)
    assert performance.ece(np.array([True]), np.array([1.0])).tolist() == [0.0]


@pytest.mark.parametrize("n_labels", [2, 3])
def test_weights_stand_for_repeated_examples(n_labels: int) -> None:
    gold, predicted, probabilities = sample(n_labels, n=30)
    times = np.random.default_rng(1).integers(0, 4, size=30)
    weights = times[None, :].astype(float)
    again = np.repeat(np.arange(30), times)
    counts = performance.class_counts(gold, predicted, n_labels, weights)
    repeated = performance.class_counts(gold[again], predicted[again], n_labels)
    for ours, theirs in zip(counts, repeated, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(
        performance.auroc(gold, probabilities, weights),
        performance.auroc(gold[again], probabilities[again]),
    )
    top = probabilities.max(axis=1)
    right = gold == predicted
    np.testing.assert_allclose(
        performance.ece(right, top, weights), performance.ece(right[again], top[again])
    )
