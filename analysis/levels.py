"""Which levels of a sweep's factors are compared with which, and what each comparison shows.

A level is one combination of the factors. Compared are levels of the same data and prompt that
differ in one factor; the rest follows from the configuration and from which levels have rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any, Literal, NamedTuple

import polars as pl

from engine.adapter_section import BASE
from engine.config import SweepConfig
from engine.schema import FACTORS

Kind = Literal[
    "adapter",
    "precision",
    "precision_and_training",
    "model",
    "training_seed",
    "explainer_seed",
    "replicate",
]
NOISE: tuple[Kind, ...] = ("explainer_seed", "training_seed", "replicate")
"""Kinds that say how far attributions differ where nothing of interest was changed."""

PRECISIONS = ("fp32", "auto", "bf16", "fp16", "int8", "nf4", "fp4")
"""From the finest: the first that a model has is what the others are compared with."""

ANY_SEED = "-seed*"
"""Ends the name of a training whose seeds are averaged."""
_SEEDED = re.compile(r"(?P<family>.+)-seed(?P<seed>\d+)")


class Level(NamedTuple):
    """Values of `engine.schema.FACTORS`."""

    data: str
    model: str
    precision: str
    adapter: str
    prompt: str


class Comparison(NamedTuple):
    """Two levels whose rows of the same example are compared.

    Attributes:
        kind: What they differ in. `adapter`: an adapter against the model itself; `precision`:
            against the finest; `precision_and_training`: the same, but the adapters are two
            trainings, one a precision; `model`: against the first of the configuration. Of the
            kinds of noise `training_seed`: two adapters of one fine-tuning; `explainer_seed`: two
            explainers that are equal but for the seed, at one level; `replicate`: the same model
            once more, with another rounding.
        reference: What the other one is compared with.
        other: The other level; the same one for `explainer_seed`.
        explainers: Of `explainer_seed` the reference's explainer and the other one; else None, and
            every explainer is compared with itself.
    """

    kind: Kind
    reference: Level
    other: Level
    explainers: tuple[str, str] | None = None


def levels(predictions: pl.DataFrame) -> list[Level]:
    """Return the levels that have predictions, sorted."""
    return sorted(Level(*row) for row in predictions.select(FACTORS).unique().iter_rows())


def comparisons(
    found: Sequence[Level],
    config: SweepConfig | None = None,
    adapters: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
) -> list[Comparison]:
    """Return what is compared, in a stable order.

    Args:
        found: The levels that have rows, from `levels`.
        config: Says which model is the first, which are replicates, and which explainers differ in
            the seed alone; without it models go by name, and there is neither of the others.
        adapters: The `digest` of each adapter by model/precision and name, as run.json has it. Of
            adapters that are not in there, those that a training seed names count as trained once a
            precision, others as the same in each.
    """
    order, twins, seeds = _models(found, config), _twins(config), _explainer_twins(config)
    replicas = {(label, precision) for label, precision in twins}
    made: list[Comparison] = []
    for _, group in groupby(sorted(found, key=_setting), _setting):
        every = sorted(group, key=lambda level: _rank(level, order))
        own = [level for level in every if (level.model, level.precision) not in replicas]
        made += _adapters(own)
        made += _precisions(own, adapters or {})
        made += _across_models(own)
        made += _training_seeds(own)
        made += [
            Comparison("explainer_seed", level, level, pair) for level in own for pair in seeds
        ]
        made += _replicates(every, twins)
    return made


def _setting(level: Level) -> tuple[str, str]:
    return level.data, level.prompt


def family_of(adapter: str) -> tuple[str, int] | None:
    """Return the fine-tuning and the training seed that an adapter's name says, if it does."""
    found = _SEEDED.fullmatch(adapter)
    return (found["family"], int(found["seed"])) if found else None


def training_of(comparison: Comparison) -> Comparison | None:
    """Return the comparison of the training that this one is of a seed of, if it is.

    Its adapters are named `NAME-seed*`; it is the same for all seeds. There is none of noise, which
    is what the seeds differ by.
    """
    own = family_of(comparison.other.adapter)
    if own is None or comparison.kind in NOISE:
        return None
    if family_of(comparison.reference.adapter) not in (None, own):
        return None
    name = own[0] + ANY_SEED
    reference, other = comparison.reference, comparison.other._replace(adapter=name)
    if family_of(reference.adapter):
        reference = reference._replace(adapter=name)
    return Comparison(comparison.kind, reference, other)


# ---- what the configuration says


