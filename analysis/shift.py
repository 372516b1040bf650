"""How far attributions move between levels, and beyond noise: the table `attribution_shift`.

The noise is measured in the same run, on the same examples and classes, by the comparisons of
`levels.NOISE`, and taken away example by example.
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
    FloatSN,
    IntN,
    Statistic,
    group_codes,
    mean,
    mean_over_seeds,
    median,
    of_some,
)
from analysis.comparison import COMPARISON_COLUMNS, SEEDS
from analysis.context import MIN_GROUPS, TOO_FEW
from analysis.levels import NOISE, Comparison, Kind, Level, training_of
from analysis.shift_examples import ANSWERS, EXPLAINED_COLUMNS, SIDES, Shift
from analysis.tidy import FACTOR_COLUMNS, Columns, Row, measure, table
from engine.metrics.paired import EFFECT_SIZES, effect_sizes
from engine.metrics.shift import BETWEEN, LEVEL

SHIFT_COLUMNS: Columns = {
    **SEEDS,
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
    medians. Rows `minus_explainer_seed`, `minus_training_seed` and `minus_replicate` are mean
    differences to the noise of that kind on the same examples and for the same classes, below 0
    where the levels are less alike than noise makes them (above 0 for sign flips), with a
    `verdict`.

    Shifts that differ in the seed of a training alone follow once more as one, averaged over seeds
    and examples. Then `n` are the examples that have a value under any seed, and intervals and
    verdicts are of new examples and new seeds (`mean_over_seeds`).
    """
    noise = _Noise(found)
    trainings: dict[tuple[Comparison, tuple[str, ...], str], list[Shift]] = {}
    for shift in found:
        if training := training_of(shift.comparison):
            key = training, shift.game, shift.other_explainer
            trainings.setdefault(key, []).append(shift)
    several = {key: seeds for key, seeds in trainings.items() if len(seeds) > 1}
    rows: list[Row] = []
    for seeds in (*([shift] for shift in found), *several.values()):
        rows += _rows(seeds, noise)
    return table(rows, FACTOR_COLUMNS, COMPARISON_COLUMNS, EXPLAINED_COLUMNS, SHIFT_COLUMNS)


def _rows(seeds: Sequence[Shift], noise: _Noise) -> Iterator[Row]:
    """Yield the rows of a comparison, or of those of a training's seeds, averaged."""
    shift = seeds[0]
    if len(seeds) > 1 and (training := training_of(shift.comparison)):
        shift = shift._replace(comparison=training)
    key = shift.comparison.reference
    every = pl.concat([each.frame.select("example", "group", "refused") for each in seeds])
    examples = every.filter(pl.col("refused").is_null()).unique("example").sort("example")
    codes = group_codes(examples["example"].to_list(), examples["group"].to_list())
    refused = every["example"].n_unique() - examples.height
    compared = [
        examples.select("example").join(
            each.frame.filter(pl.col("refused").is_null()),
            on="example",
            how="left",
            maintain_order="left",
        )
        for each in seeds
    ]

    def row(metric: str, quantity: str, estimate: Estimate, verdict: str | None = None) -> Row:
        return {
            **shift.keys,
            "n_seeds": len(seeds),
            "quantity": quantity,
            "n_undefined": examples.height - estimate.n,
            "n_refused": refused,
            "verdict": verdict,
            **measure(metric, estimate),
        }

    judged = shift.comparison.kind not in NOISE
    references = [noise.of(*each) if judged else {} for each in zip(seeds, compared, strict=True)]
    kinds = [kind for kind in NOISE if all(kind in found for found in references)]
    for metric in BETWEEN:
        values = _numbers(compared, metric)
        if metric == "mass_ratio":
            yield row(metric, "between", _geometric(values, codes, key))
            continue
        yield row(metric, "between", mean(values, codes, key))
        for kind in kinds if metric in (*ALIKE, *LESS_ALIKE) else ():
            by_noise = _numbers([found[kind] for found in references], metric)
            over = mean(values - by_noise, codes, key)
            yield row(metric, f"minus_{kind}", over, _verdict(metric, over))
    for metric in ANSWERS:
        yield row(metric, "between", median(_numbers(compared, metric), codes, key))
    for metric in LEVEL:
        a, b = (_numbers(compared, f"{metric}_{side}") for side in SIDES)
        for quantity, estimate in _paired(a, b, codes, key):
            yield row(metric, quantity, estimate)


def _numbers(frames: Sequence[pl.DataFrame], column: str) -> FloatSN:
    columns = [frame[column].fill_null(np.nan).to_numpy().astype(np.float64) for frame in frames]
    return np.stack(columns)


def _geometric(values_SN: FloatSN, codes_N: IntN, key: Sequence[str]) -> Estimate:
    logs = mean(np.log(values_SN), codes_N, key)

    def back(value: float | None) -> float | None:
        return None if value is None else float(np.exp(value))

    return logs._replace(
        value=back(logs.value), ci_low=back(logs.ci_low), ci_high=back(logs.ci_high)
    )


def _paired(
    a_SN: FloatSN, b_SN: FloatSN, codes_N: IntN, key: Sequence[str]
) -> Iterator[tuple[str, Estimate]]:
    """Yield means and effect sizes of the examples on which both sides are defined."""

    def of(a: FloatN, b: FloatN) -> Statistic:
        def statistic(weights: FloatBN) -> FloatBM:
            n = weights.sum(axis=1)
            means = [(weights * x).sum(axis=1) / n for x in (a, b, b - a)]
            return np.concatenate([np.stack(means, axis=1), effect_sizes(a, b, weights)], axis=1)

        return statistic

    defined = ~np.isnan(a_SN + b_SN)
    keep = defined.any(axis=0)
    names = ("reference", "other", "difference", *EFFECT_SIZES)
    if not keep.any():
        yield from ((name, Estimate(None, 0)) for name in names)
        return
    statistics = [
        of_some(own[keep], of(a[own], b[own]))
        for a, b, own in zip(a_SN, b_SN, defined, strict=True)
        if own.any()
    ]
    yield from zip(names, mean_over_seeds(statistics, codes_N[keep], key), strict=True)


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
        self._at: dict[tuple[int, Level, tuple[str, ...]], pl.DataFrame] = {}
        for shift in found:
            if shift.comparison.kind in NOISE:
                self._of[shift.comparison.kind].append(shift)

    def of(self, shift: Shift, compared: pl.DataFrame) -> dict[Kind, pl.DataFrame]:
        """Return by kind the mean noise of each example of `compared`, null where there is none."""
        references = {}
        for kind, every in self._of.items():
            fitting = [self._frame(noise, shift) for noise in every if _is_noise_of(noise, shift)]
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

    def _frame(self, noise: Shift, shift: Shift) -> pl.DataFrame:
        """Return a comparison of noise at the classes of `shift`.

        The sides of the noise may predict others, and how far two explanations of one class lie
        apart says nothing of another class.
        """
        reference = shift.comparison.reference
        if (noise.comparison.reference, noise.game) == (reference, shift.game):
            return noise.frame  # its classes are these
        key = id(noise), reference, shift.game
        if key not in self._at:
            self._at[key] = noise.sides.compare(shift.sides.classes)
        return self._at[key]


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
    """Whether two seeds of a training that `shift` compares differ in `noise`."""
    sides = {"adapter": (shift.other,), "precision_and_training": (shift.reference, shift.other)}
    return any(side in (noise.reference, noise.other) for side in sides.get(shift.kind, ()))
