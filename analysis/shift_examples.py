"""How the attributions of each example differ between two levels: the table `shift_examples`.

Compared is the attribution to one class, that which the reference's row reports, over the same
spans. The coalitions behind both are the same too, for they never depend on the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from analysis.comparison import COMPARISON_COLUMNS, keys_of
from analysis.levels import Comparison, Level
from analysis.load import RunTables
from analysis.tidy import FACTOR_COLUMNS, GAME_COLUMNS, Columns
from engine.metrics.shift import BETWEEN, LEVEL, between, level
from engine.schema import FACTORS, GAME

EXPLAINED_COLUMNS: Columns = {**GAME_COLUMNS, "other_explainer": pl.String}
"""The game, `explainer` being the reference's."""
SIDES = ("reference", "other")
STATISTICS = (*BETWEEN, *(f"{name}_{side}" for name in LEVEL for side in SIDES))
"""Columns of statistics, in order."""
ANSWERS = ("answer_correlation", "control_gain")
"""Columns that `analysis.answers` fills, null without the store."""
EXAMPLE_COLUMNS: Columns = {
    "example": pl.String,
    "group": pl.String,
    "class_name": pl.String,
    "n_features": pl.Int32,
    "same_prediction": pl.Boolean,
    "refused": pl.String,
    **dict.fromkeys((*STATISTICS, *ANSWERS), pl.Float64),
}
REFUSED = {
    "missing": "one side has no explanation",
    "other_features": "the features are not the same",
    "other_class": "the other side has no values for the class",
    "no_features": "there is no feature",
    "not_finite": "a value is not finite",
}
"""Why an example was not compared."""

IntR = npt.NDArray[np.int64]


class Shift(NamedTuple):
    """The examples of one comparison, explainer and game.

    Attributes:
        comparison: What is compared.
        game: Values of `engine.schema.GAME`, of the reference.
        other_explainer: Of the other side.
        frame: Columns `EXAMPLE_COLUMNS`, a row an example, sorted.
    """

    comparison: Comparison
    game: tuple[str, ...]
    other_explainer: str
    frame: pl.DataFrame

    @property
    def keys(self) -> dict[str, Any]:
        """The columns that name it."""
        return {
            **keys_of(self.comparison),
            **dict(zip(GAME, self.game, strict=True)),
            "other_explainer": self.other_explainer,
        }


def shifts(run: RunTables, compared: Sequence[Comparison]) -> list[Shift]:
    """Return the compared examples of each comparison, in the order of comparisons and games.

    Only attributions of one game are compared, and only explainers with themselves unless the
    comparison names two.
    """
    explained = _explained(run.attributions)
    predicted = _predicted(run.predictions)
    made = []
    for comparison in compared:
        one, two = explained.get(comparison.reference, {}), explained.get(comparison.other, {})
        for game, part in one.items():
            first, second = comparison.explainers or (game[0], game[0])
            twin = (second, *game[1:])
            if game[0] != first or twin not in two:
                continue
            labels = predicted[comparison.reference], predicted[comparison.other]
            made.append(Shift(comparison, game, second, _compare(part, two[twin], *labels)))
    return made


def shift_examples_table(found: Sequence[Shift]) -> pl.DataFrame:
    """Return the examples of all comparisons one below the other; not a tidy table.

    Statistics are those of `engine.metrics.shift`, null where undefined; `refused` says why an
    example was not compared, null where it was.
    """
    columns = {**FACTOR_COLUMNS, **COMPARISON_COLUMNS, **EXPLAINED_COLUMNS, **EXAMPLE_COLUMNS}
    empty = pl.DataFrame(schema=columns)
    parts = [
        shift.frame.with_columns(**{k: pl.lit(v) for k, v in shift.keys.items()}).select(
            list(columns)
        )
        for shift in found
    ]
    return pl.concat([empty, *parts])


def _explained(attributions: pl.DataFrame) -> dict[Level, dict[tuple[str, ...], pl.DataFrame]]:
    wanted = attributions.with_columns(features_as=pl.Series(_span_codes(attributions["spans"])))
    wanted = wanted.select(
        *FACTORS,
        *GAME,
        "example",
        "group",
        "class_name",
        "features_as",
        "n_features",
        "values",
        "values_by_label",
    )
    found: dict[Level, dict[tuple[str, ...], pl.DataFrame]] = {}
    by = [*FACTORS, *GAME]
    for key, part in wanted.partition_by(by, as_dict=True, maintain_order=True).items():
        names = [str(name) for name in key]
        found.setdefault(Level(*names[: len(FACTORS)]), {})[tuple(names[len(FACTORS) :])] = part
    return found


