from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.analytic import AnalyticModel, analytic_model, closed_form, words_of
from actors.lexicon import SENTIMENT
from engine.errors import ConfigError


def log_odds(model: AnalyticModel, words: list[str]) -> float:
    negative, positive = model.log_probs(" ".join(words))
    return positive - negative


def shapley(model: AnalyticModel, words: list[str]) -> np.ndarray:
    """The average marginal contribution over all orders, straight from the definition."""
    values = np.zeros(len(words))
    orders = list(permutations(range(len(words))))
    for order in orders:
        kept: set[int] = set()
        for player in order:
            before = log_odds(model, [words[i] for i in sorted(kept)])
            kept.add(player)
            values[player] += log_odds(model, [words[i] for i in sorted(kept)]) - before
    return values / len(orders)


def test_linear_adds_the_weight_of_every_occurrence() -> None:
    model = analytic_model("fake:linear", {"bias": 0.25})
    expected = 0.25 + 2 * SENTIMENT["good"] + SENTIMENT["awful"]
    assert log_odds(model, ["Good,", "good", "but", "AWFUL!"]) == pytest.approx(expected)
    assert log_odds(model, ["Review", "Sentiment"]) == pytest.approx(0.25)


def test_the_log_probabilities_are_those_of_a_distribution() -> None:
    for text in ("", "good", "awful " * 100, "brilliant " * 500):
        log_probs = analytic_model("fake:linear").log_probs(text)
        assert sum(map(math.exp, log_probs)) == pytest.approx(1.0)


def test_the_lexicon_has_words_of_both_kinds() -> None:
    assert len(SENTIMENT) >= 150
    assert sum(weight > 0 for weight in SENTIMENT.values()) >= 60
    assert sum(weight < 0 for weight in SENTIMENT.values()) >= 60
    assert all(words_of(word) == [word] for word in SENTIMENT)


def test_groups_count_once() -> None:
    options = {"weights": {}, "groups": [{"all": ["not", "good"], "weight": -3.0}]}
    model = analytic_model("fake:planted", options)
    assert log_odds(model, ["good"]) == pytest.approx(0)
    assert log_odds(model, ["not", "good", "not"]) == pytest.approx(-3.0)
    either = analytic_model("fake:planted", {"groups": [{"any": ["a", "b"], "weight": 2.0}]})
    assert log_odds(either, ["a", "b", "b"]) == pytest.approx(2.0)


def test_a_pair_shares_its_weight_equally() -> None:
    model = analytic_model("fake:planted", {"groups": [{"all": ["not", "good"], "weight": -3.0}]})
    np.testing.assert_allclose(closed_form(model, ["it", "is", "not", "good"]), [0, 0, -1.5, -1.5])
    np.testing.assert_allclose(closed_form(model, ["it", "is", "good"]), [0, 0, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d", "E!", "d-d"]), min_size=1, max_size=6))
def test_the_closed_form_is_the_shapley_value(words: list[str]) -> None:
    groups = [
        {"all": ["a", "b", "c"], "weight": 2.0},
        {"all": ["a", "d"], "weight": -1.0},
        {"any": ["b", "e"], "weight": 0.5},
    ]
    model = analytic_model("fake:planted", {"weights": {"d": 1.25, "e": -0.5}, "groups": groups})
    found = closed_form(model, words)
    np.testing.assert_allclose(found, shapley(model, words), atol=1e-12)
    gain = log_odds(model, words) - log_odds(model, [])
    np.testing.assert_allclose(found.sum(), gain, atol=1e-12)


def test_and_or_turns_the_sense_of_a_negated_word() -> None:
    model = analytic_model("fake:and_or")
    assert log_odds(model, ["good"]) > 0
    assert log_odds(model, ["not", "good"]) < 0


def test_several_labels_take_a_list_of_weights_a_word() -> None:
    model = analytic_model("fake:linear", {"weights": {"red": [1, 0, 0], "blue": [0, 0, 2]}})
    assert model.n_labels == 3
    logits = np.array(model.log_probs("Red blue"))
    np.testing.assert_allclose(logits - logits[1], [1, 0, 2], atol=1e-12)
    with pytest.raises(ValueError, match="two labels"):
        closed_form(model, ["red"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fake:nothing", {}),
        ("fake:planted", {}),
        ("fake:linear", {"weights": {"a": "x"}}),
        ("fake:linear", {"weights": {"a": float("nan")}}),
        ("fake:linear", {"weights": {"a": [1, 2], "b": [1, 2, 3]}}),
        ("fake:and_or", {"groups": [{"all": ["a"], "any": ["b"], "weight": 1}]}),
        ("fake:and_or", {"groups": [{"all": [], "weight": 1}]}),
    ],
)
def test_wrong_models_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        analytic_model(name, options)


_BATCH_PIECES = [
    "good", "Bad", "NOT", "not", "never", "boring", "wonderfully", "unforgettable", "love", "don't",
    "don’t", "'", "’", " ", " ", ",", ".", "_", "9", "é", "Σ", "ΑΣ.Α", "ς", "İ", "中", "\u0301",
    "\x00",
]  # fmt: skip
_batch_texts = st.one_of(
    st.lists(st.sampled_from(_BATCH_PIECES), max_size=12).map(lambda p: "".join(p).encode()),
    st.lists(st.sampled_from([*SENTIMENT, "not", "no", "problem"]), max_size=30).map(
        lambda words: " ".join(words).encode()
    ),
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=12),
)
_OWN = {"weights": {"good": [1.0, -0.5, 0.25], "don't": [0.0, 2.0, 0.0], "é": [0.5, 0.0, 1.0]}}
_BATCH_MODELS = {
    "linear": ("fake:linear", {"bias": 0.3}),
    "and_or": ("fake:and_or", None),
    "planted": ("fake:planted", {**_OWN, "bias": [0.1, 0.2, -0.3]}),
    "group of long words": (
        "fake:planted",
        {"groups": [{"any": ["wonderfully", "unforgettable", "ας"], "weight": 0.7}]},
    ),
}


@pytest.mark.parametrize("name", _BATCH_MODELS)
@settings(deadline=None)
@given(texts=st.lists(_batch_texts, max_size=12))
def test_a_batch_is_its_texts_one_by_one(name: str, texts: list[bytes]) -> None:
    model = analytic_model(*_BATCH_MODELS[name])
    offsets = np.cumsum([0, *map(len, texts)])
    flat = np.frombuffer(b"".join(texts), dtype=np.uint8)
    found = model.log_probs_batch(flat, offsets)
    assert found.shape == (len(texts), model.n_labels)
    assert found.dtype == np.float64
    expected = [model.log_probs(text.decode(errors="replace")) for text in texts]
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=0, atol=1e-12)
