"""LIME for text: a kernel-weighted linear surrogate around the full text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from engine.errors import ConfigError
from engine.explainers import adaptive, compat_lime
from engine.explainers.coalitions import (
    check_choice,
    check_integer,
    check_sampling,
    distinct,
    ends,
    everything,
    no_features,
    read_only,
    require_samples,
    uniform_subsets,
)
from engine.explainers.pool_design import PoolDesign, pool_design
from engine.pool import CoalitionPool
from engine.seeds import generator
from engine.surrogate import RidgeFit, paired_scatter, scatter, weighted_ridge
from engine.types import Attribution, BoolCF, FloatC, FloatLF

REFERENCE_SAMPLES = 5000
"""lime's own default of `num_samples`. There the full text is one row in 5000 and the ridge penalty
of 1 is 1/5000 a row; the default profile keeps both shares at any budget, so that what is estimated
doesn't depend on how many samples estimate it."""

POOL_SAMPLES = 8
"""Coalitions a feature from which on a pool serves LIME better than its own draws. Below, too few
pairs are left beside the forced ones, and of a pair both members tell much the same of a linear
surrogate."""


class Design(NamedTuple):
    """Distinct coalitions of a regression; the first one is the full text.

    Attributes:
        coalitions: [C, F].
        draws: How many draws of the sampler a row stands for [C]; enumerated rows and the full
            text have the expected number, which need not be whole.
        exact: Whether all 2^F coalitions are there.
    """

    coalitions: BoolCF
    draws: FloatC
    exact: bool


