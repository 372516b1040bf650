"""`guest:captum.kernel_shap`: `KernelShap` of the installed captum over our features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.guests.explanation import Explanation
from engine.types import BoolCF, FloatCL


def explain(
    n_features: int,
    value: Callable[[BoolCF], FloatCL],
    labels: tuple[str, ...],
    *,
    seed: int,
    n_samples: int = 25,
) -> Explanation:
    """Return captum's values of every label: ones against a baseline of zeros.

    Args:
        n_features: F.
        value: Coalitions [n, F] -> values [n, L].
        labels: Names [L].
        seed: Of torch, set anew for every label so that all get the same coalitions.
        n_samples: As captum takes it; all are evaluated in one call, which changes no value.
    """
    none = np.zeros((1, n_features), dtype=bool)
    if n_features < 2:  # the library has no distribution of the sizes in between
        base, full = value(np.concatenate([none, ~none]))
        values = np.repeat((full - base)[:, None], n_features, axis=1)
        return Explanation((), values, base, additive=True)
    import torch
    from captum.attr import KernelShap

    def forward(rows: Any) -> Any:
        return torch.from_numpy(value(rows.numpy() != 0))

    explained = []
    for label in range(len(labels)):
        torch.manual_seed(seed)
        found = KernelShap(forward).attribute(
            torch.ones(1, n_features),
            baselines=0,
            target=label,
            n_samples=n_samples,
            perturbations_per_eval=n_samples,
        )
        explained.append(found.numpy().ravel().astype(np.float64))
    # captum's second sample is the empty coalition: this asks for nothing new
    return Explanation((), np.array(explained), value(none)[0], additive=True)
