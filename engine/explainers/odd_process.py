"""Shapley values by Gaussian-process regression of a game's odd part.

Shapley values depend on a game through g(S) = (v(S) − v(complement of S)) / 2 alone, which changes
its sign with the complement. Write a coalition as z in {−1, 1}^F and g = Σ_T a_T Π_{i∈T} z_i over
sets T of odd size; then φ_i = Σ_{T∋i} 2·a_T / |T| (a term's gain of 2 is shared by its members, who
are alike). KernelSHAP fits the terms of one feature and takes the rest for noise. Here all terms
are fitted, with the prior that a_T is normal with variance λ^|T|: the more features have to come
together, the less there is. Pairwise terms are even, so that pairs of complements have removed
them already; what the prior brings is the terms of three features and more.

The prior's covariance depends on the Hamming distance h alone: summed over odd T,
Σ λ^|T| Π z_i z'_i = ((1+λ)^(F−h) (1−λ)^h − (1−λ)^(F−h) (1+λ)^h) / 2. A share η of it is the same
kernel at λ = 1, the white noise of games: the interactions of all sizes that the smooth part
can't follow. It belongs to the game and isn't an error of its values, so that observed values are
kept as they are: the values sum to v(all) − v(none), and are exact once all pairs are there.

λ and η aren't chosen but averaged over by their evidence (MacKay 1992), so that the posterior's
covariance has the uncertainty about them. O(P³) for P pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.types import BoolCF, FloatCL, FloatL, FloatLF

Floats = npt.NDArray[np.float64]

REACH = (0.15, 0.3, 0.5, 0.75, 1.1, 1.6, 2.4, 4.0)
"""Values of λ·F. The terms of three features have about (λF)²/6 of the variance of those of one."""

MAX_LAMBDA = 0.6

ROUGH = (1e-6, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Values of η, the share of the white part in a value's prior variance."""

SCREENED = 256
"""Rows on which all λ are compared; those that have no chance aren't fitted to more."""

PLAUSIBLE = 12.0
"""How far the logarithm of a kernel's evidence may be below the best one's on those rows."""

TINY = 1e-300


class Posterior(NamedTuple):
    """What the values of pairs say of the Shapley values.

    Attributes:
        values: Posterior mean [L, F].
        std_error: Posterior standard deviation [L, F].
        held_out_r2: 1 − Σ (g − its prediction from all other rows)² / Σ g² over the pairs, not
            weighted [L]; 1 where g is zero.
    """

    values: FloatLF
    std_error: FloatLF
    held_out_r2: FloatL


class _Fits(NamedTuple):
    """Fits with one λ and all of `ROUGH`, each along the first axis.

    Attributes:
        evidence: Its logarithm [R, L].
        values: [R, L, F].
        variance: Of the values [R, L, F].
        held_out: Residuals against the prediction from all other rows [R, C, L].
    """

    evidence: Floats
    values: Floats
    variance: Floats
    held_out: Floats


class _Part(NamedTuple):
    """A kernel whose values have the prior variance 1.

    Attributes:
        by_distance: Covariance of the values at Hamming distance 0..F [F + 1].
        by_size: Covariance of feature i's Shapley value with the value of a coalition of size 0..F
            that has i [F + 1]; for one that lacks i it is minus that of the complement's size.
        variance: Prior variance of a Shapley value.
    """

    by_distance: Floats
    by_size: Floats
    variance: float


def odd_process(half: BoolCF, odd_CL: FloatCL, total_L: FloatL) -> Posterior:
    """Return the posterior of the Shapley values given the odd part's values.

    Args:
        half: One coalition of each pair of complements [P, F]; neither the empty nor the full one.
        odd_CL: (v(S) − v(complement)) / 2 of each [P, L].
        total_L: v(all) − v(none).

    Returns:
        The posterior; exact values without an error where all pairs are there.
    """
    n_features = half.shape[1]
    rows = np.concatenate([np.ones((1, n_features), dtype=bool), half])
    y_CL = np.concatenate([total_L[None] / 2, odd_CL])
    unit_L = np.sqrt((y_CL**2).mean(axis=0))
    flat = unit_L == 0
    y_CL = np.where(
        flat, 1.0, y_CL / np.where(flat, 1.0, unit_L)
    )  # of a flat label nothing is used
    signs = np.where(rows, 1.0, -1.0)
    distance = np.rint((n_features - signs @ signs.T) / 2).astype(np.intp)
    white = _part(n_features, 1.0)
    smooth = [_part(n_features, min(reach / n_features, MAX_LAMBDA)) for reach in REACH]
    if len(rows) > SCREENED:
        smooth = _plausible(smooth, distance[:SCREENED, :SCREENED], y_CL[:SCREENED])
    found = [_fits(rows, distance, y_CL, part, white) for part in smooth]
    evidence, values, variance, held_out = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    weights = np.exp(evidence - evidence.max(axis=0))
    weights /= weights.sum(axis=0)
    mean = np.einsum("ml,mlf->lf", weights, values)
    spread = np.einsum("ml,mlf->lf", weights, variance + (values - mean) ** 2)
    residuals = np.einsum("ml,mcl->cl", weights, held_out)[1:]
    unexplained = (residuals**2).sum(axis=0) / np.maximum((y_CL[1:] ** 2).sum(axis=0), TINY)
    unit_L = np.where(flat, 0.0, unit_L)
    return Posterior(
        mean * unit_L[:, None],
        np.sqrt(spread) * unit_L[:, None],
        np.where(flat, 1.0, 1 - unexplained),
    )


