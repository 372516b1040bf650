"""How concentrated attributions are: the table `complexity`."""

from __future__ import annotations

import polars as pl

from analysis.context import CONTEXT_COLUMNS, Context, mean_row
from analysis.load import RunTables
from analysis.tidy import (
    FACTOR_COLUMNS,
    GAME_COLUMNS,
    Row,
    attribution_values,
    numbers,
    partitions,
    table,
)
from engine.metrics import complexity
from engine.schema import FACTORS, GAME

METRICS = {
    "gini": complexity.gini,
    "entropy": complexity.entropy,
    "effective_size": complexity.effective_size,
    "top_k_mass": complexity.top_k_mass,
}


def complexity_table(run: RunTables, context: Context) -> pl.DataFrame:
    """Return means over examples of Gini, entropy, effective size and top-k mass.

    Examples for which a metric isn't defined (no or one feature, no weight) are left out of it.
    """
    rows: list[Row] = []
    for keys, part in partitions(run.attributions, [*FACTORS, *GAME]):
        examples = part["example"].to_list()
        groups = part["group"].to_list()
        values = attribution_values(part)
        for metric, define in METRICS.items():
            each = numbers([None if v is None else define(v) for v in values])
            rows.append(mean_row(context, keys, metric, each, examples, groups))
    return table(rows, FACTOR_COLUMNS, GAME_COLUMNS, CONTEXT_COLUMNS)