def _span_codes(spans: pl.Series) -> IntR:
    """Return a number for each row's spans [R], the same for the same spans."""
    lists = spans.to_arrow()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    ends = np.asarray(lists.offsets)
    fields = lists.values.flatten()
    numbers = [fields[i].cast(pa.int64()) for i in range(3)]
    numbers.append(fields[3].dictionary_encode().indices.cast(pa.int64()))
    packed = np.stack([np.asarray(column.fill_null(-1)) for column in numbers], axis=1)
    codes: dict[bytes, int] = {}
    pairs = pairwise(ends)
    return np.array(
        [codes.setdefault(packed[a:b].tobytes(), len(codes)) for a, b in pairs], dtype=np.int64
    )


def _predicted(predictions: pl.DataFrame) -> dict[Level, pl.DataFrame]:
    parts = predictions.select(
        *FACTORS, "example", "labels", "predicted", "continuation"
    ).partition_by(FACTORS, as_dict=True, maintain_order=True)
    return {Level(*map(str, key)): part.drop(FACTORS) for key, part in parts.items()}


def _compare(
    one: pl.DataFrame, two: pl.DataFrame, said: pl.DataFrame, other_said: pl.DataFrame
) -> pl.DataFrame:
    """Return the rows of the examples that either side explains."""
    both = one.join(two, on="example", how="full", coalesce=True, suffix="_other")
    said = said.join(other_said, on="example", suffix="_other").select(
        "example",
        same_prediction=_said("") == _said("_other"),
        continues=pl.col("continuation_other").is_not_null(),
        names=pl.col("labels_other"),
    )
    both = both.join(said, on="example", how="left").sort("example")
    wanted = _values_of_class(both)
    problem = (
        pl.when(pl.col("values").is_null() | pl.col("values_other").is_null())
        .then(pl.lit("missing"))
        .when(pl.col("features_as") != pl.col("features_as_other"))
        .then(pl.lit("other_features"))
        .when(pl.col("wanted").is_null())
        .then(pl.lit("other_class"))
        .when(pl.col("n_features") == 0)
        .then(pl.lit("no_features"))
        .when(~(_finite("values") & _finite("wanted")))
        .then(pl.lit("not_finite"))
    )
    both = both.with_columns(wanted=wanted).with_columns(refused=problem)
    statistics = _statistics(both.filter(pl.col("refused").is_null()))
    both = both.select(
        "example",
        group=pl.coalesce("group", "group_other"),
        class_name=pl.coalesce("class_name", "class_name_other"),
        n_features=pl.coalesce("n_features", "n_features_other"),
        same_prediction="same_prediction",
        refused="refused",
    ).join(statistics, on="example", how="left", maintain_order="left")
    both = both.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ANSWERS)
    columns = [pl.col(name).cast(kind) for name, kind in EXAMPLE_COLUMNS.items()]
    return both.select(columns)


def _said(side: str) -> pl.Expr:
    return pl.col(f"labels{side}").list.get(pl.col(f"predicted{side}"))


def _values_of_class(both: pl.DataFrame) -> pl.Series:
    """Return the other side's values for the class that the reference reports, null without.

    Rows of `values_by_label` are labels, but those of a continuation are its tokens: there the
    reported values are compared, of one and the same continuation.
    """
    columns = both.select("class_name", "names", "continues").iter_rows()
    places = [
        None if continues is not False or name not in names else names.index(name)
        for name, names, continues in columns
    ]
    same = pl.col("class_name") == pl.col("class_name_other")
    rows = both.with_columns(place=pl.Series(places, dtype=pl.Int64)).select(
        pl.when(same & (~pl.col("continues") | pl.col("same_prediction")))
        .then("values_other")
        .otherwise(pl.col("values_by_label_other").list.get(pl.col("place"), null_on_oob=True))
        .alias("wanted")
    )
    return rows["wanted"]


def _finite(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().is_finite()).list.all()


def _statistics(compared: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `STATISTICS` of examples whose values can be compared."""
    parts = []
    for part in compared.partition_by("n_features", maintain_order=True):
        sides = [_dense(part[name], int(part["n_features"][0])) for name in ("values", "wanted")]
        found = between(*sides)
        for side, values in zip(SIDES, sides, strict=True):
            found |= {f"{name}_{side}": column for name, column in level(values).items()}
        columns = {name: found[name] for name in STATISTICS}
        parts.append(pl.DataFrame({"example": part["example"], **columns}))
    schema = {"example": pl.String, **dict.fromkeys(STATISTICS, pl.Float64)}
    return pl.concat([pl.DataFrame(schema=schema), *parts]).fill_nan(None)


def _dense(lists: pl.Series, n: int) -> npt.NDArray[np.float64]:
    return lists.explode().to_numpy().astype(np.float64).reshape(len(lists), n)
