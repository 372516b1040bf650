"""How far explainers of the same game agree: the table `agreement`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import polars as pl

from analysis.bootstrap import FloatN
from analysis.context import CONTEXT_COLUMNS, Context, mean_row
from analysis.load import RunTables
from analysis.tidy import (
    FACTOR_COLUMNS,
    Columns,
    Row,
    attribution_values,
    numbers,
    partitions,
    table,
)
from engine.metrics import agreement
from engine.schema import FACTORS, GAME

METRICS = {
    "top_k_overlap": agreement.top_k_overlap,
    "spearman": agreement.spearman,
    "cosine": agreement.cosine,
}

_GAME = [name for name in GAME if name != "explainer"]
PAIR_COLUMNS: Columns = dict.fromkeys([*_GAME, "explainer_a", "explainer_b"], pl.String)


class _Explained(NamedTuple):
    spans: Any
    group: str | None
    values: FloatN


def agreement_table(run: RunTables, context: Context) -> pl.DataFrame:
    """Return means over examples of top-k overlap, Spearman and cosine of each pair of explainers.

    Only attributions of one game are compared: the same factors, features, operator, target and
    class rule and, example by example, the same explained label and the same spans.
    `explainer_a` comes before `explainer_b` in the alphabet.
    """
    rows: list[Row] = []
    for keys, part in partitions(run.attributions, [*FACTORS, *_GAME]):
        explained = {
            found["explainer"]: _by_example(one) for found, one in partitions(part, ["explainer"])
        }
        for a, b in combinations(explained, 2):
            pair = {**keys, "explainer_a": a, "explainer_b": b}
            rows += _compare(pair, explained[a], explained[b], context)
    return table(rows, FACTOR_COLUMNS, PAIR_COLUMNS, CONTEXT_COLUMNS)


def _by_example(part: pl.DataFrame) -> dict[tuple[str, str], _Explained]:
    columns = part.select("example", "class_name", "spans", "group").iter_rows()
    return {
        (example, label): _Explained(spans, group, values)
        for (example, label, spans, group), values in zip(
            columns, attribution_values(part), strict=True
        )
        if values is not None
    }


def _compare(
    pair: Row,
    a: dict[tuple[str, str], _Explained],
    b: dict[tuple[str, str], _Explained],
    context: Context,
) -> Iterator[Row]:
    common = [key for key in a if key in b and a[key].spans == b[key].spans]
    if not common:
        return
    examples = [example for example, _ in common]
    groups = [a[key].group for key in common]
    for metric, define in METRICS.items():
        each = numbers([define(a[key].values, b[key].values) for key in common])
        yield mean_row(context, pair, metric, each, examples, groups)
