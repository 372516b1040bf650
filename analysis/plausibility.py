"""Whether attributions point at the marked evidence: the table `plausibility`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from analysis.context import CONTEXT_COLUMNS, Context, mean_row
from analysis.load import RunTables
from analysis.tidy import (
    FACTOR_COLUMNS,
    GAME_COLUMNS,
    Columns,
    Row,
    attribution_values,
    numbers,
    partitions,
    table,
)
from engine.metrics import plausibility
from engine.schema import FACTORS, GAME
from engine.types import Span

METRICS = {
    "iou": plausibility.iou,
    "token_f1": plausibility.token_f1,
    "auprc": plausibility.auprc,
}
KIND_COLUMNS: Columns = {"rationale_kind": pl.String}

_BY_EXAMPLE = [*FACTORS, "example"]


def plausibility_table(run: RunTables, context: Context) -> pl.DataFrame:
    """Return means over examples of IoU, token F1 and AUPRC against each kind of rationale.

    A row compares attributions to the explained label, whichever that is, with the evidence of the
    gold label: where they differ, a faithful explanation may well point elsewhere. Examples without
    a rationale, or whose rationale holds no feature or all of them, are left out.
    """
    marked = run.predictions.filter(pl.col("rationale").is_not_null()).select(
        *_BY_EXAMPLE, "rationale", "rationale_kind"
    )
    joined = run.attributions.join(marked, on=_BY_EXAMPLE, how="inner")
    rows: list[Row] = []
    for keys, part in partitions(joined, [*FACTORS, *GAME, "rationale_kind"]):
        examples = part["example"].to_list()
        groups = part["group"].to_list()
        values = attribution_values(part)
        masks = [
            _mask(spans, evidence, n)
            for spans, evidence, n in part.select("spans", "rationale", "n_features").iter_rows()
        ]
        for metric, define in METRICS.items():
            each = numbers(
                [None if v is None else define(v, m) for v, m in zip(values, masks, strict=True)]
            )
            rows.append(mean_row(context, keys, metric, each, examples, groups))
    return table(rows, FACTOR_COLUMNS, GAME_COLUMNS, KIND_COLUMNS, CONTEXT_COLUMNS)


def _mask(
    spans: Sequence[Mapping[str, Any]], evidence: Sequence[Mapping[str, Any]], n_features: int
) -> plausibility.BoolF:
    features: list[list[Span]] = [[] for _ in range(n_features)]
    for span in spans:
        features[span["feature"]].append(_span(span))
    return plausibility.rationale_mask(features, [_span(span) for span in evidence])


def _span(span: Mapping[str, Any]) -> Span:
    return Span(span["start"], span["end"], span["field"])
