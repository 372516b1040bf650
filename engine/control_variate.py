"""What one model's many evaluations tell of another model's attributions.

Two models that are alike (4-bit and full precision, a base and its fine-tuned version) answer alike
to the same coalitions. Of the second model's game v_B only the difference v_B − β·v_A to the first
one has to be estimated anew; the first one's share β·φ_A is known from its own, larger budget. With
correlation ρ between what the models' values leave unexplained, the variance is 1 − ρ² of what B's
evaluations alone would give (control variates: Glasserman 2003, section 4.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from engine.explainers.base import Explainer
from engine.pool import CoalitionPool
from engine.types import Attribution, BoolCF, FloatCL, FloatL

MOST_GAIN = 1e6
"""Beyond that two models' answers in single precision are told apart by their rounding."""


class Controlled(NamedTuple):
    """An attribution with another model's evaluations as control variate.

    Attributes:
        attribution: Of model B; its standard error has both models' parts.
        slope: β of each label [L].
        correlation: ρ of each label [L], over the coalitions both models valued.
    """

    attribution: Attribution
    slope: FloatL
    correlation: FloatL


def with_control(
    explainer: Explainer, of_b: CoalitionPool, of_a: CoalitionPool, known: Attribution
) -> Controlled:
    """Return B's attribution from few evaluations of B and many of A.

    The attribution has to be linear in the values, as it is for Shapley methods and `lime`; the
    explainer's budget must be fixed, since a precise difference is the point of it.

    Args:
        explainer: With B's budget; draws by its seed, so that both models have its coalitions.
        of_b: B's values, at least those that `explainer` asks for.
        of_a: A's values of the same coalitions.
        known: A's attribution from all its evaluations, by the same method.

    Raises:
        KeyError: A pool lacks a coalition.
    """
    coalitions = explainer.ask(CoalitionPool(of_b.n_features))
    b_CL, a_CL = of_b.lookup(coalitions), of_a.lookup(coalitions)
    slope, correlation = _regress(unexplained(coalitions, b_CL), unexplained(coalitions, a_CL))
    difference = CoalitionPool(of_b.n_features)
    difference.tell(coalitions, b_CL - slope * a_CL)
    found = explainer.fit(difference)
    share = slope[:, None]
    std_error = None
    if found.std_error is not None and known.std_error is not None:
        # A's error is nearly independent: what the difference leaves is uncorrelated with A
        std_error = np.hypot(found.std_error, share * known.std_error)
    residual = None
    if found.residual is not None and known.residual is not None:
        residual = found.residual + slope * known.residual
    attribution = replace(
        found,
        values=found.values + share * known.values,
        base=found.base + slope * known.base,
        std_error=std_error,
        residual=residual,
        r2=None,
    )
    return Controlled(attribution, slope, correlation)


def answer_correlation(b_CL: FloatCL, a_CL: FloatCL) -> FloatL:
    """Return ρ of each label [L] between what a linear game leaves of two models' answers.

    Args:
        b_CL: From `unexplained`.
        a_CL: Of the other model, over the same coalitions.
    """
    return _regress(b_CL, a_CL)[1]


def control_gain(correlation: FloatL) -> FloatL:
    """Return 1 / (1 − ρ²): how many times fewer evaluations of the second model do.

    With so many fewer, beside the first model's many, its sampling error is what its own
    evaluations alone would leave; at most `MOST_GAIN`.
    """
    return np.asarray(1 / np.maximum(1 - correlation**2, 1 / MOST_GAIN))


def unexplained(coalitions: BoolCF, values_CL: FloatCL) -> FloatCL:
    """Return what a linear game leaves of the values: that alone varies with the coalitions drawn.

    Where the coalitions are so few that it leaves nothing, the centred values.
    """
    x = np.column_stack([np.ones(len(coalitions)), coalitions])
    if len(coalitions) <= x.shape[1]:
        return values_CL - values_CL.mean(axis=0)
    return values_CL - x @ np.linalg.lstsq(x, values_CL, rcond=None)[0]


def _regress(b_CL: FloatCL, a_CL: FloatCL) -> tuple[FloatL, FloatL]:
    product, a, b = (b_CL * a_CL).sum(axis=0), (a_CL**2).sum(axis=0), (b_CL**2).sum(axis=0)
    slope = np.divide(product, a, out=np.zeros_like(a), where=a > 0)
    both = np.sqrt(a * b)
    return slope, np.divide(product, both, out=np.zeros_like(a), where=both > 0)
