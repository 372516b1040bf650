"""All tables of a run: made from its rows, written as Parquet and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.agreement import agreement_table
from analysis.answers import StoredAnswers, with_correlations
from analysis.comparison import comparison_table
from analysis.complexity import complexity_table
from analysis.context import Context
from analysis.cost import cost_table
from analysis.faithfulness import faithfulness_table
from analysis.families import families_table
from analysis.levels import comparisons, levels
from analysis.load import RunTables
from analysis.performance import performance_table, probabilities_table
from analysis.plausibility import plausibility_table
from analysis.shift import attribution_shift_table
from analysis.shift_examples import shift_examples_table, shifts
from engine.config import SweepConfig
from engine.schema import SCHEMA_VERSION


def build_tables(
    run: RunTables,
    config: SweepConfig | None = None,
    hosts: Mapping[str, Mapping[str, Any]] | None = None,
    answers: StoredAnswers | None = None,
) -> dict[str, pl.DataFrame]:
    """Return the tables by name.

    Each ends with the columns of `engine.schema.TIDY`, but for `shift_examples`, which has a row
    an example. Rows and their values depend on the run's rows alone, not on how it was divided or
    on the number of threads; only `answer_correlation` and `control_gain` need the store, and are
    undefined without. A table without anything to measure is empty, with its columns.

    Args:
        run: The committed rows.
        config: The run's configuration, for what is compared with what
            (`analysis.levels.comparisons`).
        hosts: What run.json notes of the hosts, for the costs that are no example's.
        answers: What the store has of the run.
    """
    compared = comparisons(levels(run.predictions), config)
    found = with_correlations(shifts(run, compared), run, answers)
    context = Context.of(run.predictions)
    performance, cost = performance_table(run), cost_table(run, hosts)
    faithfulness = faithfulness_table(run, context)
    return {
        "performance": performance,
        "probabilities": probabilities_table(run),
        "families": families_table(performance, faithfulness, cost),
        "faithfulness": faithfulness,
        "complexity": complexity_table(run, context),
        "agreement": agreement_table(run, context),
        "plausibility": plausibility_table(run, context),
        "cost": cost,
        "comparison": comparison_table(run, compared),
        "attribution_shift": attribution_shift_table(found),
        "shift_examples": shift_examples_table(found),
    }


def write_tables(tables: Mapping[str, pl.DataFrame], run_dir: str | Path) -> list[Path]:
    """Write `tables/<name>.parquet` and `.csv`, the same bytes for the same tables.

    Returns:
        The files, in the order of the tables.
    """
    folder = Path(run_dir) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frame in tables.items():
        parquet, csv = folder / f"{name}.parquet", folder / f"{name}.csv"
        pq.write_table(_to_arrow(frame), parquet, compression="zstd")
        frame.write_csv(csv)
        written += [parquet, csv]
    return written


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    arrow = frame.to_arrow()
    # plain strings are what other readers of Parquet know best
    kinds = [pa.string() if pa.types.is_large_string(f.type) else f.type for f in arrow.schema]
    fields = [pa.field(f.name, kind) for f, kind in zip(arrow.schema, kinds, strict=True)]
    version = {"schema_version": str(SCHEMA_VERSION)}
    return arrow.cast(pa.schema(fields)).replace_schema_metadata(version)