def _plausible(parts: list[_Part], distance: npt.NDArray[np.intp], y_CL: FloatCL) -> list[_Part]:
    """Return the kernels that some label's values leave possible."""
    evidence = np.array([_spectrum(distance, y_CL, part)[2].max(axis=0) for part in parts])
    near = (evidence > evidence.max(axis=0) - PLAUSIBLE).any(axis=1)
    return [part for part, keep in zip(parts, near, strict=True) if keep]


def _part(n_features: int, lam: float) -> _Part:
    """Return the kernel of λ, all terms divided by (1 + λ)^F to stay finite for many features."""
    ratio = (1 - lam) / (1 + lam)
    h = np.arange(n_features + 1)
    by_distance = (ratio**h - ratio ** (n_features - h)) / 2
    # 1/|T| = ∫ s^(|T|−1) ds over 0..1: a polynomial in s of degree F − 1, exact by quadrature
    nodes, shares = np.polynomial.legendre.leggauss(n_features // 2 + 1)
    s = (nodes[:, None] + 1) * lam / 2
    up, down = np.log1p(s) - math.log1p(lam), np.log1p(-s) - math.log1p(lam)
    kept = np.maximum(h - 1, 0)  # of the other features
    gone = n_features - 1 - kept
    even = np.exp(up * kept + down * gone) + np.exp(up * gone + down * kept)
    by_size = lam / (1 + lam) * (shares / 2) @ even
    whole = n_features * math.log1p(lam)
    # the sum alone is beyond all floats from about a thousand features on
    variance = sum(
        4 / t**2 * math.exp(_log_binomial(n_features - 1, t - 1) + t * math.log(lam) - whole)
        for t in range(1, n_features + 1, 2)
    )
    top = by_distance[0]
    return _Part(by_distance / top, by_size / top, variance / top)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _spectrum(
    distance: npt.NDArray[np.intp], y_CL: FloatCL, part: _Part
) -> tuple[Floats, Floats, Floats]:
    """Return the eigenvectors [C, C], the variances along them [R, C], and log evidence [R, L]."""
    values, vectors = np.linalg.eigh(part.by_distance[distance])
    rough = np.array(ROUGH)[:, None]
    variances = (1 - rough) * np.maximum(values, 0) + rough
    squares = (vectors.T @ y_CL) ** 2
    scale = np.einsum("rc,cl->rl", 1 / variances, squares) / len(distance)
    evidence = -0.5 * (len(distance) * np.log(scale) + np.log(variances).sum(axis=1)[:, None])
    return vectors, variances, evidence


def _fits(
    rows: BoolCF, distance: npt.NDArray[np.intp], y_CL: FloatCL, part: _Part, white: _Part
) -> _Fits:
    vectors, variances, evidence = _spectrum(distance, y_CL, part)
    smooth_CF, white_CF = (vectors.T @ _cross(rows, p) for p in (part, white))
    y = vectors.T @ y_CL
    squares = vectors**2
    fits = []
    for rough, variance in zip(ROUGH, variances, strict=True):
        solved = y / variance[:, None]
        cross = (1 - rough) * smooth_CF + rough * white_CF
        prior = (1 - rough) * part.variance + rough * white.variance
        left = np.maximum(prior - (cross**2 / variance[:, None]).sum(axis=0), 0)
        scale = (y * solved).mean(axis=0)
        held_out = (vectors @ solved) / (squares @ (1 / variance))[:, None]
        fits.append((solved.T @ cross, scale[:, None] * left, held_out))
    values, variance_, held_out_ = (np.array(parts) for parts in zip(*fits, strict=True))
    return _Fits(evidence, values, variance_, held_out_)


def _cross(rows: BoolCF, part: _Part) -> Floats:
    """Return the covariance of the values of `rows` with the Shapley values [C, F]."""
    size = rows.sum(axis=1, keepdims=True)
    return np.where(rows, part.by_size[size], -part.by_size[rows.shape[1] - size])
