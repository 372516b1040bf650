"""The headline of every model, precision and adapter in one place: the table `families`."""

from __future__ import annotations

import polars as pl

from analysis.cost import WEIGHTS
from analysis.tidy import FACTOR_COLUMNS, GAME_COLUMNS, TIDY_COLUMNS, Columns

JUDGED_COLUMNS: Columns = {
    "reference": pl.String,
    "majority_rate": pl.Float64,
    "verdict": pl.String,
}
"""`reference`: `none` or `minus_random`, as in the table `faithfulness`. `majority_rate`: of the
examples of the row. `verdict`: only where the row is a difference to a random order."""

PREDICTS = (("accuracy", None), ("f1", "macro"), ("mcc", None))
"""Metrics of the predictions with their class."""
EXPLAINS = ("comprehensiveness", "sufficiency")
"""Metrics of the explanations, each minus its value under a random order."""
PRICE = "standalone_seconds"


def families_table(
    performance: pl.DataFrame, faithfulness: pl.DataFrame, cost: pl.DataFrame
) -> pl.DataFrame:
    """Return what one looks at first when models are compared, a measure a row.

    How well each model predicts (accuracy, macro F1, MCC), how much more its explanations matter to
    it than a random order of words (`comprehensiveness` and `sufficiency` minus random, paired),
    what an explanation costs that shares nothing, and the memory that the weights take. Nothing is
    computed anew: the rows are those of the other tables (the memory's once for each level that is
    served by the same weights), and columns that a table hasn't are null.

    Args:
        performance: Table `performance`.
        faithfulness: Table `faithfulness`.
        cost: Table `cost`.
    """
    predicts = [
        performance.filter(
            (pl.col("metric") == metric) & pl.col("class").eq_missing(pl.lit(of, pl.String))
        )
        for metric, of in PREDICTS
    ]
    rates = performance.filter(pl.col("metric") == "majority_rate")
    explains = faithfulness.filter(
        pl.col("metric").is_in(EXPLAINS)
        & (pl.col("reference") == "minus_random")
        & pl.col("n_removed").is_null()
    )
    explainers = faithfulness["explainer"].unique()
    prices = cost.filter(
        (pl.col("metric") == PRICE) & pl.col("explainer").is_in(explainers.implode())
    )
    joined = pl.concat(predicts).join(
        rates.select(*FACTOR_COLUMNS, majority_rate="value"),
        on=list(FACTOR_COLUMNS),
        how="left",
        nulls_equal=True,
        maintain_order="left",
    )
    found = pl.concat([joined, explains, prices], how="diagonal")
    weights = cost.filter(pl.col("metric") == WEIGHTS).select("model", "precision", *TIDY_COLUMNS)
    served = found.select(list(FACTOR_COLUMNS)).unique(maintain_order=True)
    sizes = served.join(weights, on=["model", "precision"], how="inner", maintain_order="left")
    found = pl.concat([found, sizes], how="diagonal")
    missing = {**GAME_COLUMNS, **JUDGED_COLUMNS}
    found = found.with_columns(
        pl.lit(None, kind).alias(name)
        for name, kind in missing.items()
        if name not in found.columns
    ).with_columns(pl.col("reference").fill_null("none"))
    columns = [*FACTOR_COLUMNS, *GAME_COLUMNS, *JUDGED_COLUMNS, *TIDY_COLUMNS]
    return found.select(columns).sort(list(FACTOR_COLUMNS), maintain_order=True)
