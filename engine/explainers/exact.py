"""Exact Shapley values from all coalitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.errors import ExampleError
from engine.explainers.base import Explainer
from engine.explainers.coalitions import check_integer, everything, no_features
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF

MAX_FEATURES = 12
"""4096 coalitions; every further feature doubles them."""


@dataclass(frozen=True, slots=True)
class Exact(Explainer):
    """Shapley values of all 2^F coalitions (Shapley 1953), for up to 12 features.

    φ_i = Σ_{S∌i} |S|! (F−|S|−1)! / F! · (v(S ∪ i) − v(S)).

    Attributes:
        seed: Not used; here so that all methods are built alike.
    """

    name: ClassVar[str] = "exact"

    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.name, "seed", self.seed, 0)

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return the coalitions of all 2^F that have no value yet.

        Raises:
            ExampleError: There are more than 12 features.
        """
        if pool.n_features > MAX_FEATURES:
            raise ExampleError(
                "too_many_features",
                f"exact: {pool.n_features} features are more than {MAX_FEATURES} "
                f"(2^{pool.n_features} coalitions); use kernel_shap or permutation_shap",
            )
        return pool.missing(everything(pool.n_features))

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the Shapley values; `std_error` is 0."""
        return shapley_values(pool)


def shapley_values(pool: CoalitionPool) -> Attribution:
    """Return the exact Shapley values of a pool that has all coalitions."""
    n_features = pool.n_features
    if n_features == 0:
        return no_features(pool)
    coalitions = everything(n_features)
    values_CL = pool.lookup(coalitions)
    sizes = coalitions.sum(axis=1)
    orders = [1 / (n_features * math.comb(n_features - 1, size)) for size in range(n_features)]
    phi_FL = np.empty((n_features, values_CL.shape[1]))
    for feature in range(n_features):
        # bit j of a row's index stands for feature j, so adding the feature adds 2^j to the index
        without = np.flatnonzero(~coalitions[:, feature])
        gains = values_CL[without + 2**feature] - values_CL[without]
        phi_FL[feature] = np.take(orders, sizes[without]) @ gains
    total_L = values_CL[-1] - values_CL[0]
    return Attribution(
        values=phi_FL.T,
        base=values_CL[0],
        evaluations=len(coalitions),
        std_error=np.zeros_like(phi_FL.T),
        residual=total_L - phi_FL.sum(axis=0),
        diagnostics={"exact": True},
    )
