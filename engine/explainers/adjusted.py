"""KernelSHAP's task with a surrogate of the whole game in place of a linear one."""

from __future__ import annotations

import numpy as np

from engine.errors import ExampleError
from engine.explainers.coalitions import ends, require_samples
from engine.explainers.odd_process import odd_process
from engine.explainers.pool_design import smallest
from engine.explainers.spread import spread_pairs
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF

MOST_SAMPLES = 4098
"""Largest budget: the regression costs the cube of the number of pairs, here about 10 s."""
MOST_FEATURES = MOST_SAMPLES // 2 - 1


def default_samples(n_features: int) -> int:
    """Return half of shap's default budget, or more where there are too many features for that."""
    return min(max(n_features + 1024, smallest(n_features)), MOST_SAMPLES)


def require_features(n_features: int) -> None:
    """Check that a text isn't too long for any budget.

    Raises:
        ExampleError: Each feature alone and each left out cost more than the largest budget.
    """
    if smallest(n_features) > MOST_SAMPLES:
        raise ExampleError(
            "too_many_features",
            f"kernel_shap: with a surrogate a text may have {MOST_FEATURES} features, this one has "
            f"{n_features}; leave `surrogate` out, or take `features: sentences`",
        )


def adjusted_pairs(seed: int, n_features: int, num_samples: int) -> BoolCF:
    """Return the pairs that a budget pays for, one coalition of each [P, F].

    Raises:
        ExampleError: The budget doesn't pay for each feature alone and each left out.
    """
    require_samples("kernel_shap", num_samples, n_features, smallest(n_features))
    return spread_pairs(seed, n_features, (min(num_samples, 2**n_features) - 2) // 2)


def fit_adjusted(pool: CoalitionPool, half: BoolCF) -> Attribution:
    """Return the Shapley values by `odd_process` from any pairs of complements.

    Args:
        pool: Has the empty and the full coalition, those of `half`, and their complements.
        half: One coalition of each pair [P, F].
    """
    empty_L, full_L = pool.lookup(ends(pool.n_features))
    total_L = full_L - empty_L
    exact = len(half) == 2 ** (pool.n_features - 1) - 1
    found = odd_process(half, (pool.lookup(half) - pool.lookup(~half)) / 2, total_L)
    return Attribution(
        values=found.values,
        base=empty_L,
        evaluations=2 + 2 * len(half),
        std_error=np.zeros_like(found.values) if exact else found.std_error,
        residual=total_L - found.values.sum(axis=1),
        r2=found.held_out_r2,
        diagnostics={"exact": exact, "surrogate": "gaussian_process", "dof": len(half) + 1},
    )
