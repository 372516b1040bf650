"""Occlusion: what is lost when one feature is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.explainers.base import Explainer
from engine.explainers.coalitions import check_integer, ends, no_features
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF


@dataclass(frozen=True, slots=True)
class Occlusion(Explainer):
    """Leave-one-out: φ_i = v(all) − v(all without i), signed.

    Zeiler & Fergus (2014) for images, Li et al. (2016) for words. Not additive: `residual` says how
    much of v(all) − v(none) the single removals leave over.

    Attributes:
        seed: Not used; here so that all methods are built alike.
    """

    name: ClassVar[str] = "occlusion"

    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.name, "seed", self.seed, 0)

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return what is missing of the full, the empty and the leave-one-out coalitions."""
        return pool.missing(_design(pool.n_features))

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the differences."""
        if pool.n_features == 0:
            return no_features(pool)
        values_CL = pool.lookup(_design(pool.n_features))
        empty_L, full_L, without_FL = values_CL[0], values_CL[1], values_CL[2:]
        phi_FL = full_L - without_FL
        return Attribution(
            values=phi_FL.T,
            base=empty_L,
            # with one feature, leaving it out is the empty coalition again
            evaluations=pool.n_features + 2 if pool.n_features > 1 else 2,
            residual=full_L - empty_L - phi_FL.sum(axis=0),
        )


def _design(n_features: int) -> BoolCF:
    return np.concatenate([ends(n_features), ~np.eye(n_features, dtype=bool)])