@dataclass(frozen=True, slots=True)
class Lime(adaptive.AdaptiveExplainer):
    """Weighted ridge regression of the value on the kept features (Ribeiro et al. 2016).

    The estimand is that of lime's `LimeTextExplainer`. There the number of removed features is
    uniform on 1..F, the removed ones are uniform given their number, and the full text is a row of
    its own; a row's weight is π(z) = √exp(−D²/width²) with D = 100·(1 − √(kept/F)), the cosine
    distance to the full text.

    The default profile estimates what lime gives in expectation at its default of 5000 samples:
    the least squares under π times that law, where the full text has a share of 1/5000 and the
    penalty is 1/5000 a row. Of N = `num_samples` rows,

    - sampled: the number of removed features is drawn in proportion to π instead of uniformly, so
      that no draw has next to no weight: all have the same, the mean π̄ over 1..F. A coalition
      drawn m times has weight m·π̄·N(1 − 1/5000)/(N − 1);
    - enumerated, where N covers all 2^F: weight π(z)·N(1 − 1/5000)/(F·C(F, removed));
    - in both the full text has weight N/5000 and the penalty is N/5000 (recorded as `ridge`).

    So the sampled coefficients converge to the enumerated ones as N^(−1/2). Only model calls are
    saved where draws repeat, never weight. All features are kept.

    Attributes:
        num_samples: Rows of the regression, the full text included; at least F + 1. A coalition
            drawn twice is valued once.
        seed: Of the draws; the draws of a small budget are the first of a larger one's.
        sampling: `own` as above; `pool` takes the coalitions of `engine.explainers.pool_design`,
            which other explainers with the same seed share, from `num_samples` = 8F or 2^F on, and
            estimates the same: what the sampling law has on a size is divided among the pool's
            coalitions of that size.
        kernel_width: Of the kernel, on the distance × 100.
        compat: `lime` reproduces lime 0.2.0.1 at the same seed; None is the default profile.
        num_features: Only with `compat`: most features with a coefficient, 10 if None.
        feature_selection: Only with `compat`: `auto`, `highest_weights`, `forward_selection`,
            `lasso_path` or `none`; `auto` if None.
        relative_error: Stop asking once the estimated relative error (`adaptive.relative_error`) is
            below this; `num_samples` is then the most. None spends all of `num_samples`.
    """

    name: ClassVar[str] = "lime"

    num_samples: int = REFERENCE_SAMPLES
    seed: int = 0
    kernel_width: float = 25.0
    sampling: Literal["own", "pool"] = "own"
    compat: Literal["lime"] | None = None
    num_features: int | None = None
    feature_selection: compat_lime.Selection | None = None
    relative_error: float | None = None

    def __post_init__(self) -> None:
        check_integer(self.name, "num_samples", self.num_samples, 1)
        check_integer(self.name, "seed", self.seed, 0)
        check_choice(self.name, "compat", self.compat, (None, "lime"))
        check_sampling(self.name, self.sampling, self.compat)
        width = self.kernel_width
        if isinstance(width, bool) or not isinstance(width, int | float) or not width > 0:
            raise ConfigError(f"lime: kernel_width must be a positive number, not {width!r}")
        check_choice(
            self.name, "feature_selection", self.feature_selection, (None, *compat_lime.SELECTIONS)
        )
        if self.num_features is not None:
            check_integer(self.name, "num_features", self.num_features, 1)
        if self.compat is None and (self.num_features or self.feature_selection):
            raise ConfigError(
                "lime: num_features and feature_selection need `compat: lime`; the default profile "
                "keeps all features"
            )
        if self.relative_error is not None:
            adaptive.check_relative_error(self.name, self.relative_error)
            if self.compat:
                raise ConfigError(
                    "lime: relative_error belongs to the default profile, which `compat: lime` "
                    "leaves"
                )

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return the coalitions of the design that have no value yet.

        Raises:
            ExampleError: Fewer samples than the surrogate has unknowns.
        """
        if pool.n_features == 0:
            return pool.missing(np.zeros((1, 0), dtype=bool))
        if self.relative_error is not None:
            return self._advance(pool, self.relative_error).missing
        if self.compat:
            return pool.missing(self._compat_rows(pool.n_features))
        if self.pool_samples(pool.n_features):
            return pool.missing(_both(self._pooled(pool.n_features)))
        return pool.missing(self._design(pool.n_features).coalitions)

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the coefficients, with the intercept as base and the weighted R²."""
        if pool.n_features == 0:
            return no_features(pool, residual=False)
        if self.relative_error is not None:
            return self.fitted(pool).attribution
        if self.pool_samples(pool.n_features):
            return self._fit_from_pool(pool)
        return self._fit_as_lime(pool) if self.compat else self._fit(pool)

    def pool_samples(self, n_features: int) -> int:
        """Return `num_samples` where it is fixed and the pool is used, else 0."""
        suffices = self.num_samples >= min(POOL_SAMPLES * n_features, 2**n_features)
        fixed = self.sampling == "pool" and self.relative_error is None
        return self.num_samples if fixed and suffices else 0

    def _steps(self, n_features: int) -> list[int]:
        # where the first standard errors are, and all rounds have the same sampling
        first = POOL_SAMPLES * n_features if self.sampling == "pool" else 4 * n_features + 4
        return adaptive.budgets(first, min(self.num_samples, 2**n_features))

    def _design(self, n_features: int) -> Design:
        require_samples(self.name, self.num_samples, n_features, n_features + 1)
        return _own_design(self.num_samples, int(self.seed), self.kernel_width, n_features)

    def _fit(self, pool: CoalitionPool) -> Attribution:
        n, n_features = self.num_samples, pool.n_features
        coalitions, draws, exact = self._design(n_features)
        if exact:
            weights = draws * kernel(coalitions, self.kernel_width)
        else:  # n − 1 draws stand for all rows but the full text's share
            weights = draws * _by_removed(n_features, self.kernel_width).mean()
            weights *= (n - draws[0]) / (n - 1)
            weights[0] = draws[0]
        penalty = n / REFERENCE_SAMPLES
        values_CL = pool.lookup(coalitions)
        fit = weighted_ridge(coalitions.astype(np.float64), values_CL, weights, penalty, draws)
        return Attribution(
            values=fit.coef,
            base=fit.intercept,
            evaluations=len(coalitions),
            std_error=np.zeros_like(fit.coef) if exact else _std_error(fit, draws),
            r2=fit.r2,
            diagnostics={
                "exact": exact,
                "ridge": penalty,
                "kernel_width": self.kernel_width,
                "sampling": "own",
            },
        )

    def _pooled(self, n_features: int) -> PoolDesign:
        return pool_design(int(self.seed), n_features, self.num_samples)

    def _fit_from_pool(self, pool: CoalitionPool) -> Attribution:
        n, n_features = self.num_samples, pool.n_features
        design = self._pooled(n_features)
        coalitions = _both(design)
        x_CF = coalitions.astype(np.float64)
        share = n / REFERENCE_SAMPLES
        weights = np.concatenate([[(n - share) / n_features, share], self._pair_weights(design)])
        weights[0] *= kernel(coalitions[:1], self.kernel_width)[0]
        fit = weighted_ridge(x_CF, pool.lookup(coalitions), weights, share)
        return Attribution(
            values=fit.coef,
            base=fit.intercept,
            evaluations=len(coalitions),
            std_error=_pair_std_error(fit, design),
            r2=fit.r2,
            diagnostics={
                "exact": design.exact,
                "ridge": share,
                "kernel_width": self.kernel_width,
                "sampling": "pool",
            },
        )

    def _pair_weights(self, design: PoolDesign) -> FloatC:
        """Return the weights of the smaller coalitions, then of their complements [2P]."""
        n_features = design.coalitions.shape[1]
        sizes = np.arange(1, n_features // 2 + 1)
        # both coalitions of a pair of the middle size share that size's mass
        halved = np.where(2 * sizes == n_features, 0.5, 1.0)
        law = halved * (self.num_samples - self.num_samples / REFERENCE_SAMPLES) / n_features
        of_size = np.arange(n_features) < sizes[:, None]
        near = np.arange(n_features) < n_features - sizes[:, None]
        return np.concatenate(
            [design.weights(law * kernel(kept, self.kernel_width)) for kept in (of_size, near)]
        )

    def _compat_rows(self, n_features: int) -> BoolCF:
        require_samples("lime[compat]", self.num_samples, n_features, 2)
        return compat_lime.draw(self.seed, n_features, self.num_samples)

    def _fit_as_lime(self, pool: CoalitionPool) -> Attribution:
        rows = self._compat_rows(pool.n_features)
        limit, selection = self.num_features or 10, self.feature_selection or "auto"
        weights = kernel(rows, self.kernel_width)
        fit = compat_lime.fit(rows, pool.lookup(rows), weights, limit, selection)
        return Attribution(
            values=fit.coef,
            base=fit.intercept,
            evaluations=len(distinct(rows).coalitions),
            r2=fit.r2,
            diagnostics={
                "exact": False,
                "ridge": compat_lime.PENALTY,
                "kernel_width": self.kernel_width,
                "num_features": limit,
                "feature_selection": selection,
            },
        )


@lru_cache(maxsize=32)
def _own_design(n: int, seed: int, width: float, n_features: int) -> Design:
    """Return the design of `n` rows; an explanation asks for it several times."""
    full_share = n / REFERENCE_SAMPLES
    exact = n >= 2**n_features
    if exact:
        coalitions = everything(n_features)[::-1]
        removed = (~coalitions).sum(axis=1)
        subsets = np.array([math.comb(n_features, size) for size in removed.tolist()])
        draws = (n - full_share) / (n_features * subsets)
        draws[0] = full_share
        read_only(coalitions, draws)
        return Design(coalitions, draws, exact)
    uniforms = generator("lime", seed, n_features).random((n - 1, n_features + 1))
    law = np.cumsum(_by_removed(n_features, width))
    sizes = 1 + np.searchsorted(law[:-1], uniforms[:, 0] * law[-1], side="right")
    drawn, counts = distinct(~uniform_subsets(uniforms[:, 1:], sizes))
    coalitions = np.concatenate([np.ones((1, n_features), dtype=bool), drawn])
    draws = np.concatenate([[full_share], counts])
    read_only(coalitions, draws)
    return Design(coalitions, draws, exact)


def kernel(coalitions: BoolCF, width: float) -> FloatC:
    """Return lime's weight π of each coalition [C] from its cosine distance to the full text."""
    kept = coalitions.mean(axis=1)
    distance = 100 * (1 - np.sqrt(kept))
    return np.sqrt(np.exp(-(distance**2) / width**2))


def _by_removed(n_features: int, width: float) -> FloatC:
    """Return the kernel where 1..F features are removed [F]."""
    kept = np.arange(n_features) < np.arange(n_features - 1, -1, -1)[:, None]
    return kernel(kept, width)


def _both(design: PoolDesign) -> BoolCF:
    """Return the empty and the full coalition, the pool's smaller ones, then their complements."""
    half = design.coalitions
    return np.concatenate([ends(half.shape[1]), half, ~half])


def _pair_std_error(fit: RidgeFit, design: PoolDesign) -> FloatLF | None:
    """Return the sandwich standard error with pairs as units, stratum by stratum."""
    n_pairs = len(design.coalitions)
    if design.exact:
        return np.zeros_like(fit.coef)
    if n_pairs - design.enumerated < fit.coef.shape[1]:  # their spread says little
        return None
    variance = np.zeros_like(fit.coef)
    for stratum in design.strata:
        first = slice(stratum.rows.start + 2, stratum.rows.stop + 2)
        second = slice(first.start + n_pairs, first.stop + n_pairs)
        variance += stratum.unseen * paired_scatter(fit, first, second)
    return np.sqrt(variance)


def _std_error(fit: RidgeFit, draws: FloatC) -> FloatLF | None:
    """Return the sandwich standard error over the independent draws, the full text being fixed."""
    if draws[1:].sum() < 2 * fit.coef.shape[1]:  # near interpolation residuals say little
        return None
    return np.sqrt(scatter(fit.influence[1:], fit.residuals[1:], draws[1:]))
