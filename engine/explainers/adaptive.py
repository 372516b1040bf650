"""Budgets that grow until the estimate is precise enough."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ConfigError
from engine.explainers.base import Explainer
from engine.explainers.fits import Fitted
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF

GROWTH = 1.5
"""Each budget over the one before. Looking often invites stopping on an error that is small by
chance; looking rarely overshoots."""


class Progress(NamedTuple):
    """Either coalitions to be valued, or the attribution.

    Attributes:
        missing: [C, F].
        found: None while any are missing.
        seconds: What the fits took when they were made.
    """

    missing: BoolCF
    found: Attribution | None
    seconds: float = 0.0


def check_relative_error(method: str, value: Any) -> None:
    """Check the parameter `relative_error`.

    Raises:
        ConfigError: It isn't a number between 0 and 1.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ConfigError(
            f"{method}: relative_error must be a number between 0 and 1, for example 0.05, "
            f"not {value!r}"
        )


def budgets(first: int, most: int) -> list[int]:
    """Return the budgets at which the error is looked at: growing from `first`, `most` the last."""
    steps = []
    budget = float(first)
    while budget < most:
        steps.append(math.ceil(budget))
        budget *= GROWTH
    return [*steps, most]


def relative_error(attribution: Attribution) -> float:
    """Return ‖standard error‖ / ‖values‖ of the label where it is largest.

    It estimates the relative Euclidean error of a label's values; 0 for a label without values,
    infinite for an attribution without standard errors.
    """
    if attribution.std_error is None:
        return math.inf
    error_L = np.linalg.norm(attribution.std_error, axis=1)
    size_L = np.linalg.norm(attribution.values, axis=1)
    unknown = np.where(error_L > 0, np.inf, 0.0)
    ratio_L = np.divide(error_L, size_L, out=unknown, where=size_L > 0)
    return float(ratio_L.max(initial=0.0))


def advance(
    pool: CoalitionPool, at: Callable[[int], Explainer], steps: list[int], tolerance: float
) -> Progress:
    """Go through the budgets as far as the pool's values reach.

    Args:
        pool: The values so far.
        at: Budget -> the explainer that spends just this; what a smaller budget asks, a larger one
            should ask too.
        steps: From `budgets`.
        tolerance: For `relative_error`.

    Returns:
        What the next budget lacks, or the attribution of the first budget that is precise enough,
        or of the last one. Its diagnostics say how it ended: `stopped` (tolerance or budget),
        `rounds`, `relative_error` (estimated), `forecast` (about how many evaluations the tolerance
        needs, as errors fall with the root of their number).
    """
    seconds = 0.0
    for number, budget in enumerate(steps, 1):
        explainer = at(budget)
        missing = explainer.ask(pool)
        if len(missing):
            return Progress(missing, None)
        found, _, took = explainer.fitted(pool)  # `ask` and `fit` of all replays come by here
        seconds += took
        error = relative_error(found)
        if error <= tolerance or number == len(steps):
            facts: dict[str, float | int | str | bool] = {
                "stopped": "tolerance" if error <= tolerance else "budget",
                "rounds": number,
            }
            if math.isfinite(error):
                ratio = error / tolerance
                # floats end below 2^1024
                needed = min(found.evaluations * ratio * ratio, 2.0 ** min(pool.n_features, 1023))
                facts["relative_error"] = error
                facts["forecast"] = math.ceil(needed)
            found = replace(found, diagnostics={**found.diagnostics, **facts})
            return Progress(missing, found, seconds)
    raise AssertionError("no budgets")


class AdaptiveExplainer(Explainer):
    """An explainer that can stop at an estimated error; a dataclass with a field `num_samples`.

    Attributes:
        relative_error: Stop asking once `relative_error` is below this. None spends all samples.
    """

    relative_error: float | None

    @abstractmethod
    def _steps(self, n_features: int) -> list[int]:
        """Return the budgets of a text of so many features, from `budgets`."""

    def used(self, pool: CoalitionPool) -> BoolCF:
        """Return the coalitions of all rounds."""
        if self.relative_error is None or pool.n_features == 0:
            return super().used(pool)
        return self.fitted(pool).used

    def fitted(self, pool: CoalitionPool) -> Fitted:
        """Return the attribution of the last round, what all rounds used and took."""
        if self.relative_error is None or pool.n_features == 0:
            return super().fitted(pool)
        _, found, seconds = self._advance(pool, self.relative_error)
        assert found is not None
        empty = CoalitionPool(pool.n_features)
        rounds = int(found.diagnostics["rounds"])
        rows = [self._at(b).ask(empty) for b in self._steps(pool.n_features)[:rounds]]
        return Fitted(found, empty.missing(np.concatenate(rows)), seconds)

    def _advance(self, pool: CoalitionPool, tolerance: float) -> Progress:
        return advance(pool, self._at, self._steps(pool.n_features), tolerance)

    def _at(self, budget: int) -> Explainer:
        same: Any = self  # replace() takes dataclasses, which subclasses are
        at: Explainer = replace(same, num_samples=budget, relative_error=None)
        return at
