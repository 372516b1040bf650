"""Shapley values from antithetic permutations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from engine.explainers.base import Explainer
from engine.explainers.coalitions import (
    check_integer,
    distinct,
    ends,
    everything,
    no_features,
    require_samples,
)
from engine.explainers.exact import shapley_values
from engine.pool import CoalitionPool
from engine.seeds import generator
from engine.types import Attribution, BoolCF


@dataclass(frozen=True, slots=True)
class PermutationShap(Explainer):
    """Mean marginal contribution of each feature along random orders and their reverses.

    Castro et al. (2009); Štrumbelj & Kononenko (2010, 2014). An order and its reverse are exact for
    games of pairwise interactions, as in shap's `PermutationExplainer`. Together they cost
    2(F − 1) coalitions besides the empty and the full one, so `num_samples` buys
    (num_samples − 2) // (2(F − 1)) of them. Where the budget covers all 2^F coalitions, the values
    are exact.

    Attributes:
        num_samples: Most coalitions valued, the empty and the full one included; at least 2F.
        seed: Of the orders; the orders of a small budget are the first of a larger one's.
    """

    name: ClassVar[str] = "permutation_shap"

    num_samples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.name, "num_samples", self.num_samples, 1)
        check_integer(self.name, "seed", self.seed, 0)

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return what is missing of the orders' coalitions, or of all if the budget covers them.

        Raises:
            ExampleError: The budget doesn't pay for one order and its reverse.
        """
        if self._enumerates(pool.n_features):
            return pool.missing(everything(pool.n_features))
        forward = _prefixes(self._orders(pool.n_features))
        inner = forward.reshape(-1, pool.n_features)
        return pool.missing(np.concatenate([ends(pool.n_features), inner, ~inner]))

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the mean over the orders, and its standard error from the spread of pairs."""
        n_features = pool.n_features
        if n_features == 0:
            return no_features(pool)
        if self._enumerates(n_features):
            return shapley_values(pool)
        orders = self._orders(n_features)
        prefixes = _prefixes(orders)
        inner = prefixes.reshape(-1, n_features)
        empty_L, full_L = pool.lookup(ends(n_features))
        shape = (*prefixes.shape[:2], len(empty_L))
        rising = _steps(pool.lookup(inner).reshape(shape), empty_L, full_L)
        falling = -_steps(pool.lookup(~inner).reshape(shape), full_L, empty_L)
        pairs = np.empty_like(
            rising
        )  # [P, F, L]: the k-th step belongs to the order's k-th feature
        np.put_along_axis(pairs, orders[:, :, None], (rising + falling) / 2, axis=1)
        phi_FL = pairs.mean(axis=0)
        spread = pairs.std(axis=0, ddof=1) if len(pairs) > 1 else None
        return Attribution(
            values=phi_FL.T,
            base=empty_L,
            evaluations=2 + len(distinct(np.concatenate([inner, ~inner])).coalitions),
            std_error=None if spread is None else spread.T / np.sqrt(len(pairs)),
            residual=full_L - empty_L - phi_FL.sum(axis=0),
            diagnostics={"exact": False, "permutations": 2 * len(pairs)},
        )

    def _enumerates(self, n_features: int) -> bool:
        require_samples(self.name, self.num_samples, n_features, max(1, 2 * n_features))
        return self.num_samples >= 2**n_features

    def _orders(self, n_features: int) -> npt.NDArray[np.intp]:
        n_pairs = (self.num_samples - 2) // (2 * (n_features - 1))
        uniforms = generator("permutation_shap", int(self.seed), n_features).random(
            (n_pairs, n_features)
        )
        return uniforms.argsort(axis=1)


def _prefixes(orders_PF: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return [P, F − 1, F]: the coalitions of the first 1, 2, … F − 1 features of each order."""
    ranks = orders_PF.argsort(axis=1)
    return ranks[:, None, :] < np.arange(1, orders_PF.shape[1])[:, None]


def _steps(
    inner_PFL: npt.NDArray[np.float64],
    start_L: npt.NDArray[np.float64],
    stop_L: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the F differences along each path from `start` over the F − 1 inner values."""
    n_paths, _, n_labels = inner_PFL.shape
    edge = (n_paths, 1, n_labels)
    path = [np.broadcast_to(start_L, edge), inner_PFL, np.broadcast_to(stop_L, edge)]
    return np.diff(np.concatenate(path, axis=1), axis=1)
