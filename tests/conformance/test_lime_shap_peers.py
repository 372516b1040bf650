"""Our compat profiles against the installed lime and shap, on texts and analytic games."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import shap
from lime.explanation import Explanation
from lime.lime_text import IndexedString, LimeTextExplainer

from engine.explainers import build, solve
from engine.explainers.compat_shap import draw
from engine.features import LIME_SPLIT, split_features
from engine.types import Attribution

Classifier = Callable[[list[str]], np.ndarray]

TEXTS = [
    "the movie was not good at all but fun",
    "Not bad, not bad at all: the cast is good and the script is fun, fun, fun!",
    "fun",
    "good but not good",
    "A long, slow film about nothing that I would not watch again, even if the good cast were fun "
    "and the music by an old master could save at least one of its three dull acts.",
]
LEXICON = {"good": 1.0, "not": -1.5, "fun": 0.5, "bad": -0.8, "dull": -0.4, "slow": -0.3}


def _classify(texts: list[str]) -> np.ndarray:
    """Return P(negative), P(positive) of a bag of words with one interaction."""
    scores = []
    for text in texts:
        words = re.findall(r"\w+", text)
        present = {word.lower() for word in words}
        score = sum(weight for word, weight in LEXICON.items() if word in present)
        scores.append(score + 0.9 * ("not" in present and "bad" in present) + 0.01 * len(words))
    positive = 1 / (1 + np.exp(-np.array(scores)))
    return np.stack([1 - positive, positive], axis=1)


def _bag_of_words(text: str) -> tuple[list[str], Callable[[np.ndarray], list[str]]]:
    """Return the distinct words and a function from coalitions to texts, separators kept."""
    pieces = re.split(r"(\w+)", text)
    words = list(dict.fromkeys(pieces[1::2]))

    def render(z: np.ndarray) -> list[str]:
        kept = [{word for word, keep in zip(words, row, strict=True) if keep} for row in z]
        return [
            "".join(p for i, p in enumerate(pieces) if i % 2 == 0 or p in keep) for keep in kept
        ]

    return words, render


def _positions(text: str) -> tuple[int, Callable[[np.ndarray], list[str]]]:
    """Return the number of words and a function from coalitions to texts with UNKWORDZ."""
    pieces = re.split(r"(\w+)", text)

    def render(z: np.ndarray) -> list[str]:
        def word(i: int, row: np.ndarray) -> str:
            return pieces[i] if i % 2 == 0 or row[i // 2] else "UNKWORDZ"

        return ["".join(word(i, row) for i in range(len(pieces))) for row in z]

    return len(pieces) // 2, render


def _assert_equals_lime(explanation: Explanation, result: Attribution, n_features: int) -> None:
    for label in (0, 1):
        theirs = np.zeros(n_features)
        for feature, weight in explanation.local_exp[label]:
            theirs[feature] = weight
        np.testing.assert_allclose(result.values[label], theirs, atol=1e-6)
        assert result.base[label] == pytest.approx(explanation.intercept[label], abs=1e-6)
    assert result.r2[1] == pytest.approx(explanation.score, abs=1e-6)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "params",
    [
        {"num_features": 10, "num_samples": 200, "seed": 42},
        {"num_features": 4, "num_samples": 150, "seed": 7},
        {"num_features": 5, "num_samples": 120, "seed": 1, "feature_selection": "lasso_path"},
        {"num_features": 3, "num_samples": 120, "seed": 1, "feature_selection": "highest_weights"},
        {"num_features": 12, "num_samples": 90, "seed": 2, "feature_selection": "none"},
        {"num_features": 8, "num_samples": 90, "seed": 3, "kernel_width": 10.0},
    ],
)
def test_lime_on_bags_of_words(text: str, params: dict) -> None:
    words, render = _bag_of_words(text)
    theirs = LimeTextExplainer(
        random_state=params["seed"],
        feature_selection=params.get("feature_selection", "auto"),
        kernel_width=params.get("kernel_width", 25),
    ).explain_instance(
        text,
        _classify,
        labels=(0, 1),
        num_features=params["num_features"],
        num_samples=params["num_samples"],
    )
    ours = build("lime", compat="lime", **params)
    result = solve(ours, lambda z: _classify(render(z)), len(words))
    _assert_equals_lime(theirs, result, len(words))
    assert result.evaluations <= params["num_samples"]


def test_lime_on_word_positions() -> None:
    text = TEXTS[1]
    n_words, render = _positions(text)
    theirs = LimeTextExplainer(random_state=11, bow=False).explain_instance(
        text, _classify, labels=(0, 1), num_samples=300
    )
    ours = build("lime", compat="lime", num_samples=300, seed=11)
    _assert_equals_lime(theirs, solve(ours, lambda z: _classify(render(z)), n_words), n_words)


def test_golden_lime() -> None:
    words, render = _bag_of_words("the movie was not good at all but fun")

    def positive(z: np.ndarray) -> np.ndarray:
        score = [
            1.0 * ("good" in text) - 1.5 * ("not" in text) + 0.5 * ("fun" in text)
            for text in render(z)
        ]
        return 1 / (1 + np.exp(-np.array(score)))

    result = solve(build("lime", num_samples=200, seed=42, compat="lime"), positive, len(words))
    golden = {
        "not": -0.313677,
        "good": 0.203913,
        "fun": 0.101765,
        "the": -0.002561,
        "but": -0.00254,
        "movie": -0.002002,
        "all": 0.001082,
        "at": -0.001081,
        "was": -0.001031,
    }
    np.testing.assert_allclose(result.values[0], [golden[w] for w in words], atol=1e-6)
    assert result.base[0] == pytest.approx(0.510266, abs=1e-6)
    assert result.r2[0] == pytest.approx(0.995456, abs=1e-6)
    assert result.base[0] + result.values.sum() == pytest.approx(0.494134, abs=1e-6)


def test_default_profile_is_what_lime_tends_to() -> None:
    words, render = _bag_of_words(TEXTS[0])
    game = lambda z: _classify(render(z))  # noqa: E731
    truth = solve(build("lime", num_samples=2 ** len(words)), game, len(words)).values[1]
    runs = [
        LimeTextExplainer(random_state=seed).explain_instance(TEXTS[0], _classify, num_samples=5000)
        for seed in range(8)
    ]
    theirs = np.zeros((8, len(words)))
    for row, run in zip(theirs, runs, strict=True):
        for feature, weight in run.local_exp[1]:
            row[feature] = weight
    error = theirs.std(axis=0, ddof=1) / np.sqrt(8)
    assert (np.abs(theirs.mean(axis=0) - truth) < 5 * error + 1e-9).all()


@pytest.mark.parametrize(
    "text",
    ["Please, take your time. Please", "  two  spaces ", "it's", "naïve Ünïcode", "a\r\nb", *TEXTS],
)
def test_t13_words_and_positions_are_those_of_lime(text: str) -> None:
    indexed = IndexedString(text)
    features = split_features(
        {"text": text}, "words", bag_of_words=True, split_expression=LIME_SPLIT
    )
    assert [feature.text for feature in features] == list(indexed.inverse_vocab)
    ours = [[span.start for span in feature.spans] for feature in features]
    assert ours == [
        indexed.string_start[indexed.positions[word]].tolist() for word in range(len(features))
    ]


def test_t13_golden_positions() -> None:
    indexed = IndexedString("Please, take your time. Please")
    assert [list(p) for p in indexed.positions] == [[0, 8], [2], [4], [6]]


def _game(n: int, n_labels: int) -> Callable[[np.ndarray], np.ndarray]:
    random = np.random.default_rng(n)
    first, second = random.normal(size=(n, 6)), random.normal(size=(6, n_labels))

    def value(z: np.ndarray) -> np.ndarray:
        scores = np.exp(np.tanh(z @ first / 2) @ second)
        return scores / scores.sum(axis=1, keepdims=True)

    return value


def _shap_explainer(n: int, n_labels: int) -> shap.KernelExplainer:
    return shap.KernelExplainer(_game(n, n_labels), np.zeros((1, n)))


SHAP_CASES = [
    (2, 10),
    (3, 5),
    (5, 1000),
    (6, 20),
    (8, 100),
    (12, 500),
    (13, 200),
    (13, 2074),
    (20, None),
    (20, 37),
    (32, 300),
    (45, 120),
]


@pytest.mark.parametrize(("n", "budget"), SHAP_CASES)
@pytest.mark.parametrize("seed", [0, 5])
def test_shap_coalitions_and_weights(n: int, budget: int | None, seed: int) -> None:
    theirs = _shap_explainer(n, 2)
    np.random.seed(seed)
    theirs.shap_values(np.ones((1, n)), nsamples=budget or "auto", silent=True, l1_reg=False)
    masks = theirs.maskMatrix[: theirs.nsamplesAdded]
    ours = draw(seed, n, budget or 2 * n + 2048)
    np.testing.assert_array_equal(ours.coalitions, masks == 1)
    np.testing.assert_allclose(
        ours.weights, theirs.kernelWeights[: theirs.nsamplesAdded], rtol=1e-14
    )


@pytest.mark.parametrize(("n", "budget"), SHAP_CASES)
def test_shap_values_of_all_features(n: int, budget: int | None) -> None:
    if budget is not None and budget < n:
        pytest.skip("singular: the rounding decides")
    np.random.seed(0)
    theirs = _shap_explainer(n, 3).shap_values(
        np.ones((1, n)), nsamples=budget or "auto", silent=True, l1_reg=False
    )[0]
    explainer = build("kernel_shap", num_samples=budget, seed=0, compat="shap", l1_reg=False)
    result = solve(explainer, _game(n, 3), n)
    np.testing.assert_allclose(result.values, theirs.T, atol=1e-9)
    np.testing.assert_allclose(result.residual, 0, atol=1e-12)


@pytest.mark.parametrize("selection", ["num_features(10)", "num_features(3)", "aic", "bic", 0.01])
@pytest.mark.parametrize(("n", "budget"), [(8, 100), (13, 200), (20, 400), (25, 90)])
def test_shap_values_of_selected_features(selection: str | float, n: int, budget: int) -> None:
    np.random.seed(1)
    theirs = _shap_explainer(n, 2).shap_values(
        np.ones((1, n)), nsamples=budget, silent=True, l1_reg=selection
    )[0]
    explainer = build("kernel_shap", num_samples=budget, seed=1, compat="shap", l1_reg=selection)
    result = solve(explainer, _game(n, 2), n)
    np.testing.assert_allclose(result.values, theirs.T, atol=1e-9)


def test_shap_defaults() -> None:
    np.random.seed(0)
    theirs = _shap_explainer(16, 2).shap_values(np.ones((1, 16)), silent=True)[0]
    result = solve(build("kernel_shap", compat="shap"), _game(16, 2), 16)
    np.testing.assert_allclose(result.values, theirs.T, atol=1e-9)
    assert np.count_nonzero(result.values[0]) == 10
    assert result.diagnostics["l1_reg"] == "num_features(10)"
    assert result.evaluations == 2 * 16 + 2048 + 2


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[1]])
def test_shap_on_texts(text: str) -> None:
    words, render = _bag_of_words(text)
    n = len(words)
    game = lambda z: _classify(render(z))  # noqa: E731
    np.random.seed(3)
    theirs = shap.KernelExplainer(lambda z: game(z == 1), np.zeros((1, n))).shap_values(
        np.ones((1, n)), nsamples=120, silent=True
    )[0]
    result = solve(build("kernel_shap", num_samples=120, seed=3, compat="shap"), game, n)
    np.testing.assert_allclose(result.values, theirs.T, atol=1e-6)
