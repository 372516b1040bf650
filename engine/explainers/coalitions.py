"""Sets of coalitions that several explainers use, and the checks they have in common."""

from __future__ import annotations

import itertools
import operator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import ConfigError, ExampleError
from engine.pool import CoalitionPool, pack
from engine.types import Attribution, BoolCF, FloatC, FloatL


class Distinct(NamedTuple):
    """Coalitions without repeats, in order of their first appearance, and how often each came."""

    coalitions: BoolCF
    counts: FloatC


def everything(n_features: int) -> BoolCF:
    """Return all coalitions [2^F, F]; bit j of a row's index tells whether feature j is kept."""
    index = np.arange(2**n_features)[:, None]
    return (index >> np.arange(n_features)) & 1 == 1


def ends(n_features: int) -> BoolCF:
    """Return the empty and the full coalition [2, F]."""
    return np.repeat([[False], [True]], n_features, axis=1)


def of_size(n_features: int, size: int) -> BoolCF:
    """Return all coalitions of `size` features, in lexicographic order of their members."""
    members = list(itertools.combinations(range(n_features), size))
    coalitions = np.zeros((len(members), n_features), dtype=bool)
    coalitions[np.arange(len(members))[:, None], np.array(members, dtype=np.intp)] = True
    return coalitions


def uniform_subsets(uniforms_CF: npt.NDArray[np.float64], sizes: npt.ArrayLike) -> BoolCF:
    """Return a subset a row, uniform given its size: the `sizes` smallest of the row's numbers.

    Args:
        uniforms_CF: Independent uniform numbers [C, F].
        sizes: Members of each subset, [C] or one number.
    """
    order = uniforms_CF.argsort(axis=1)
    within = np.arange(uniforms_CF.shape[1]) < np.reshape(np.asarray(sizes), (-1, 1))
    subsets = np.zeros(uniforms_CF.shape, dtype=bool)
    np.put_along_axis(subsets, order, np.broadcast_to(within, subsets.shape), axis=1)
    return subsets


def distinct(coalitions: BoolCF) -> Distinct:
    """Return the distinct rows of `coalitions` and their multiplicities."""
    bits = pack(coalitions)
    rows = np.ascontiguousarray(bits).view(np.dtype((np.void, bits.shape[1]))).ravel()
    _, first, counts = np.unique(rows, return_index=True, return_counts=True)
    order = first.argsort()
    return Distinct(coalitions[first[order]], counts[order].astype(np.float64))


def read_only(*arrays: npt.NDArray[Any]) -> None:
    """Forbid writing to arrays that a cache hands out again."""
    for array in arrays:
        array.flags.writeable = False


def no_features(pool: CoalitionPool, residual: bool = True) -> Attribution:
    """Return the attribution of a game without features: its only value is the base.

    Args:
        pool: Of zero features, with the value of the one coalition there is.
        residual: Whether the method is additive.
    """
    base_L: FloatL = pool.lookup(np.zeros((1, 0), dtype=bool))[0]
    n_labels = len(base_L)
    return Attribution(
        values=np.zeros((n_labels, 0)),
        base=base_L,
        evaluations=1,
        residual=np.zeros(n_labels) if residual else None,
        diagnostics={"exact": True},
    )


def require_samples(method: str, num_samples: int, n_features: int, smallest: int) -> None:
    """Check that a budget suits the number of features.

    Raises:
        ExampleError: `num_samples` is below `smallest`.
    """
    if num_samples < smallest:
        raise ExampleError(
            "too_few_samples",
            f"{method}: num_samples = {num_samples} is too small for {n_features} features; "
            f"the smallest that works is {smallest}",
        )


def check_integer(method: str, parameter: str, value: Any, minimum: int) -> None:
    """Check a parameter that must be a whole number.

    Raises:
        ConfigError: It is not, or is below `minimum`.
    """
    try:
        valid = not isinstance(value, bool) and operator.index(value) >= minimum
    except TypeError:
        valid = False
    if not valid:
        raise ConfigError(
            f"{method}: {parameter} must be a whole number of at least {minimum}, not {value!r}"
        )


def check_sampling(method: str, sampling: Any, compat: str | None) -> None:
    """Check where a method's coalitions come from.

    Raises:
        ConfigError: Neither `own` nor `pool`, or `pool` in a compat profile.
    """
    check_choice(method, "sampling", sampling, ("own", "pool"))
    if compat and sampling == "pool":
        raise ConfigError(
            f"{method}: `sampling: pool` doesn't go with `compat: {compat}`, which draws as the "
            "library does"
        )


def check_choice(method: str, parameter: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Check a parameter that must be one of a few values.

    Raises:
        ConfigError: It is not.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ConfigError(f"{method}: {parameter} must be one of {known}, not {value!r}")
