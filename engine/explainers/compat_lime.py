"""What lime 0.2.0.1 does: its sampler, its feature selection and its ridge regression.

Kept apart from the default profile because it reproduces the library, including what the default
profile does otherwise: 10 features at most, a penalty of 1 whatever the number of samples.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from engine.types import BoolCF, FloatC, FloatCL, FloatL, FloatLF

Selection = Literal["auto", "highest_weights", "forward_selection", "lasso_path", "none"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

PENALTY = 1.0
FORWARD_LIMIT = 6
"""`auto` selects greedily up to this number of features, by weight above it."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


class LimeFit(NamedTuple):
    """Coefficients [L, F] (0 where not selected), intercepts [L] and weighted R² [L]."""

    coef: FloatLF
    intercept: FloatL
    r2: FloatL


def draw(seed: int, n_features: int, num_samples: int) -> BoolCF:
    """Return the rows [num_samples, F] of `LimeTextExplainer(random_state=seed)`, the full first.

    The numbers of removed features are one draw, then each row draws which ones. NumPy's legacy
    generator takes seeds of 32 bits, so only the low 32 bits of `seed` count.
    """
    random = np.random.RandomState(seed % 2**32)
    sizes = random.randint(1, n_features + 1, num_samples - 1)
    rows = np.ones((num_samples, n_features), dtype=bool)
    for row, size in zip(rows[1:], sizes, strict=True):
        row[random.permutation(n_features)[:size]] = False
    return rows


def fit(
    rows: BoolCF, values_CL: FloatCL, weights: FloatC, num_features: int, selection: Selection
) -> LimeFit:
    """Return lime's explanation of every label, each with features selected for itself."""
    from sklearn.linear_model import Ridge

    data = rows.astype(np.float64)
    coef = np.zeros((values_CL.shape[1], data.shape[1]))
    intercept, r2 = np.zeros(len(coef)), np.zeros(len(coef))
    for label, y in enumerate(np.ascontiguousarray(values_CL.T)):
        used = _select(data, y, weights, num_features, selection)
        if not len(used):  # the library would fail here
            intercept[label], r2[label] = np.average(y, weights=weights), 0.0
            continue
        model = Ridge(alpha=PENALTY, fit_intercept=True)
        model.fit(data[:, used], y, sample_weight=weights)
        coef[label, used] = model.coef_
        intercept[label] = model.intercept_
        r2[label] = model.score(data[:, used], y, sample_weight=weights)
    return LimeFit(coef, intercept, r2)


def _select(data: Floats, y: Floats, weights: Floats, limit: int, selection: Selection) -> Indices:
    if selection == "auto":
        selection = "forward_selection" if limit <= FORWARD_LIMIT else "highest_weights"
    if selection == "forward_selection":
        return _forward(data, y, weights, limit)
    if selection == "highest_weights":
        return _highest_weights(data, y, weights, limit)
    if selection == "lasso_path":
        return _lasso_path(data, y, weights, limit)
    return np.arange(data.shape[1])


def _forward(data: Floats, y: Floats, weights: Floats, limit: int) -> Indices:
    """Add the feature that raises the weighted R² of an unpenalised fit most, again and again."""
    from sklearn.linear_model import Ridge

    model: Any = Ridge(alpha=0, fit_intercept=True)
    used: list[int] = []
    for _ in range(min(limit, data.shape[1])):
        candidates = [feature for feature in range(data.shape[1]) if feature not in used]
        scores = []
        for feature in candidates:
            columns = data[:, [*used, feature]]
            model.fit(columns, y, sample_weight=weights)
            scores.append(model.score(columns, y, sample_weight=weights))
        used.append(candidates[int(np.argmax(scores))])
    return np.array(used)


def _highest_weights(data: Floats, y: Floats, weights: Floats, limit: int) -> Indices:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=0.01, fit_intercept=True)
    model.fit(data, y, sample_weight=weights)
    return np.argsort(-np.abs(model.coef_), kind="stable")[:limit]


def _lasso_path(data: Floats, y: Floats, weights: Floats, limit: int) -> Indices:
    """Walk the path back from its end to the first point with few enough features."""
    from sklearn.linear_model import lars_path

    root = np.sqrt(weights)
    x = (data - np.average(data, axis=0, weights=weights)) * root[:, None]
    _, _, coefs = lars_path(x, (y - np.average(y, weights=weights)) * root, method="lasso")
    used: Indices = np.arange(data.shape[1])
    for step in range(coefs.shape[1] - 1, 0, -1):
        used = coefs[:, step].nonzero()[0]
        if len(used) <= limit:
            break
    return used
