"""What explanations cost, shared and unshared: the table `cost`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analysis.bootstrap import Estimate, FloatN, IntN, group_codes, mean, ratio
from analysis.load import RunTables
from analysis.tidy import (
    FACTOR_COLUMNS,
    Columns,
    Row,
    factor_key,
    measure,
    partitions,
    table,
)
from engine.schema import FACTORS

CONSUMER_COLUMNS: Columns = {"explainer": pl.String}
"""`explainer`: who caused the cost: an explainer's id, `metrics:ID` for the metrics of its
explanations, `prediction`, `generation` of a continuation, or `all` of them together; `swaps` are
the hosts' switches of adapters, `weights` what a host keeps in memory."""
WEIGHTS = "weight_bytes"
"""Metric of the model and precision, not of a pair."""

MEASURES = {
    "marginal_seconds": "host_seconds",
    "standalone_seconds": "standalone_seconds",
    "step_seconds": "step_seconds",
    "evaluations_asked": "evaluations_asked",
    "evaluations_first": "evaluations_first",
    "evaluations_stored": "evaluations_stored",
    "evaluations_new": "evaluations_new",
    "tokens_asked": "tokens_asked",
    "tokens_new": "tokens_new",
}
"""Metric -> column of `timings`."""


def cost_table(
    run: RunTables, hosts: Mapping[str, Mapping[str, Any]] | None = None
) -> pl.DataFrame:
    """Return means over examples, totals, and the share of evaluations that were not computed anew.

    `marginal_seconds` is a consumer's share of the host's time, `standalone_seconds` what it had
    taken alone; both without `step_seconds`. `sharing_rate` is 1 − evaluations_new /
    evaluations_asked: what others had used already
    (`shared_across_explainers`), the store had (`shared_across_runs`), or had the prompt of
    another one of its round (`shared_in_round`). In rows of `all`
    the measures of an example are added up.

    Args:
        run: The run.
        hosts: What run.json notes of the hosts, by model and precision: the memory of the weights
            and the switches of adapters are theirs, and no pair's.
    """
    by_example = [*FACTORS, "example"]
    groups = run.predictions.select(*by_example, "group").unique(by_example, keep="any")
    timings = run.timings.join(groups, on=by_example, how="left")
    rows: list[Row] = []
    for keys, part in partitions(timings, FACTORS):
        for found, one in partitions(part, ["consumer"]):
            own = {**keys, "explainer": found["consumer"]}
            columns = _columns(one, range(one.height))
            rows += [{**own, **row} for row in _rows(one, columns, factor_key(keys))]
        starts = np.flatnonzero(part["example"].ne_missing(part["example"].shift(1)).to_numpy())
        heads, columns = part[starts], _columns(part, starts)
        both = {**keys, "explainer": "all"}
        rows += [{**both, **row} for row in _rows(heads, columns, factor_key(keys))]
    for name, noted in (hosts or {}).items():
        rows += [*_swaps(name, noted), *_weights(name, noted)]
    return table(rows, FACTOR_COLUMNS, CONSUMER_COLUMNS)


def _columns(part: pl.DataFrame, starts: Sequence[int] | IntN) -> dict[str, FloatN]:
    """Return the sum of each measure over the rows from one start to the next [len(starts)]."""
    return {
        metric: np.add.reduceat(part[column].to_numpy().astype(np.float64), starts)
        for metric, column in MEASURES.items()
    }


def _rows(part: pl.DataFrame, columns: dict[str, FloatN], key: tuple[str, ...]) -> Iterator[Row]:
    codes = group_codes(part["example"].to_list(), part["group"].to_list())
    for metric, values in columns.items():
        yield measure(metric, mean(values, codes, key))
    for metric, values in columns.items():
        # a unit that found everything in the store has no rate, and so no total has
        total = float(values.sum()) if np.isfinite(values).all() else None
        yield measure(f"total_{metric}", Estimate(total, len(values)))
    new, asked = columns["evaluations_new"], columns["evaluations_asked"]
    first, stored = columns["evaluations_first"], columns["evaluations_stored"]
    for name, hits in (
        ("sharing_rate", asked - new),
        ("shared_across_explainers", asked - first),
        ("shared_across_runs", stored),
        ("shared_in_round", first - stored - new),
    ):
        yield measure(name, ratio(hits, asked, codes, key))


def _swaps(name: str, noted: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what a model's hosts spent on switching adapters, their first loading included."""
    swaps, seconds = int(noted.get("swaps", 0)), float(noted.get("swap_seconds", 0.0))
    if not swaps:
        return
    model, precision = name.rsplit("/", 1)
    keys = {"model": model, "precision": precision, "explainer": "swaps"}
    yield keys | measure("swap_seconds", Estimate(seconds / swaps, swaps))
    yield keys | measure("total_swap_seconds", Estimate(seconds, swaps))
    yield keys | measure("total_swaps", Estimate(float(swaps), swaps))


def _weights(name: str, noted: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the bytes of a model's weights on one host; a host without weights has no such row."""
    if size := int(noted.get("memory_bytes") or 0):
        model, precision = name.rsplit("/", 1)
        keys = {"model": model, "precision": precision, "explainer": "weights"}
        yield keys | measure(WEIGHTS, Estimate(float(size), int(noted.get("hosts", 1))))
