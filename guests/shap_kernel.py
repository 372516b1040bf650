"""`guest:shap.kernel`: `KernelExplainer` of the installed shap over our features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.guests.explanation import Explanation
from engine.types import BoolCF, FloatCL


def explain(
    n_features: int,
    value: Callable[[BoolCF], FloatCL],
    labels: tuple[str, ...],
    *,
    nsamples: int | str = "auto",
    l1_reg: str | float | bool = "num_features(10)",
) -> Explanation:
    """Return shap's values of every label: rows of 0 and 1 against a background row of 0.

    Args:
        n_features: F.
        value: Coalitions [n, F] -> values [n, L].
        labels: Names [L].
        nsamples: As shap takes it, like the next.
        l1_reg: See shap.
    """
    if not n_features:
        return Explanation((), np.zeros((len(labels), 0)), value(np.ones((1, 0), dtype=bool))[0])
    import shap

    explainer = shap.KernelExplainer(lambda rows: value(rows != 0), np.zeros((1, n_features)))
    found = explainer.shap_values(
        np.ones((1, n_features)), nsamples=nsamples, l1_reg=l1_reg, silent=True
    )
    values = np.asarray(found, dtype=np.float64).reshape(n_features, len(labels))
    base = np.asarray(explainer.expected_value, dtype=np.float64).reshape(len(labels))
    return Explanation((), values.T, base, additive=True)
