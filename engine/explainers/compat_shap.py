"""What shap 0.51's `KernelExplainer` does: its coalitions, weights, feature selection and solution.

Kept apart from the default profile because it reproduces the library, including what the default
profile does otherwise: the middle size of an even number of features is not paired, and at most 10
features have a value.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError
from engine.explainers.coalitions import of_size
from engine.types import BoolCF, FloatC, FloatCL, FloatL, FloatLF

L1 = str | float | bool
Floats = npt.NDArray[np.float64]

_NUM_FEATURES = re.compile(r"num_features\((\d+)\)")
_ROUNDING = 1e-10


class Design(NamedTuple):
    """Coalitions [C, F] without the empty and the full one, in shap's order, and weights [C]."""

    coalitions: BoolCF
    weights: FloatC


class _Sizes(NamedTuple):
    """The sizes 1..K: their share of the kernel, and how many of them go with complements."""

    weights: Floats
    paired: int


def check_selection(l1_reg: Any) -> None:
    """Check shap's `l1_reg`.

    Raises:
        ConfigError: It is nothing shap knows.
    """
    if isinstance(l1_reg, str):
        match = _NUM_FEATURES.fullmatch(l1_reg)
        valid = l1_reg in ("aic", "bic") or (match is not None and int(match[1]) > 0)
    else:
        valid = l1_reg is False or (
            isinstance(l1_reg, int | float) and l1_reg is not True and 0 <= l1_reg < math.inf
        )
    if not valid:
        raise ConfigError(
            f"kernel_shap: l1_reg must be num_features(K), aic, bic, a penalty or false, "
            f"not {l1_reg!r}"
        )


def smallest(n_features: int, l1_reg: L1 | None) -> int:
    """Return the smallest `nsamples` that a selection can work with."""
    # scikit-learn's LassoLarsIC needs more rows than unknowns, and there are two rows a sample
    return (n_features + 3) // 2 if l1_reg in ("aic", "bic") and n_features > 1 else 1


def draw(seed: int, n_features: int, nsamples: int) -> Design:
    """Return the coalitions shap values after `np.random.seed(seed)`, and their weights.

    NumPy's legacy generator takes seeds of 32 bits, so only the low 32 bits of `seed` count.
    """
    if n_features == 1:  # the only feature has the whole difference
        return Design(np.zeros((0, 1), dtype=bool), np.zeros(0))
    if n_features <= 30:
        nsamples = min(nsamples, 2**n_features - 2)
    sizes = _sizes(n_features)
    blocks: list[BoolCF] = []
    weights: list[Floats] = []
    left, remaining, n_full = nsamples, sizes.weights.copy(), 0
    for size in range(1, len(sizes.weights) + 1):
        subsets = math.comb(n_features, size)
        cost = subsets * (2 if size <= sizes.paired else 1)
        if cost > left or left * remaining[size - 1] / cost < 1 - 1e-8:
            break
        n_full += 1
        left -= cost
        if remaining[size - 1] < 1:
            remaining = remaining / (1 - remaining[size - 1])
        blocks.append(_with_complements(of_size(n_features, size), size <= sizes.paired))
        each = sizes.weights[size - 1] / subsets
        weights.append(np.full(cost, each / 2 if size <= sizes.paired else each))
    if n_full != len(sizes.weights):
        rest, counts = _draw_rest(seed, n_features, left, n_full, sizes)
        blocks.append(rest)
        weights.append(counts * (sizes.weights[n_full:].sum() / counts.sum()) if left else counts)
    return Design(np.concatenate(blocks), np.concatenate(weights))