def _models(found: Sequence[Level], config: SweepConfig | None) -> list[str]:
    named = [] if config is None else [model.label for model in config.models]
    return list(dict.fromkeys([*named, *sorted(level.model for level in found)]))


def _twins(config: SweepConfig | None) -> dict[tuple[str, str], str]:
    """Return, for each replicate (label, precision), the model that it repeats."""
    first: dict[str, str] = {}
    twins: dict[tuple[str, str], str] = {}
    entries = [] if config is None else [(m, _plain(m)) for m in config.models]
    for model, plain in sorted(entries, key=lambda entry: entry[1].get("replicate", 0)):
        same = repr({k: plain[k] for k in plain if k not in ("name", "replicate", "adapters")})
        if plain.get("replicate", 0) and same in first:
            twins[model.label, model.precision] = first[same]
        first.setdefault(same, model.label)
    return twins


def _explainer_twins(config: SweepConfig | None) -> list[tuple[str, str]]:
    """Return (reference, other) of explainers that are equal but for the seed."""
    first: dict[str, tuple[str, int]] = {}
    pairs = []
    for explainer in () if config is None else config.explainers:
        plain = _plain(explainer)
        same = repr({k: plain[k] for k in plain if k not in ("id", "seed")})
        seed = config.run.seed if config and explainer.seed is None else explainer.seed or 0
        label, other = first.setdefault(same, (explainer.label, seed))
        if seed != other:
            pairs.append((label, explainer.label))
    return pairs


def _plain(section: Any) -> dict[str, Any]:
    plain = section.model_dump(mode="json", by_alias=True)
    return dict(sorted(plain.items()))


# ---- what is compared within one data set and prompt


def _rank(level: Level, models: Sequence[str]) -> tuple[Any, ...]:
    family, seed = family_of(level.adapter) or (level.adapter, -1)
    return (
        models.index(level.model),
        _fineness(level.precision),
        level.adapter != BASE,
        family,
        seed,
    )


def _fineness(precision: str) -> tuple[int, str]:
    known = precision in PRECISIONS
    return (PRECISIONS.index(precision) if known else len(PRECISIONS), precision)


def _adapters(own: Sequence[Level]) -> Iterator[Comparison]:
    bases = {(level.model, level.precision): level for level in own if level.adapter == BASE}
    for level in own:
        base = bases.get((level.model, level.precision))
        if base is not None and level != base:
            yield Comparison("adapter", base, level)


def _precisions(
    own: Sequence[Level], adapters: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> Iterator[Comparison]:
    def weights(level: Level) -> tuple[str, ...]:
        """What tells the adapters of two levels apart that have one name."""
        known = adapters.get(f"{level.model}/{level.precision}", {}).get(level.adapter)
        if known is not None:
            return ("digest", known["digest"])
        return ("precision", level.precision) if family_of(level.adapter) else ()

    finest: dict[tuple[str, str], Level] = {}
    for level in own:  # sorted by fineness
        reference = finest.setdefault((level.model, level.adapter), level)
        if level != reference:
            same = weights(level) == weights(reference)
            yield Comparison("precision" if same else "precision_and_training", reference, level)


def _across_models(own: Sequence[Level]) -> Iterator[Comparison]:
    by_model = {model: list(group) for model, group in groupby(own, lambda level: level.model)}
    (first, *others) = by_model.values() or [[]]
    for other in others:
        at = {(level.precision, level.adapter): level for level in other}
        pairs = [
            (level, at[level.precision, level.adapter])
            for level in first
            if (level.precision, level.adapter) in at
        ]
        if not pairs:  # no precision in common: the finest of each, without adapters
            bases = [[level for level in each if level.adapter == BASE] for each in (first, other)]
            pairs = [(bases[0][0], bases[1][0])] if all(bases) else []
        for reference, level in pairs:
            yield Comparison("model", reference, level)


def _training_seeds(own: Sequence[Level]) -> Iterator[Comparison]:
    families: dict[tuple[str, str, str], list[Level]] = {}
    for level in own:
        if found := family_of(level.adapter):
            families.setdefault((level.model, level.precision, found[0]), []).append(level)
    for members in families.values():
        for a, b in combinations(members, 2):
            yield Comparison("training_seed", a, b)


def _replicates(every: Sequence[Level], twins: dict[tuple[str, str], str]) -> Iterator[Comparison]:
    known = set(every)
    for level in every:
        twin = twins.get((level.model, level.precision))
        if twin is not None and (reference := level._replace(model=twin)) in known:
            yield Comparison("replicate", reference, level)
