"""Two models whose answers are linearly related but for noise of a known size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from analysis.answers import StoredAnswers
from analysis.load import RunTables
from analysis.report_comparison import shift_grids
from analysis.tables import build_tables
from engine.answers import coalition_rows, list_column, list_rows
from engine.commits import CommitLog
from engine.config import SweepConfig
from engine.control_variate import unexplained
from engine.results import UnitResult
from engine.store import write_evaluations
from tests.unit.fake_sweep import CountingHost, plan_of, sweep

TEXTS = [
    "never boring , no problem , not good and not bad , and i love and loved it",
    "not good and not bad , i love and loved it , no problem , never boring again",
    "no problem that i love and loved it , never boring , not good and not bad",
]
EXPLAINERS = (
    {"name": "kernel_shap", "num_samples": 300},
    {"name": "kernel_shap", "id": "again", "num_samples": 300, "seed": 1},
    {"name": "lime", "num_samples": 400},
    {"name": "lime", "id": "growing", "num_samples": 900, "relative_error": 0.03},
    "occlusion",
    {"name": "guest:lime", "id": "theirs", "num_samples": 60},
)
DRAWN = {"kernel_shap", "again", "lime", "growing"}
NAMES = {"one": "first", "two": "second"}


def folder_name(model: str) -> str:
    return f"{model}|fp32|none|review"


def answers_of_two(slope: float, offset: float, noise: float) -> tuple[pa.Table, UnitResult]:
    """Return a unit's results, and evaluations of a second model.

    Its log-odds are `slope` times the first one's and `offset`, and normal noise with `noise` times
    the spread of what a linear game leaves of `slope` times the first one's.
    """
    random = np.random.default_rng(7)
    [unit], [pair] = (plan := plan_of(config(["one"]), TEXTS)).units, plan.pairs.values()
    with CountingHost(pair) as host:
        result = host.run(pair, unit)
    assert result.evaluations is not None
    odds = []
    table = result.evaluations
    rows = list_rows(table, "log_probs")
    counts = [len(row) // 2 for row in rows]
    for row, coalitions in zip(rows, coalition_rows(table, counts), strict=True):
        own = row.astype(float).reshape(-1, 2)[:, 1:] - row.astype(float).reshape(-1, 2)[:, :1]
        left = unexplained(coalitions, own).std() if len(coalitions) > 200 else 0.0
        moved = slope * own + offset
        odds.append(moved + noise * abs(slope) * left * random.normal(size=own.shape))
    pairs = [np.column_stack([-np.logaddexp(0, v), -np.logaddexp(0, -v)]) for v in odds]
    column = table.schema.get_field_index("log_probs")
    values = list_column([pair.ravel() for pair in pairs], np.float32)
    return table.set_column(column, table.schema.field(column), values), result


def config(models: list[str]) -> SweepConfig:
    return sweep(*EXPLAINERS, models=[{"name": name, "path": "fake:and_or"} for name in models])


def store(folder: Path, stem: str, result: UnitResult, evaluations: pa.Table | None) -> None:
    """Add evaluations to a store folder."""
    log = CommitLog(folder, exclusive=False)
    log.append(write_evaluations(folder, stem, [UnitResult(stem, 1, result.tables, evaluations)]))
    log.close()


def tables_of(folder: Path, result: UnitResult) -> dict[str, pl.DataFrame]:
    """Return the tables of a run of both, the second model's rows being the first one's."""
    tables = {}
    for name, table in result.tables.items():
        place = table.schema.get_field_index("model")
        twins = pa.array(["two"] * len(table), pa.string())
        twin = table.set_column(place, table.schema.field(place), twins)
        tables[name] = pa.concat_tables([table, twin])
    both = config(["one", "two"])
    names = {folder_name(model): name for model, name in NAMES.items()}
    stored = StoredAnswers(folder, names, both)
    return build_tables(RunTables.from_arrow(tables), both, answers=stored)


def stored_tables(
    folder: Path, slope: float, offset: float, noise: float
) -> dict[str, pl.DataFrame]:
    second, result = answers_of_two(slope, offset, noise)
    store(folder / "first", "w", result, result.evaluations)
    store(folder / "second", "w", result, second)
    return tables_of(folder, result)


@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0])
def test_noise_of_a_known_size_gives_its_correlation(tmp_path: Path, noise: float) -> None:
    tables = stored_tables(tmp_path, -1.5, 0.7, noise)
    shift = tables["attribution_shift"].filter(pl.col("kind") == "model")
    rho = -1 / np.sqrt(1 + noise**2)
    for explainer in ("kernel_shap", "again", "lime"):
        own = shift.filter(pl.col("explainer") == explainer)
        [found] = own.filter(pl.col("metric") == "answer_correlation").to_dicts()
        [gain] = own.filter(pl.col("metric") == "control_gain").to_dicts()
        assert found["quantity"] == gain["quantity"] == "between"
        assert found["n"] == gain["n"] == len(TEXTS)
        assert found["value"] == pytest.approx(rho, abs=0.35 * (1 - rho**2))
        assert gain["value"] == pytest.approx(1 / (1 - found["value"] ** 2))
        assert gain["value"] == pytest.approx(1 + 1 / noise**2, rel=0.35)


def test_without_noise_they_are_told_apart_by_rounding_alone(tmp_path: Path) -> None:
    tables = stored_tables(tmp_path, 2.0, -0.3, 0.0)
    shift = tables["attribution_shift"].filter(pl.col("kind") == "model")
    known = shift.filter(pl.col("metric") == "answer_correlation", pl.col("value").is_not_null())
    assert set(known["explainer"]) == DRAWN
    assert known["value"].to_list() == pytest.approx([1.0] * len(DRAWN), abs=1e-6)
    gain = shift.filter(pl.col("metric") == "control_gain", pl.col("value").is_not_null())
    assert (gain["value"] > 1e5).all()
    [grid] = [grid for grid in shift_grids(tables) if grid.caption.startswith("Models")]
    assert {"Correlation of answers", "Fewer evaluations, times"} <= set(grid.columns)


def test_what_the_store_lacks_is_undefined(tmp_path: Path) -> None:
    _, result = answers_of_two(1.0, 0.0, 0.3)
    store(tmp_path / "first", "w", result, result.evaluations)
    tables = tables_of(tmp_path, result)
    shift = tables["attribution_shift"].filter(pl.col("kind") == "model")
    found = shift.filter(pl.col("metric").is_in(["answer_correlation", "control_gain"]))
    assert len(found) == 2 * len(EXPLAINERS)
    assert found["value"].null_count() == len(found)
    [grid] = [grid for grid in shift_grids(tables) if grid.caption.startswith("Models")]
    assert "Correlation of answers" not in grid.columns


def test_two_seeds_have_no_coalitions_in_common_by_design(tmp_path: Path) -> None:
    tables = stored_tables(tmp_path, 1.0, 0.0, 0.3)
    seeds = tables["attribution_shift"].filter(pl.col("kind") == "explainer_seed")
    found = seeds.filter(pl.col("metric") == "answer_correlation")
    assert len(found) == 2
    assert found["value"].null_count() == 2


def test_what_other_runs_add_to_the_store_changes_nothing(tmp_path: Path) -> None:
    before = stored_tables(tmp_path, 1.0, 0.0, 0.5)["shift_examples"]
    assert before["answer_correlation"].null_count() < len(before)
    plan = plan_of(sweep({"name": "lime", "num_samples": 700, "seed": 9}), TEXTS)
    [pair], [unit] = plan.pairs.values(), plan.units
    with CountingHost(pair) as host:
        more = host.run(pair, unit)
    for name in NAMES.values():
        store(tmp_path / name, "x", more, more.evaluations)
    _, result = answers_of_two(1.0, 0.0, 0.5)
    assert before.equals(tables_of(tmp_path, result)["shift_examples"])
