from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analysis.cost import cost_table
from analysis.report_comparison import MOST_LINES, comparison_grids, shift_grids
from analysis.report_parts import Cell, Grid
from analysis.report_tables import build_sections
from analysis.tables import build_tables
from tests.unit.analysis.comparison_tables import N, study
from tests.unit.analysis.frames import prediction, run_of


def by_caption(grids: list[Grid]) -> dict[str, Grid]:
    return {grid.caption: grid for grid in grids}


def cells(grid: Grid, *head: str) -> dict[str, Cell]:
    (found,) = [line for keys, line in grid.rows if tuple(keys) == head]
    return dict(zip(grid.columns, found, strict=True))


def test_a_table_for_each_kind_of_comparison() -> None:
    tables = study("lime", "lime.1", "occlusion")
    assert list(by_caption(comparison_grids(tables))) == [
        "Adapters against the model itself",
        "Precisions against fp32",
        "Training noise: adapters that differ in the seed of their training",
    ]
    shift = by_caption(shift_grids(tables))
    assert len(shift) == 4
    noise = shift["Estimator noise: explainers that differ in their seed, on one model"]
    assert {head[0] for head, _ in noise.rows} == {"lime → lime.1"}


def test_how_both_predict() -> None:
    grid = by_caption(comparison_grids(study("lime")))["Adapters against the model itself"]
    assert grid.keys == ["adapter"]
    line = cells(grid, "sst-seed0")
    assert line["Accuracy, reference"].text == "0.500"
    assert line["Accuracy, difference"].text == "+0.500"
    assert line["Right alone, reference / other"] == Cell("0 / 6")
    assert line["McNemar mid-p"].text == "0.016"
    assert line["Examples"].text == str(N)


def test_seeds_of_a_training_have_a_line_together() -> None:
    tables = study("lime", "lime.1")
    grid = by_caption(comparison_grids(tables))["Adapters against the model itself"]
    heads = [head for head, _ in grid.rows]
    assert heads == [["sst-seed0"], ["sst-seed1"], ["sst, mean of 2 seeds"]]
    line = cells(grid, "sst, mean of 2 seeds")
    assert line["Accuracy, difference"].text == "+0.500"
    assert line["McNemar mid-p"] == line["Right alone, reference / other"] == Cell("–")
    shift = by_caption(shift_grids(tables))["Adapters against the model itself"]
    moved = cells(shift, "sst, mean of 2 seeds", "lime")
    assert moved["Accuracy, difference"].text == "+0.500"
    assert moved["Against training noise"].text == "moved more"


def test_a_shift_is_judged_beside_the_accuracy() -> None:
    grids = by_caption(shift_grids(study("lime", "lime.1", "occlusion")))
    grid = grids["Adapters against the model itself"]
    lime = cells(grid, "sst-seed0", "lime")
    assert lime["Against estimator noise"].text == "moved more"
    assert lime["Against training noise"].text == "moved more"
    assert lime["Against estimator noise"].interval.startswith("−")
    assert lime["Accuracy, difference"].text == "+0.500"
    assert "Top-5 overlap" in lime
    assert "Top-10 overlap" not in lime  # of seven words
    # occlusion has no seed, so no estimator noise; a twin is no explainer of its own
    assert cells(grid, "sst-seed0", "occlusion")["Against estimator noise"] == Cell("–")
    assert {head[1] for head, _ in grid.rows} == {"lime", "occlusion"}
    drift = cells(grids["Precisions against fp32"], "nf4", "lime")
    assert drift["Accuracy, difference"].text == "0.000"
    assert "Against training noise" not in drift


