"""The vocabulary: examples, features, attributions, and array aliases with their shapes.

Shape suffixes used across the project: `_E` examples, `_F` features, `_C` coalitions,
`_L` labels, `_T` tokens, `_B` rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

BoolCF: TypeAlias = npt.NDArray[np.bool_]
"""Coalitions [C, F]: True keeps a feature, False removes it."""
FloatCL: TypeAlias = npt.NDArray[np.float64]
"""One value a coalition and label [C, L]."""
FloatLF: TypeAlias = npt.NDArray[np.float64]
"""Attributions [L, F], one row a label."""
FloatF: TypeAlias = npt.NDArray[np.float64]
FloatL: TypeAlias = npt.NDArray[np.float64]
FloatC: TypeAlias = npt.NDArray[np.float64]
IntF: TypeAlias = npt.NDArray[np.int64]

ValueFunction: TypeAlias = Callable[[BoolCF], npt.NDArray[np.floating[Any]]]
"""A game: coalitions bool[C, F] -> float[C] (one label) or float[C, L]."""

Target: TypeAlias = Literal["log_odds", "probability", "logprob"]
FeatureKind: TypeAlias = Literal["words", "tokens", "sentences"]
OperatorName: TypeAlias = Literal["delete", "mask", "neutral", "pad"]
RationaleKind: TypeAlias = Literal["human", "author_marked"]


class Span(NamedTuple):
    """Characters [start, end) of one input field of an example."""

    start: int
    end: int
    field: str = "text"


@dataclass(frozen=True, slots=True)
class Feature:
    """What is kept or removed as one: a set of spans of the user's text.

    Usually one span; LIME's bag-of-words mode has all occurrences of a word in one feature.

    Attributes:
        spans: Ordered, not overlapping.
        text: The characters of the first span, for display.
    """

    spans: tuple[Span, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One input of the data set.

    Attributes:
        id: Unique within the data set.
        fields: Input field name -> text, as the prompt template names them.
        label: Index into the label set of the prompt, or None where there is no gold label.
        group: What is resampled as one by the bootstrap (premise, passage, template), or None.
        rationale: Spans of the evidence, or None where the data has none.
        rationale_kind: Who marked the rationale.
    """

    id: str
    fields: Mapping[str, str]
    label: int | None = None
    group: str | None = None
    rationale: tuple[Span, ...] | None = None
    rationale_kind: RationaleKind | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What an explainer says of one example, for all labels at once.

    Attributes:
        values: Attribution of each feature to each label [L, F].
        base: Value without any feature [L]: v(empty) of Shapley methods, the surrogate's
            intercept of LIME, F(baseline) of gradient methods.
        evaluations: Number of distinct coalitions the estimate used; passes of gradient methods.
        std_error: Standard error [L, F], or None where the method has none.
        residual: v(all) − v(none) − Σ values [L] (additivity), or None for surrogates.
        r2: Weighted R² of the surrogate [L], or None for methods without one.
        diagnostics: Further facts, values of JSON, for example the ridge penalty or `exact`.
    """

    values: FloatLF
    base: FloatL
    evaluations: int
    std_error: FloatLF | None = None
    residual: FloatL | None = None
    r2: FloatL | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def interval(self, level: float = 0.95) -> tuple[FloatLF, FloatLF] | None:
        """Return the ends [L, F] of confidence intervals for each value by itself.

        `std_error` times Student's t quantile with `dof` degrees of freedom of the diagnostics,
        the normal quantile where there is none; None where there is no standard error.

        Args:
            level: Nominal coverage, between 0 and 1.
        """
        if self.std_error is None:
            return None
        from scipy.special import ndtri, stdtrit

        dof, tail = self.diagnostics.get("dof"), (1 + level) / 2
        quantile = float(ndtri(tail) if dof is None else stdtrit(float(dof), tail))
        half = quantile * self.std_error
        return self.values - half, self.values + half
