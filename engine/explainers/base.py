"""The seam of all perturbation explainers: ask a pool for values, then fit.

An explainer never sees a model and keeps no state between calls: what it asks is a pure function of
its parameters, its seed and the answers in the pool, so that a step can be replayed anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from engine.explainers.fits import FITS, Fitted
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF, ValueFunction


class Explainer(ABC):
    """A method of attribution over a game of F features."""

    name: ClassVar[str]

    @abstractmethod
    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return the distinct coalitions [C, F] still to be valued; zero rows: `fit` may be called.

        Raises:
            ExampleError: The parameters don't suit this number of features.
        """

    def pool_samples(self, n_features: int) -> int:
        """Return how much of the shared pool it asks for, 0 if it has its own coalitions.

        Args:
            n_features: F ≥ 1.
        """
        del n_features
        return 0

    @abstractmethod
    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the attribution, once `ask` returns no rows."""

    def used(self, pool: CoalitionPool) -> BoolCF:
        """Return all coalitions [C, F] asked for until `ask` returned no rows."""
        return self.ask(CoalitionPool(pool.n_features))

    def fitted(self, pool: CoalitionPool) -> Fitted:
        """Return `fit`, `used` and the time it took, made once in a process for the same values."""
        return FITS.fitted(self, pool)


def solve(explainer: Explainer, value: ValueFunction, n_features: int) -> Attribution:
    """Run an explainer on a game in this process.

    Args:
        explainer: From `build`.
        value: bool[C, F] -> float[C] or float[C, L]; called with distinct coalitions only.
        n_features: F.

    Returns:
        The attribution, with `values` [L, F] (L = 1 where `value` gives one column).

    Example:
        >>> import numpy as np
        >>> from engine.explainers import build, solve
        >>> solve(build("exact"), lambda z: z @ np.array([1.0, 2.0]), 2).values.round(6).tolist()
        [[1.0, 2.0]]
    """
    pool = CoalitionPool(n_features)
    while len(coalitions := explainer.ask(pool)):
        pool.tell(coalitions, value(coalitions))
    return explainer.fit(pool)
