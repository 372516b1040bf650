"""The random baseline: attributions that know nothing of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.explainers.base import Explainer
from engine.explainers.coalitions import check_integer, ends, no_features
from engine.pool import CoalitionPool
from engine.seeds import generator
from engine.types import Attribution, BoolCF


@dataclass(frozen=True, slots=True)
class RandomOrder(Explainer):
    """Standard normal attributions: the control that any method should beat.

    Only order and sign mean anything; the scale is arbitrary, so there is no additivity residual.
    The empty and the full text are valued so that labels and base are known.

    Attributes:
        seed: Of the numbers.
    """

    name: ClassVar[str] = "random"

    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.name, "seed", self.seed, 0)

    def ask(self, pool: CoalitionPool) -> BoolCF:
        """Return what is missing of the empty and the full coalition."""
        return pool.missing(ends(pool.n_features))

    def fit(self, pool: CoalitionPool) -> Attribution:
        """Return the random numbers, one row a label."""
        if pool.n_features == 0:
            return no_features(pool, residual=False)
        base_L = pool.lookup(ends(pool.n_features))[0]
        shape = (len(base_L), pool.n_features)
        values_LF = generator("random", int(self.seed)).standard_normal(shape)
        return Attribution(values=values_LF, base=base_L, evaluations=2)
