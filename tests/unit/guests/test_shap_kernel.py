from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shap

from tests.unit.guests.by_hand import TEXTS, coalitions_of, ours


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "params",
    [{}, {"nsamples": 60}, {"nsamples": 90, "l1_reg": False}, {"nsamples": 90, "l1_reg": "aic"}],
    ids=lambda p: "-".join(map(str, p.values())) or "defaults",
)
def test_equals_shap_by_hand(text: str, params: dict[str, Any]) -> None:
    n, value = coalitions_of(text)
    np.random.seed(5)
    explainer = shap.KernelExplainer(value, np.zeros((1, n)))
    theirs = explainer.shap_values(np.ones((1, n)), silent=True, **params)
    row = ours(text, name="guest:shap.kernel", seed=5, **{"class": "positive"}, **params)
    np.testing.assert_allclose(row["values"], theirs[0, :, 1], rtol=0, atol=1e-12)
    assert row["base"] == pytest.approx(explainer.expected_value[1], abs=1e-12)
    assert row["residual"] == pytest.approx(0.0, abs=1e-9)


def test_takes_any_of_our_features_and_operators() -> None:
    row = ours("good film", name="guest:shap.kernel", features="tokens", operator="pad")
    assert (row["features"], row["operator"], row["masked_on"]) == ("tokens", "pad", "ids")
    assert row["n_features"] == len("good film")


def test_no_words() -> None:
    assert ours("", name="guest:shap.kernel")["status"] == "no_features"
