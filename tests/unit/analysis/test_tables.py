from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from analysis.tables import build_tables, write_tables
from engine.metrics.registry import info
from engine.schema import TIDY
from tests.unit.analysis.frames import Rows, run_of, whole_run

NAMES = [
    "performance",
    "probabilities",
    "families",
    "faithfulness",
    "complexity",
    "agreement",
    "plausibility",
    "cost",
    "comparison",
    "attribution_shift",
    "shift_examples",
]
ONE_AN_EXAMPLE = "shift_examples"
"""The table whose rows are no measures."""
EXPLANATIONS = ["faithfulness", "complexity", "agreement", "plausibility"]


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    return build_tables(run_of(**whole_run()))


def shuffled(tables: dict[str, Rows], seed: int) -> dict[str, Rows]:
    """The same rows in another order and in other units."""
    rng = np.random.default_rng(seed)
    return {
        name: [{**rows[i], "unit": f"u{rng.integers(9)}"} for i in rng.permutation(len(rows))]
        for name, rows in tables.items()
    }


def test_all_tables_are_there_and_tidy(tables: dict[str, pl.DataFrame]) -> None:
    assert list(tables) == NAMES
    for name, frame in tables.items():
        assert not frame.is_empty(), name
        if name == ONE_AN_EXAMPLE:
            continue
        assert frame.columns[-len(TIDY.names) :] == TIDY.names
        keys = [c for c in frame.columns if c not in TIDY.names] + ["metric"]
        assert frame.select(keys).is_unique().all(), name


def test_directions_are_the_registered_ones(tables: dict[str, pl.DataFrame]) -> None:
    for name, frame in tables.items():
        if name == ONE_AN_EXAMPLE:
            continue
        for metric, direction in frame.select("metric", "direction").unique().rows():
            assert info(metric).direction == direction


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explanation_tables_carry_the_accuracy(name: str, tables: dict[str, pl.DataFrame]) -> None:
    frame = tables[name]
    measured = frame.filter(pl.col("n") > 0)
    assert measured["accuracy"].null_count() == 0
    assert measured["majority_rate"].null_count() == 0
    assert {"accuracy_ci_low", "accuracy_ci_high", "verdict"} <= set(frame.columns)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_neither_units_nor_the_order_of_rows_change_a_byte(tmp_path: Path, seed: int) -> None:
    rows = whole_run()
    write_tables(build_tables(run_of(**rows)), tmp_path / "a")
    write_tables(build_tables(run_of(**shuffled(rows, seed))), tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a/tables").iterdir())
    assert len(files) == 2 * len(NAMES)
    for name in files:
        ours, theirs = (tmp_path / side / "tables" / name for side in "ab")
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_adding_a_model_leaves_the_other_rows_alone() -> None:
    rows = whole_run()
    one = {name: [r for r in table if r["model"] == "tiny"] for name, table in rows.items()}
    both, alone = build_tables(run_of(**rows)), build_tables(run_of(**one))
    for name in NAMES:
        if "kind" in both[name].columns:
            continue  # another model is another comparison
        assert both[name].filter(pl.col("model") == "tiny").equals(alone[name]), name


def test_files_hold_the_tables(tmp_path: Path, tables: dict[str, pl.DataFrame]) -> None:
    written = write_tables(tables, tmp_path)
    assert written[0] == tmp_path / "tables/performance.parquet"
    for name, frame in tables.items():
        assert pl.read_parquet(tmp_path / f"tables/{name}.parquet").equals(frame)
        header = (tmp_path / f"tables/{name}.csv").read_text().splitlines()[0]
        assert header.split(",") == frame.columns
    assert b"schema_version" in pq.read_schema(tmp_path / "tables/cost.parquet").metadata


def test_an_empty_run_gives_empty_tables_with_the_same_columns(
    tmp_path: Path, tables: dict[str, pl.DataFrame]
) -> None:
    empty = build_tables(run_of())
    assert list(empty) == NAMES
    for name, frame in empty.items():
        assert frame.is_empty()
        assert frame.schema == tables[name].schema
    write_tables(empty, tmp_path)
    assert pl.read_parquet(tmp_path / "tables/cost.parquet").is_empty()


def test_a_run_without_gold_labels_still_judges_explainers() -> None:
    rows = whole_run()
    for row in rows["predictions"]:
        row["gold"] = None
    made = build_tables(run_of(**rows))
    assert made["performance"].is_empty()
    assert made["faithfulness"]["accuracy"].null_count() == made["faithfulness"].height
    against = made["faithfulness"].filter(
        (pl.col("reference") == "minus_random") & (pl.col("metric") == "sufficiency")
    )
    assert against["verdict"].null_count() == 0
