from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import KernelShap

from tests.unit.guests.by_hand import TEXTS, coalitions_of, ours


@pytest.mark.parametrize("text", TEXTS[:2])
@pytest.mark.parametrize("params", [{}, {"n_samples": 80}], ids=["defaults", "80"])
def test_equals_captum_by_hand(text: str, params: dict[str, Any]) -> None:
    n, value = coalitions_of(text)
    torch.manual_seed(5)
    theirs = KernelShap(lambda rows: torch.from_numpy(value(rows.numpy() != 0))).attribute(
        torch.ones(1, n), baselines=0, target=1, **params
    )
    row = ours(text, name="guest:captum.kernel_shap", seed=5, **{"class": "positive"}, **params)
    np.testing.assert_allclose(row["values"], theirs[0].double().numpy(), rtol=0, atol=1e-12)
    assert row["base"] == pytest.approx(value(np.zeros((1, n)))[0, 1], abs=1e-12)
    # the empty and the full coalition weigh a million times more than the others
    assert row["residual"] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(("text", "n_features"), [("", 0), ("superb", 1)])
def test_short_texts(text: str, n_features: int) -> None:
    row = ours(text, name="guest:captum.kernel_shap", **{"class": "positive"})
    assert row["n_features"] == n_features
    assert sum(row["values"]) + row["base"] == pytest.approx(row["full_value"], abs=1e-12)
