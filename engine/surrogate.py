"""Linear surrogates of games: weighted ridge regression, and least squares with a fixed total.

Both solve all labels in one factorisation and keep what a sandwich standard error needs: for row i
the direction in which its residual moves the coefficients, and its leverage.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.types import FloatC, FloatCL, FloatL, FloatLF

FloatCF = npt.NDArray[np.float64]

LEVERAGE_CAP = 1 - 1e-3
"""Residuals are divided by one minus the leverage (MacKinnon & White 1985, HC3); beyond this cap
the quotient would be rounding noise."""

CONDITION = 1e13
"""Normal equations that are conditioned worse have the least-norm solution."""


class RidgeFit(NamedTuple):
    """A surrogate with an intercept.

    Attributes:
        coef: [L, F].
        intercept: [L].
        r2: Weighted share of the variance explained [L]; 1 where there is none to explain.
        influence: First-order move of the coefficients per unit of a draw's residual [C, F].
        residuals: Residuals divided by one minus the leverage [C, L].
    """

    coef: FloatLF
    intercept: FloatL
    r2: FloatL
    influence: FloatCF
    residuals: FloatCL


class ConstrainedFit(NamedTuple):
    """Coefficients with a fixed total.

    Attributes:
        coef: [L, F].
        influence: First-order move of the coefficients per unit of a row's residual [C, F].
        residuals: Residuals divided by one minus the leverage [C, L].
    """

    coef: FloatLF
    influence: FloatCF
    residuals: FloatCL


def weighted_ridge(
    x_CF: FloatCF,
    y_CL: FloatCL,
    weights_C: FloatC,
    penalty: float,
    counts_C: FloatC | None = None,
) -> RidgeFit:
    """Minimise Σ w (y − a − x·b)² + penalty·‖b‖² over the intercept a and the coefficients b.

    Args:
        x_CF: Rows of the design.
        y_CL: Values of every label.
        weights_C: Positive weights w.
        penalty: Not applied to the intercept.
        counts_C: How many draws each row stands for; `influence` and leverage are those of a
            single draw. One each if None.
    """
    total = weights_C.sum()
    x_mean, y_mean = weights_C @ x_CF / total, weights_C @ y_CL / total
    x, y = x_CF - x_mean, y_CL - y_mean
    weighted = weights_C[:, None] * x
    gram = x.T @ weighted + penalty * np.eye(x.shape[1])
    inverse = _inverse(gram)
    coef_FL = inverse @ (weighted.T @ y)
    raw = y - x @ coef_FL
    single = weights_C if counts_C is None else weights_C / counts_C
    directions = x @ inverse
    leverage = single * (1 / total + np.einsum("cf,cf->c", directions, x))
    return RidgeFit(
        coef=coef_FL.T,
        intercept=y_mean - x_mean @ coef_FL,
        r2=weighted_r2(y_CL, raw, weights_C),
        influence=single[:, None] * directions,
        residuals=raw / (1 - np.minimum(leverage, LEVERAGE_CAP))[:, None],
    )


def constrained_least_squares(
    x_CF: FloatCF, y_CL: FloatCL, weights_C: FloatC, total_L: FloatL
) -> ConstrainedFit:
    """Minimise Σ w (y − x·b)² subject to Σ b = total, by elimination of the last coefficient.

    As in KernelSHAP (Lundberg & Lee 2017, section 4): with b_F = total − Σ_{i<F} b_i the constraint
    holds by construction, not by a large weight.

    Args:
        x_CF: Rows of the design, F ≥ 1.
        y_CL: Values of every label.
        weights_C: Positive weights w.
        total_L: What the coefficients of each label sum to.
    """
    last = x_CF[:, -1]
    x = x_CF[:, :-1] - last[:, None]
    y = y_CL - last[:, None] * total_L
    weighted = weights_C[:, None] * x
    inverse = _inverse(x.T @ weighted)
    head_FL = inverse @ (weighted.T @ y)
    raw = y - x @ head_FL
    directions = x @ inverse
    leverage = weights_C * np.einsum("cf,cf->c", directions, x)
    moves = np.column_stack([directions, -directions.sum(axis=1)])
    return ConstrainedFit(
        coef=np.vstack([head_FL, total_L - head_FL.sum(axis=0)]).T,
        influence=weights_C[:, None] * moves,
        residuals=raw / (1 - np.minimum(leverage, LEVERAGE_CAP))[:, None],
    )


def weighted_r2(y_CL: FloatCL, residuals_CL: FloatCL, weights_C: FloatC) -> FloatL:
    """Return 1 − Σ w r² / Σ w (y − ȳ)² a label; 1 where y is constant but for rounding."""
    if not len(y_CL):
        return np.ones(y_CL.shape[1])
    mean = weights_C @ y_CL / weights_C.sum()
    variance = weights_C @ (y_CL - mean) ** 2
    rounding = (8 * np.finfo(float).eps) ** 2 * (weights_C @ y_CL**2)
    varies = variance > rounding
    unexplained = weights_C @ residuals_CL**2
    return 1 - np.divide(unexplained, variance, out=np.zeros_like(variance), where=varies)


def scatter(influence_CF: FloatCF, residuals_CL: FloatCL, counts_C: FloatC) -> FloatLF:
    """Return the variance of the summed influence of independent draws [L, F].

    The meat of a sandwich estimate (Huber 1967): n/(n − 1) Σ (g − ḡ)² over n draws with influence
    g = influence·residual; g² itself for a single draw.

    Args:
        influence_CF: Of one draw.
        residuals_CL: Of one draw.
        counts_C: Number of draws each row stands for.
    """
    n = float(counts_C.sum())
    squares: FloatLF = (counts_C[:, None] * residuals_CL**2).T @ influence_CF**2
    if n < 2:
        return squares
    sums: FloatLF = (counts_C[:, None] * residuals_CL).T @ influence_CF
    centred: FloatLF = np.maximum(squares - sums**2 / n, 0)
    return centred * (n / (n - 1))


def paired_scatter(fit: RidgeFit, first: slice, second: slice) -> FloatLF:
    """Return `scatter` of units of two rows each: the i-th of `first` with the i-th of `second`.

    Args:
        fit: The surrogate.
        first: Rows of the fit.
        second: As many other rows.
    """
    variance = np.empty_like(fit.coef)
    for label in range(len(variance)):
        residuals = fit.residuals[:, label, None]
        moves = fit.influence[first] * residuals[first] + fit.influence[second] * residuals[second]
        n = len(moves)
        centred = moves - moves.mean(axis=0) if n > 1 else moves
        variance[label] = (centred**2).sum(axis=0) * (n / (n - 1) if n > 1 else 1.0)
    return variance


def _inverse(gram: FloatCF) -> FloatCF:
    try:
        inverse = np.asarray(np.linalg.inv(gram), dtype=np.float64)
        # a matrix that is singular but for rounding passes `inv` with entries of any size
        if np.abs(inverse).max(initial=0) * np.abs(gram).max(initial=0) < CONDITION:
            return inverse
    except np.linalg.LinAlgError:
        pass  # the least-norm solution below
    return np.asarray(np.linalg.pinv(gram, hermitian=True), dtype=np.float64)
