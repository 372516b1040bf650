from __future__ import annotations

import numpy as np
import pytest

from analysis.legacy.shap_statistics import comparison, phase_statistics

BEFORE = {"x": np.array([4.0, 0.0]), "y": np.array([1.0, 1.0, 1.0]), "z": np.array([2.0])}
AFTER = {"x": np.array([0.0, 2.0]), "y": np.array([2.0, 4.0, 6.0])}
WORDS = {"x": ["good", "film"], "y": ["a", "good", "one"], "z": ["so"]}


def test_of_one_phase() -> None:
    found = phase_statistics(BEFORE, WORDS)
    assert found["mean_absolute_token_importance"] == pytest.approx((2 + 1 + 2) / 3)
    assert found["std_absolute_token_importance"] == pytest.approx(np.std([2, 1, 2]))
    assert found["median_absolute_token_importance"] == 2
    assert found["mean_token_importance_std"] == pytest.approx((2 + 0 + 0) / 3)
    assert found["mean_token_gini"] == pytest.approx((1 + 0) / 2)  # undefined for one word
    assert found["mean_token_entropy"] == pytest.approx((0 + np.log(3)) / 2)
    assert found["top_tokens"] == ["good", "so", "a", "one", "film"]
    assert found["top_token_scores"] == [5, 2, 1, 1, 0]
    assert found["per_example"][0] == {
        "example": "x",
        "mean_abs_importance": 2,
        "std_abs_importance": 2,
        "token_count": 2,
        "top_tokens": ["good", "film"],
    }


def test_of_both() -> None:
    found = comparison(BEFORE, AFTER)
    assert found["pairs"] == 2
    assert found["mean_token_cosine_similarity"] == pytest.approx((0 + 12 / np.sqrt(3 * 56)) / 2)
    for key in ("mean_top_token_jaccard", "mean_top5_overlap", "mean_top10_overlap"):
        assert found[key] is None  # both texts are shorter than five words
        assert "more than" in found["reason"][key]
    assert found["mean_abs_importance_difference"] == pytest.approx(((1 - 2) + (4 - 1)) / 2)
    pooled = np.sqrt((np.var([2, 1], ddof=1) + np.var([1, 4], ddof=1)) / 2)
    assert found["cohens_d_abs_importance"] == pytest.approx((2.5 - 1.5) / pooled)
    assert found["d_z_abs_importance"] == pytest.approx(1 / np.std([-1, 3], ddof=1))
    assert found["mean_token_importance_correlation"] == pytest.approx(-1)  # y is constant before
    assert found["mean_spearman_correlation"] == pytest.approx(-1)
    assert (found["mean_zero_shot_gini"], found["mean_fine_tuned_gini"]) == (
        pytest.approx(0.5),
        pytest.approx((1 + 1 / 3) / 2),
    )


def test_overlap_of_the_largest() -> None:
    a, b = np.arange(12.0), np.arange(12.0)[::-1]
    found = comparison({"x": a}, {"x": b})
    assert found["mean_top5_overlap"] == 0
    assert found["mean_top10_overlap"] == pytest.approx(0.8)
    assert found["mean_top_token_jaccard"] == 0


def test_overlap_leaves_out_texts_that_have_no_more_words() -> None:
    """All k of k words are the largest in both, whatever their values."""
    rng = np.random.default_rng(0)
    short = [{str(i): rng.random(8) for i in range(200)} for _ in range(2)]
    found = comparison(*short)
    assert found["mean_top10_overlap"] is None
    assert "more than 10 words" in found["reason"]["mean_top10_overlap"]
    assert "0 of 200 texts" in found["definition"]["mean_top10_overlap"]
    assert found["mean_top5_overlap"] == pytest.approx(5 / 8, abs=0.03)  # by chance
    assert "mean_top5_overlap" not in found["reason"]
    assert "200 of 200 texts" in found["definition"]["mean_top5_overlap"]
    long = [{"x": rng.random(40), **each} for each in short]
    found = comparison(*long)
    assert (
        found["mean_top10_overlap"]
        == comparison(*({"x": e["x"]} for e in long))["mean_top10_overlap"]
    )
    assert "1 of 201 texts" in found["definition"]["mean_top10_overlap"]


def test_nothing_in_common() -> None:
    found = comparison({"x": np.ones(2)}, {"x": np.ones(3), "y": np.ones(2)})
    assert found["pairs"] == 0
    assert found["mean_spearman_correlation"] is None
    assert found["cohens_d_abs_importance"] is None