def test_precisions_of_trainings_have_a_table_of_their_own() -> None:
    """The adapter of one name was trained once in each precision, as run.json says."""
    factors = [{"precision": p, "adapter": a} for p in ("fp32", "nf4") for a in ("none", "a-seed0")]
    rows = [prediction(f"e{i}", [0.2, 0.8], 1, **f) for i in range(N) for f in factors]
    for digests, own in (("xx", 0), ("xy", 1)):
        adapters = {
            f"tiny/{p}": {"a-seed0": {"digest": d, "path": ""}}
            for p, d in zip(("fp32", "nf4"), digests, strict=True)
        }
        tables = build_tables(run_of(predictions=rows), adapters=adapters)
        grids = by_caption(comparison_grids(tables))
        assert len(grids["Precisions against fp32"].rows) == 2 - own
        trained = "Precisions and trainings (an adapter trained in each) against fp32"
        assert (trained in grids) is bool(own)


def test_precisions_stand_beside_the_memory_they_take() -> None:
    tables = dict(study("lime"))
    hosts = {"tiny/fp32": {"memory_bytes": 538_100_000}, "tiny/nf4": {"memory_bytes": 134e6}}
    tables["cost"] = cost_table(run_of(), hosts)
    taken = Cell("134.0 MB", "reference 538.1 MB")
    for grids in (comparison_grids(tables), shift_grids(tables)):
        named = by_caption(grids)
        head = named["Precisions against fp32"].rows[0][0]
        assert cells(named["Precisions against fp32"], *head)["Memory of the weights"] == taken
        assert "Memory of the weights" not in named["Adapters against the model itself"].columns
    sections = build_sections(tables, pl.DataFrame(), Path())
    (cost,) = [section for section in sections if section.name == "cost"]
    (grid,) = cost.grids
    assert (grid.caption, grid.keys) == ("On every host", ["precision"])
    assert [(head, line[0].text) for head, line in grid.rows] == [
        (["fp32"], "538.1 MB"),
        (["nf4"], "134.0 MB"),
    ]


def test_without_noise_there_is_no_verdict() -> None:
    grids = by_caption(shift_grids(study("occlusion")))
    precisions = grids["Precisions against fp32"]
    assert not [column for column in precisions.columns if column.startswith("Against")]


def test_refused_examples_are_told() -> None:
    grids = by_caption(shift_grids(study("occlusion", refused=3)))
    drift = cells(grids["Precisions against fp32"], "nf4", "occlusion")
    assert drift["Examples"] == Cell(str(N - 3), "3 refused")


def test_references_that_differ_are_named() -> None:
    tables = dict(study("lime"))
    again = tables["comparison"].with_columns(
        precision=pl.when(pl.col("kind") == "precision")
        .then(pl.lit("bf16"))
        .otherwise("precision"),
        model=pl.lit("other"),
    )
    tables["comparison"] = pl.concat([tables["comparison"], again])
    grid = by_caption(comparison_grids(tables))["Precisions"]
    assert grid.keys == ["compared", "model"]
    assert [head for head, _ in grid.rows] == [["fp32 → nf4", "tiny"], ["bf16 → nf4", "other"]]


def test_many_comparisons_are_cut() -> None:
    tables = dict(study("lime"))
    every = [
        tables["comparison"].with_columns(model=pl.lit(f"m{i:03d}")) for i in range(MOST_LINES)
    ]
    tables["comparison"] = pl.concat(every)
    grid = comparison_grids(tables)[0]
    assert len(grid.rows) == MOST_LINES
    assert grid.caption.endswith(f"the first {MOST_LINES} of {3 * MOST_LINES}")


@pytest.mark.parametrize("explained", [True, False])
def test_sections_appear_where_there_is_something_to_compare(
    tmp_path: Path, explained: bool
) -> None:
    tables = study("lime") if explained else study()
    names = [section.name for section in build_sections(tables, pl.DataFrame(), tmp_path)]
    assert ("comparison" in names, "attribution_shift" in names) == (True, explained)
    assert names[:2] == ["performance", "comparison"]
    empty = {name: frame.clear() for name, frame in tables.items()}
    assert build_sections(empty, pl.DataFrame(), tmp_path) == []
