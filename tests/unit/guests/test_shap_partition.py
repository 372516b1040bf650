from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shap

from tests.unit.guests.by_hand import TEXTS, ours, predict


@pytest.mark.parametrize("text", TEXTS[:2])
@pytest.mark.parametrize(
    "params",
    [{}, {"max_evals": 40}, {"max_evals": 40, "batch_size": 20}, {"fixed_context": 1}],
    ids=lambda p: "-".join(map(str, p.values())) or "defaults",
)
def test_equals_shap_by_hand(text: str, params: dict[str, Any]) -> None:
    np.random.seed(5)
    explainer = shap.PartitionExplainer(predict, shap.maskers.Text(r"\W+"))
    theirs = explainer([text], silent=True, **params)
    row = ours(text, name="guest:shap.partition", seed=5, **{"class": "positive"}, **params)
    np.testing.assert_allclose(row["values"], theirs.values[0][:, 1], rtol=0, atol=1e-12)
    assert row["base"] == pytest.approx(theirs.base_values[0][1], abs=1e-12)
    words = [text[s["start"] : s["end"]] for s in row["spans"]]
    segments = shap.maskers.Text(r"\W+").token_segments(text)[0]
    assert len(words) == len(segments)
    assert all(segment.startswith(word) for word, segment in zip(words, segments, strict=True))


def test_what_stands_before_the_first_word_is_its_empty_word() -> None:
    row = ours(TEXTS[1], name="guest:shap.partition", max_evals=20)
    first = row["spans"][0]
    assert TEXTS[1][first["start"] : first["end"]] == "“"


def test_one_word() -> None:
    row = ours("superb", name="guest:shap.partition", **{"class": "positive"})
    none, full = predict(["...", "superb"])[:, 1]
    np.testing.assert_allclose(row["values"], [full - none], atol=1e-12)
    assert row["base"] == pytest.approx(none)


def test_the_mask_may_be_nothing() -> None:
    row = ours("good film", name="guest:shap.partition", mask_token="", **{"class": "positive"})
    assert row["operator"] == "shap_text:"
    assert row["base"] == pytest.approx(predict([""])[0, 1], abs=1e-12)
    assert row["residual"] == pytest.approx(0.0, abs=1e-12)


def test_its_masking_is_a_game_of_its_own() -> None:
    row = ours("good film", name="guest:shap.partition")
    assert (row["features"], row["operator"]) == ("words", "shap_text:...")


@pytest.mark.parametrize("text", ["", " … "])
def test_no_words(text: str) -> None:
    assert ours(text, name="guest:shap.partition")["status"] == "no_features"
