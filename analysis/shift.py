"""How far attributions move between levels, and beyond noise: the table `attribution_shift`.

The noise is measured in the same run, on the same examples, by the comparisons of `levels.NOISE`,
and taken away example by example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from analysis.bootstrap import (
    Estimate,
    FloatBM,
    FloatBN,
    FloatN,
    IntN,
    estimates,
    group_codes,
    mean,
    median,
)
from analysis.comparison import COMPARISON_COLUMNS
from analysis.context import MIN_GROUPS, TOO_FEW
from analysis.levels import NOISE, Comparison, Kind, family_of
from analysis.shift_examples import ANSWERS, EXPLAINED_COLUMNS, SIDES, Shift
from analysis.tidy import FACTOR_COLUMNS, Columns, Row, measure, table
from engine.metrics.paired import EFFECT_SIZES, effect_sizes
from engine.metrics.shift import BETWEEN, LEVEL

SHIFT_COLUMNS: Columns = {
    "quantity": pl.String,
    "n_undefined": pl.Int64,
    "n_refused": pl.Int64,
    "verdict": pl.String,
}
"""`quantity`: `between` both sides; `reference`, `other` and `difference` (other − reference); the
effect sizes of that, `d_z`, `g_av`, `cohens_d`; `minus_<kind>`: the paired difference to noise."""

LESS_ALIKE = ("sign_flips", "sign_flip_ratio")
"""Statistics of which more means less alike; of those below less does."""
ALIKE = tuple(
    name for name in BETWEEN if name not in (*LESS_ALIKE, "abs_cosine_null", "mass_ratio")
)
BEYOND = "more than noise"
BELOW = "less than noise"
WITHIN = "not distinguishable from noise"


def attribution_shift_table(found: Sequence[Shift]) -> pl.DataFrame:
    """Return means over examples of the statistics of `engine.metrics.shift`, with intervals.

    `n` examples have a defined value; `n_undefined` were compared without one; `n_refused` could
    not be compared. `mass_ratio` is a geometric mean, `answer_correlation` and `control_gain` are
    medians. Rows `minus_explainer_seed`,
    `minus_training_seed` and `minus_replicate` are mean differences to the noise of that kind on
    the same examples, below 0 where the levels are less alike than noise makes them (above 0 for
    sign flips), with a `verdict`.
    """
    noise = _Noise(found)
    rows: list[Row] = []
    for shift in found:
        for row in _rows(shift, noise):
            rows.append({**shift.keys, **row})
    return table(rows, FACTOR_COLUMNS, COMPARISON_COLUMNS, EXPLAINED_COLUMNS, SHIFT_COLUMNS)


def _rows(shift: Shift, noise: _Noise) -> Iterator[Row]:
    compared = shift.frame.filter(pl.col("refused").is_null())
    refused = shift.frame.height - compared.height
    codes = group_codes(compared["example"].to_list(), compared["group"].to_list())
    key = shift.comparison.reference

    def row(metric: str, quantity: str, estimate: Estimate, verdict: str | None = None) -> Row:
        missing = compared.height - estimate.n
        return {
            "quantity": quantity,
            "n_undefined": missing,
            "n_refused": refused,
            "verdict": verdict,
            **measure(metric, estimate),
        }

    references = {} if shift.comparison.kind in NOISE else noise.of(shift, compared)
    for metric in BETWEEN:
        values = _numbers(compared, metric)
        if metric == "mass_ratio":
            yield row(metric, "between", _geometric(values, codes, key))
            continue
        yield row(metric, "between", mean(values, codes, key))
        for kind, frame in references.items():
            if metric in (*ALIKE, *LESS_ALIKE):
                over = mean(values - _numbers(frame, metric), codes, key)
                yield row(metric, f"minus_{kind}", over, _verdict(metric, over))
    for metric in ANSWERS:
        yield row(metric, "between", median(_numbers(compared, metric), codes, key))
    for metric in LEVEL:
        a, b = (_numbers(compared, f"{metric}_{side}") for side in SIDES)
        for quantity, estimate in _paired(a, b, codes, key):
            yield row(metric, quantity, estimate)


def _numbers(frame: pl.DataFrame, column: str) -> FloatN:
    return frame[column].fill_null(np.nan).to_numpy().astype(np.float64)


def _geometric(values_N: FloatN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    logs = mean(np.log(values_N), codes_N, key)

    def back(value: float | None) -> float | None:
        return None if value is None else float(np.exp(value))

    return logs._replace(
        value=back(logs.value), ci_low=back(logs.ci_low), ci_high=back(logs.ci_high)
    )


def _paired(
    a_N: FloatN, b_N: FloatN, codes_N: IntN, key: Sequence[str]
) -> Iterator[tuple[str, Estimate]]:
    """Yield means and effect sizes of the examples on which both sides are defined."""
    keep = ~np.isnan(a_N + b_N)
    a, b = a_N[keep], b_N[keep]

    def statistic(weights: FloatBN) -> FloatBM:
        n = weights.sum(axis=1)
        means = [(weights * x).sum(axis=1) / n for x in (a, b, b - a)]
        return np.concatenate([np.stack(means, axis=1), effect_sizes(a, b, weights)], axis=1)

    names = ("reference", "other", "difference", *EFFECT_SIZES)
    if not len(a):
        yield from ((name, Estimate(None, 0)) for name in names)
        return
    yield from zip(names, estimates(statistic, codes_N[keep], key), strict=True)


def _verdict(metric: str, over: Estimate) -> str | None:
    if over.value is None:
        return None
    if over.groups < MIN_GROUPS or over.ci_low is None or over.ci_high is None:
        return TOO_FEW
    if over.ci_low <= 0 <= over.ci_high:
        return WITHIN
    return BEYOND if (over.ci_low > 0) == (metric in LESS_ALIKE) else BELOW


class _Noise:
    """The comparisons that only noise tells apart, by what they are a reference for."""

    def __init__(self, found: Sequence[Shift]) -> None:
        self._of: dict[Kind, list[Shift]] = {kind: [] for kind in NOISE}
        for shift in found:
            if shift.comparison.kind in NOISE:
                self._of[shift.comparison.kind].append(shift)

    def of(self, shift: Shift, compared: pl.DataFrame) -> dict[Kind, pl.DataFrame]:
        """Return by kind the mean noise of each example of `compared`, null where there is none."""
        references = {}
        for kind, every in self._of.items():
            fitting = [noise.frame for noise in every if _is_noise_of(noise, shift)]
            if fitting:
                pooled = (
                    pl.concat(fitting)
                    .filter(pl.col("refused").is_null())
                    .group_by("example")
                    .agg(pl.col(name).sort().mean() for name in (*ALIKE, *LESS_ALIKE))
                )
                references[kind] = compared.select("example").join(
                    pooled, on="example", how="left", maintain_order="left"
                )
        return references


def _is_noise_of(noise: Shift, shift: Shift) -> bool:
    """Whether a comparison says how far the two sides of `shift` would differ anyway."""
    if noise.game[1:] != shift.game[1:]:
        return False
    explainers = {shift.game[0], shift.other_explainer}
    if noise.comparison.kind == "explainer_seed":
        same = noise.comparison.reference in (shift.comparison.reference, shift.comparison.other)
        return same and bool(explainers & {noise.game[0], noise.other_explainer})
    if noise.game[0] not in explainers:
        return False
    if noise.comparison.kind == "replicate":
        return noise.comparison.reference == shift.comparison.reference
    return _same_training(noise.comparison, shift.comparison)


def _same_training(noise: Comparison, shift: Comparison) -> bool:
    if shift.kind != "adapter" or noise.reference[:3] != shift.other[:3]:
        return False
    family, own = family_of(noise.reference.adapter), family_of(shift.other.adapter)
    return (
        noise.reference.prompt == shift.other.prompt
        and family is not None
        and own is not None
        and family[0] == own[0]
        and shift.other in (noise.reference, noise.other)
    )
