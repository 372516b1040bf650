"""KernelSHAP: Shapley values as a constrained weighted least squares over coalitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from engine.errors import ConfigError
from engine.explainers import adaptive, adjusted, compat_shap
from engine.explainers.coalitions import (
    check_choice,
    check_integer,
    check_sampling,
    ends,
    no_features,
    require_samples,
)
from engine.explainers.pairs import Pairs, pair_sizes, paired_design
from engine.explainers.pool_design import pool_design, smallest
from engine.pool import CoalitionPool
from engine.surrogate import ConstrainedFit, constrained_least_squares, scatter
from engine.types import Attribution, BoolCF, FloatL, FloatLF


@dataclass(frozen=True, slots=True)
class KernelShap(adaptive.AdaptiveExplainer):
    """Shapley values by the weighted regression of Lundberg & Lee (2017, theorem 2).

    A coalition of s of F features has weight (F − 1)/(C(F, s)·s·(F − s)); the values sum to
    v(all) − v(none) because the last coefficient is eliminated. No feature is dropped.

    The default profile values every coalition together with its complement, the middle size of an
    even F included (Covert & Lee 2021: pairing is worth a factor of about four in evaluations; it
    makes the estimate blind to any game u(S) = u(complement of S), whose Shapley values are 0).
    Sizes are enumerated from the border inwards as far as the budget goes; the rest of it is spread
    over the other sizes in proportion to their weight, without repeats. Where the budget covers all
    2^F coalitions, the values are exact.

    Attributes:
        num_samples: Most coalitions valued, the empty and the full one included; at least 2F + 2 or
            2^F. 2F + 2048 if None, as in shap. With `compat`: shap's `nsamples`, which doesn't
            count the empty and the full one.
        seed: Of the draws.
        sampling: `own` as above; `pool` takes the coalitions of `engine.explainers.pool_design`,
            which other explainers with the same seed share.
        compat: `shap` reproduces shap 0.51's `KernelExplainer` after `np.random.seed(seed)`; None
            is the default profile.
        l1_reg: Only with `compat`: shap's feature selection, `num_features(K)`, `aic`, `bic`, a
            penalty, or False for none; `num_features(10)` if None, as in shap.
        surrogate: `gaussian_process` takes the Shapley values from a regression of all the game's
            interactions (`odd_process`), with `sampling: own` from pairs chosen to be unlike each
            other (`spread_pairs`); `num_samples` is F + 1024 if None, 2F + 2 from 1023 features on,
            at most 4098.
        relative_error: Stop asking once the estimated relative error (`adaptive.relative_error`) is
            below this; `num_samples` is then the most. None spends all of `num_samples`.
    """

    name: ClassVar[str] = "kernel_shap"

    num_samples: int | None = None
    seed: int = 0
    sampling: Literal["own", "pool"] = "own"
    compat: Literal["shap"] | None = None
    l1_reg: str | float | bool | None = None
    surrogate: Literal["gaussian_process"] | None = None
    relative_error: float | None = None

    def __post_init__(self) -> None:
        if self.num_samples is not None:
            check_integer(self.name, "num_samples", self.num_samples, 1)
        check_integer(self.name, "seed", self.seed, 0)
        check_choice(self.name, "compat", self.compat, (None, "shap"))
        check_sampling(self.name, self.sampling, self.compat)
        if self.l1_reg is not None:
            compat_shap.check_selection(self.l1_reg)
            if self.compat is None and self.l1_reg is not False:
                raise ConfigError(
                    "kernel_shap: l1_reg needs `compat: shap`; the default profile keeps all "
                    "features"
                )
        check_choice(self.name, "surrogate", self.surrogate, (None, "gaussian_process"))
        if self.surrogate and (self.num_samples or 0) > adjusted.MOST_SAMPLES:
            raise ConfigError(
                f"kernel_shap: num_samples can be at most {adjusted.MOST_SAMPLES} with a surrogate"
            )
        if self.relative_error is not None:
            adaptive.check_relative_error(self.name, self.relative_error)
        if self.compat and (self.surrogate or self.relative_error is not None):
            raise ConfigError(
                "kernel_shap: surrogate and relative_error belong to the default profile, which "
                "`compat: shap` leaves"
            )

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return the coalitions of the design that have no value yet.

        Raises:
            ExampleError: The budget doesn't pay for each feature alone and each left out, or with a
                surrogate no budget does.
        """
        n_features = pool.n_features
        if n_features == 0:
            return pool.missing(ends(0))
        if self.surrogate:
            adjusted.require_features(n_features)
        if self.relative_error is not None:
            return self._advance(pool, self.relative_error).missing
        if self.compat:
            budget, needed = self._budget(n_features), compat_shap.smallest(n_features, self.l1_reg)
            require_samples("kernel_shap[compat]", budget, n_features, needed)
            inner = compat_shap.draw(self.seed, n_features, budget).coalitions
        else:
            half = self._half(n_features)
            inner = np.stack([half, ~half], axis=1).reshape(-1, n_features)
        return pool.missing(np.concatenate([ends(n_features), inner]))

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the values with their additivity residual and, where not exact, standard error.

        The standard error is that of the random part of the design, given the enumerated part; it
        is None where fewer pairs were drawn than there are features, whose spread says little.
        """
        if pool.n_features == 0:
            return no_features(pool)
        if self.relative_error is not None:
            return self.fitted(pool).attribution
        if self.surrogate:
            return adjusted.fit_adjusted(pool, self._half(pool.n_features))
        return self._fit_as_shap(pool) if self.compat else self._fit(pool)

    def _steps(self, n_features: int) -> list[int]:
        # where the first standard errors are: as many drawn pairs as features beside the enumerated
        return adaptive.budgets(4 * n_features + 4, min(self._budget(n_features), 2**n_features))

    def pool_samples(self, n_features: int) -> int:
        """Return the budget where it is fixed, suffices and comes from the pool, else 0."""
        budget = self._budget(n_features)
        fixed = self.sampling == "pool" and self.relative_error is None
        return budget if fixed and budget >= smallest(n_features) else 0

    def _budget(self, n_features: int) -> int:
        if self.num_samples is not None:
            return self.num_samples
        return adjusted.default_samples(n_features) if self.surrogate else 2 * n_features + 2048

    def _half(self, n_features: int) -> BoolCF:
        if self.surrogate and self.sampling == "own":
            return adjusted.adjusted_pairs(int(self.seed), n_features, self._budget(n_features))
        return self._design(n_features).coalitions

    def _design(self, n_features: int) -> Pairs:
        budget = self._budget(n_features)
        require_samples(self.name, budget, n_features, smallest(n_features))
        if self.sampling == "pool":
            pooled = pool_design(int(self.seed), n_features, budget)
            weights = pooled.weights(pair_sizes(n_features).mass)
            return Pairs(pooled.coalitions, weights, pooled.enumerated, pooled.strata, pooled.exact)
        return paired_design(int(self.seed), n_features, (min(budget, 2**n_features) - 2) // 2)

    def _fit(self, pool: CoalitionPool) -> Attribution:
        design = self._design(pool.n_features)
        empty_L, full_L = pool.lookup(ends(pool.n_features))
        half = design.coalitions
        # of a coalition and its complement only half the difference tells of Shapley values
        odd_CL = (pool.lookup(half) - pool.lookup(~half)) / 2
        x_PF = half.astype(np.float64) - 0.5
        fit = constrained_least_squares(x_PF, odd_CL, design.weights, full_L - empty_L)
        return Attribution(
            values=fit.coef,
            base=empty_L,
            evaluations=2 + 2 * len(half),
            std_error=_std_error(fit, design),
            residual=_residual(fit.coef, empty_L, full_L),
            diagnostics={
                "exact": design.exact,
                "enumerated": 2 + 2 * design.enumerated,
                # what the drawn pairs leave once they have told the values apart
                "dof": max(len(half) - design.enumerated - pool.n_features + 1, 1),
                "sampling": self.sampling,
            },
        )

    def _fit_as_shap(self, pool: CoalitionPool) -> Attribution:
        design = compat_shap.draw(self.seed, pool.n_features, self._budget(pool.n_features))
        selection = "num_features(10)" if self.l1_reg is None else self.l1_reg
        empty_L, full_L = pool.lookup(ends(pool.n_features))
        values_CL = pool.lookup(design.coalitions)
        phi_LF = compat_shap.fit(design, values_CL, empty_L, full_L, selection)
        return Attribution(
            values=phi_LF,
            base=empty_L,
            evaluations=2 + len(design.coalitions),
            residual=_residual(phi_LF, empty_L, full_L),
            diagnostics={"exact": False, "l1_reg": selection},
        )


def _residual(phi_LF: FloatLF, empty_L: FloatL, full_L: FloatL) -> FloatL:
    return full_L - empty_L - phi_LF.sum(axis=1)


def _std_error(fit: ConstrainedFit, design: Pairs) -> FloatLF | None:
    """Return the sandwich standard error of the drawn pairs, with the finite-population share."""
    if design.exact:
        return np.zeros_like(fit.coef)
    if len(design.coalitions) - design.enumerated < fit.coef.shape[1]:
        return None
    variance = np.zeros_like(fit.coef)
    for stratum in design.strata:
        rows = stratum.rows
        ones = np.ones(rows.stop - rows.start)
        variance += stratum.unseen * scatter(fit.influence[rows], fit.residuals[rows], ones)
    return np.sqrt(variance)