def fit(design: Design, values_CL: FloatCL, empty_L: FloatL, full_L: FloatL, l1_reg: L1) -> FloatLF:
    """Return shap's values [L, F], each label with features selected for itself."""
    masks = design.coalitions.astype(np.float64)
    n_labels, n_features = len(empty_L), masks.shape[1]
    if n_features == 1:
        return (full_L - empty_L)[:, None]
    phi = np.zeros((n_labels, n_features))
    for label in range(n_labels):
        y, total = values_CL[:, label] - empty_L[label], full_L[label] - empty_L[label]
        used = _select(masks, y, design.weights, total, l1_reg)
        if len(used):
            phi[label, used] = _solve(masks[:, used], y, design.weights, total)
    phi[np.abs(phi) < _ROUNDING] = 0
    return phi


def _sizes(n_features: int) -> _Sizes:
    n_sizes, paired = n_features // 2, (n_features - 1) // 2
    size = np.arange(1, n_sizes + 1)
    weights = (n_features - 1.0) / (size * (n_features - size))
    weights[:paired] *= 2
    return _Sizes(weights / np.sum(weights), paired)


def _with_complements(coalitions: BoolCF, paired: bool) -> BoolCF:
    if not paired:
        return coalitions
    both = np.stack([coalitions, ~coalitions], axis=1)
    return both.reshape(-1, coalitions.shape[1])


def _draw_rest(
    seed: int, n_features: int, left: int, n_full: int, sizes: _Sizes
) -> tuple[BoolCF, Floats]:
    """Return the random part: distinct coalitions and how often each was drawn."""
    random = np.random.RandomState(seed % 2**32)
    probabilities = sizes.weights.copy()
    probabilities[: sizes.paired] /= 2  # a draw brings its complement
    probabilities = probabilities[n_full:]
    probabilities /= np.sum(probabilities)
    rows = np.zeros((left, n_features), dtype=bool)
    counts = np.zeros(left)
    seen: dict[bytes, int] = {}
    added = 0
    for index in random.choice(len(probabilities), 4 * left, p=probabilities):
        if added == left:
            break
        size = int(index) + n_full + 1
        mask = np.zeros(n_features, dtype=bool)
        mask[random.permutation(n_features)[:size]] = True
        row = seen.setdefault(mask.tobytes(), added)
        new = row == added
        if new:
            rows[row] = mask
            added += 1
        counts[row] += 1
        if added < left and size <= sizes.paired:
            # the complement stands right after its coalition
            rows[row + 1] = ~mask
            counts[row + 1] += 1
            added += new
    return rows[:added], counts[:added]


def _select(masks: Floats, y: Floats, weights: Floats, total: float, l1_reg: L1) -> Any:
    """Return the indices of the features that get a value, in the order shap has them."""
    n_features = masks.shape[1]
    if l1_reg is False or l1_reg == 0:
        return np.arange(n_features)
    from sklearn.linear_model import Lasso, LassoLarsIC, lars_path
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept = np.sum(masks, 1)
    root = np.sqrt(np.hstack((weights * (n_features - kept), weights * kept)))
    target = np.hstack((y, y - total)) * root
    design = np.transpose(root * np.transpose(np.vstack((masks, masks - 1))))
    if l1_reg in ("aic", "bic"):
        model = make_pipeline(StandardScaler(with_mean=False), LassoLarsIC(criterion=l1_reg))
        return np.nonzero(model.fit(design, target)[1].coef_)[0]
    if isinstance(l1_reg, str):
        limit = int(l1_reg[len("num_features(") : -1])
        return np.array(lars_path(design, target, max_iter=limit)[1], dtype=np.intp)
    return np.nonzero(Lasso(alpha=l1_reg).fit(design, target).coef_)[0]


def _solve(masks: Floats, y: Floats, weights: Floats, total: float) -> Floats:
    """Return the values of the selected features, the last one by elimination."""
    y = y - masks[:, -1] * total
    x = np.transpose(np.transpose(masks[:, :-1]) - masks[:, -1])
    weighted = weights[:, None] * x
    try:
        head = np.linalg.solve(x.T @ weighted, weighted.T @ y)
    except np.linalg.LinAlgError:
        root = np.sqrt(weights)
        head = np.linalg.lstsq(root[:, None] * x, root * y, rcond=None)[0]
    return np.append(head, total - sum(head))
