"""Explainers that ask a host for gradients instead of values of coalitions.

They are configured, reported and measured like the others, but play no game of coalitions: `solve`
can't run them. What one of them asks is one row of `engine.gradients`; the host computes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from engine.errors import ConfigError
from engine.explainers.coalitions import check_choice, check_integer
from engine.gradients import BASELINES, Baseline, GradientAnswer, GradientAsk, Method
from engine.target import Normaliser
from engine.tokens import Tokenizer
from engine.types import Attribution, FloatL, Target

RANGES: Mapping[Target, float] = {"log_odds": 6.0, "logprob": 3.0, "probability": 1.0}
"""Range of the explained value over a data set, where none is given. A unit knows its own examples
only, so that the range can't be taken from the data without making a result depend on the shards.
SmolLM2-135M-Instruct spans 5.8 in log-odds and 2.9 in log-probability over the label set on the
first 200 sentences of SST-2's dev set (the template of docs/models.md)."""

ENOUGH = 0.01
"""Completeness error that is always good enough, as a share of the value's range."""


def nothing_to_explain(value_L: FloatL) -> Attribution:
    """Return the attribution of a text without features, whose value is its base."""
    return Attribution(
        values=np.zeros((len(value_L), 0)),
        base=value_L,
        evaluations=1,
        residual=np.zeros_like(value_L),
    )


def status_of(attribution: Attribution) -> str:
    """Return the `status` of an attribution in tables: ok, no_features or not_converged."""
    if not attribution.values.shape[1]:
        return "no_features"
    return "ok" if attribution.diagnostics.get("converged", True) else "not_converged"


@dataclass(frozen=True, slots=True)
class GradientMethod(ABC):
    """What the gradient explainers have in common.

    Attributes:
        baseline: The embedding that stands for "no token": `mean` of the vocabulary's, `pad` (the
            model's padding token's), `mask` (the mean of those of `mask`'s tokens) or `zero`.
        mask: A string, for the baseline `mask`.
        seed: Not used; here so that all methods are built alike.
    """

    name: ClassVar[Method]

    baseline: Baseline = "mean"
    mask: str = "[MASK]"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer(self.name, "seed", self.seed, 0)
        check_choice(self.name, "baseline", self.baseline, BASELINES)
        if not isinstance(self.mask, str) or not self.mask:
            raise ConfigError(f"{self.name}: mask must be a text, for example '[MASK]'")

    def ask(
        self,
        key: str,
        ids: Sequence[int],
        positions: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        target: Target,
        normaliser: Normaliser,
        calibration: Sequence[float] | None,
    ) -> GradientAsk:
        """Return the row to ask a host.

        Args:
            key: From `gradient_key`.
            ids: Tokens of the full prompt [T].
            positions: Positions of each feature's tokens [F].
            tokenizer: Of the model.
            target: What is explained.
            normaliser: What it sums to one over.
            calibration: Log-probabilities to subtract [L], or None.
        """
        mask = tokenizer.encode_batch([self.mask], False)[0] if self.baseline == "mask" else []
        steps, max_steps, occlusion_steps = self._steps()
        return GradientAsk(
            key=key,
            ids=tuple(ids),
            positions=tuple(tuple(places) for places in positions),
            method=self.name,
            steps=steps,
            max_steps=max_steps,
            baseline=self.baseline,
            target=target,
            floor=ENOUGH * self._range(target),
            normaliser=normaliser,
            baseline_ids=tuple(mask),
            occlusion_steps=occlusion_steps,
            calibration=None if calibration is None else tuple(calibration),
        )

    def attribution(self, answer: GradientAnswer, label: int) -> Attribution:
        """Return the attribution that an answer stands for.

        Args:
            answer: The host's.
            label: The label whose facts go into `diagnostics`.
        """
        facts: dict[str, float | int | str | bool | tuple[float, ...]] = {
            "baseline": self.baseline,
            "converged": answer.converged,
            "steps": answer.steps,
        }
        if answer.curve is not None:
            facts["curve"] = tuple(answer.curve[label].tolist())
        return Attribution(
            values=answer.values,
            base=answer.base,
            evaluations=answer.evaluations,
            residual=answer.full - answer.base - answer.values.sum(axis=1),
            diagnostics=facts,
        )

    @abstractmethod
    def _steps(self) -> tuple[int, int, int]:
        """Return the first and the largest number of quadrature points, and parts of occlusion."""

    def _range(self, target: Target) -> float:
        return RANGES[target]


@dataclass(frozen=True, slots=True)
class IntegratedGradients(GradientMethod):
    """φ_i = Σ over i's tokens of (x − x')·∫₀¹ ∇F(x' + α(x − x')) dα (Sundararajan et al. 2017).

    x are the embeddings of the features' tokens, x' the baseline in each one's place; all other
    tokens stay as they are. The integral is a Gauss–Legendre quadrature of `steps` points, doubled
    up to `max_steps` until |F(x) − F(x') − Σ φ| ≤ max(5 % of |F(x) − F(x')|, 1 % of the range) for
    every label; else the status is `not_converged`.

    Attributes:
        steps: Points of the first quadrature.
        max_steps: Most points.
        value_range: Range of the explained value over the data, in its unit; `RANGES` if None.
    """

    name: ClassVar[Method] = "integrated_gradients"

    steps: int = 20
    max_steps: int = 320
    value_range: float | None = None

    def __post_init__(self) -> None:
        GradientMethod.__post_init__(self)
        check_integer(self.name, "steps", self.steps, 1)
        check_integer(self.name, "max_steps", self.max_steps, 1)
        if self.max_steps < self.steps:
            raise ConfigError(
                f"{self.name}: max_steps ({self.max_steps}) is less than steps ({self.steps})"
            )
        wide = self.value_range
        if wide is not None and (
            isinstance(wide, bool) or not isinstance(wide, int | float) or not 0 < wide < 1e9
        ):
            raise ConfigError(f"{self.name}: value_range must be a positive number, not {wide!r}")

    def _steps(self) -> tuple[int, int, int]:
        return self.steps, self.max_steps, 0

    def _range(self, target: Target) -> float:
        return RANGES[target] if self.value_range is None else float(self.value_range)


@dataclass(frozen=True, slots=True)
class GradientXInput(GradientMethod):
    """φ_i = Σ over i's tokens of (x − x')·∇F(x): one step at the text itself.

    Shrikumar et al. 2016. Not additive: `residual` says what is left over.
    """

    name: ClassVar[Method] = "gradient_x_input"

    def _steps(self) -> tuple[int, int, int]:
        return 1, 1, 0


@dataclass(frozen=True, slots=True)
class IgOcclusion(IntegratedGradients):
    """Integrated gradients rank, occlusion measures.

    The features are taken away in the order of |φ| of `integrated_gradients`, in `occlusion_steps`
    parts of nearly equal size, by zero embeddings in their tokens' places; a feature's value is the
    drop of its part divided by the part's size. The values sum to F(x) − F(all at zero). With as
    many parts as features each value is a leave-one-out difference after all that stand before it.
    `diagnostics.curve` has the value after each part.

    Attributes:
        occlusion_steps: Parts; a text of fewer features is taken away one by one.
    """

    name: ClassVar[Method] = "ig_occlusion"

    occlusion_steps: int = 5

    def __post_init__(self) -> None:
        IntegratedGradients.__post_init__(self)
        check_integer(self.name, "occlusion_steps", self.occlusion_steps, 1)

    def _steps(self) -> tuple[int, int, int]:
        return self.steps, self.max_steps, self.occlusion_steps
