"""The table of families, its place in the report, its figures."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analysis.families_figure import MOST_MODELS, family_drawings
from analysis.ink import PRINT
from analysis.report_families import family_grids
from analysis.report_tables import build_sections
from analysis.tables import build_tables
from tests.unit.analysis.frames import Rows, only, run_of, whole_run

FACTORS = ["data", "model", "precision", "adapter", "prompt"]


HOSTS = {
    f"{model}/{precision}": {"memory_bytes": bytes_, "hosts": 1}
    for model, factor in (("small", 1), ("tiny", 10))
    for precision, bytes_ in (("fp32", 400_000_000 * factor), ("nf4", 90_000_000 * factor))
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    """Two models, each in two precisions with and without an adapter."""
    rows: dict[str, Rows] = {}
    for i, precision in enumerate(("fp32", "nf4")):
        for j, adapter in enumerate(("none", "tuned-seed0")):
            for name, table in whole_run(seed=2 * i + j).items():
                changed = [{**row, "precision": precision, "adapter": adapter} for row in table]
                rows.setdefault(name, []).extend(changed)
    return build_tables(run_of(**rows), hosts=HOSTS)


def test_rows_are_those_of_the_other_tables(tables: dict[str, pl.DataFrame]) -> None:
    families = tables["families"]
    assert families.select(FACTORS).n_unique() == 8
    wanted = {"model": "small", "precision": "nf4", "adapter": "tuned-seed0"}
    for metric, of in (("accuracy", None), ("f1", "macro"), ("mcc", None)):
        source = only(tables["performance"], metric=metric, **{"class": of}, **wanted)
        row = only(families, metric=metric, **wanted)
        assert {k: row[k] for k in ("value", "n", "ci_low", "ci_high")} == {
            k: source[k] for k in ("value", "n", "ci_low", "ci_high")
        }
        rate = only(tables["performance"], metric="majority_rate", **wanted)
        assert row["majority_rate"] == rate["value"]
        assert row["explainer"] is None
    for metric in ("comprehensiveness", "sufficiency"):
        keys = {"metric": metric, "reference": "minus_random", "explainer": "lime", **wanted}
        assert only(families, **keys)["value"] == only(tables["faithfulness"], **keys)["value"]
    assert only(families, metric="standalone_seconds", explainer="lime", **wanted)["value"] == 1.0
    assert families.filter(pl.col("reference") == "minus_random").height == 8 * 2 * 2
    size = only(families, metric="weight_bytes", **wanted)
    assert (size["value"], size["explainer"]) == (90_000_000, None)


def test_a_line_a_model_precision_and_adapter(tables: dict[str, pl.DataFrame]) -> None:
    predicts, comprehensive, _ = family_grids(tables)
    assert predicts.keys == ["model", "precision", "adapter"]
    names = ["Accuracy", "Majority rate", "Macro F1", "Matthews correlation"]
    columns = [column.removesuffix("\u00a0↑") for column in predicts.columns]
    assert columns == [*names, "Memory of the weights\u00a0↓"]
    # zero-shot and fine-tuned share their weights
    sizes = [cells[-1].text for _, cells in predicts.rows]
    assert sizes == ["400.0 MB"] * 2 + ["90.0 MB"] * 2 + ["4.000 GB"] * 2 + ["900.0 MB"] * 2
    assert [tuple(keys) for keys, _ in predicts.rows] == [
        (model, precision, adapter)
        for model in ("small", "tiny")
        for precision in ("fp32", "nf4")
        for adapter in ("none", "tuned-seed0")
    ]
    assert comprehensive.columns == ["kernel_shap", "lime"]
    assert comprehensive.caption == "Comprehensiveness (AOPC) minus random\u00a0↑, by explainer"
    for grid in (predicts, comprehensive):
        assert all(cell.text != "–" for _, cells in grid.rows for cell in cells)


def test_figures_show_every_model_and_kind(tables: dict[str, pl.DataFrame]) -> None:
    accuracy, faithful = family_drawings(tables, PRINT)
    for drawing in (accuracy, faithful):
        (axes,) = drawing.figure.axes
        assert [label.get_text() for label in axes.get_yticklabels()] == ["small", "tiny"]
        assert len(axes.containers) == 8
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == [
            "fp32 · none", "fp32 · tuned-seed0", "nf4 · none", "nf4 · tuned-seed0",
        ]  # fmt: skip
    shown = [bar.lines[0].get_xdata()[0] for bar in accuracy.figure.axes[0].containers]
    own = tables["families"].filter(pl.col("metric") == "accuracy")
    assert sorted(shown) == sorted(own["value"].to_list())
    assert "kernel_shap" in faithful.caption


def test_the_control_is_not_the_explainer_that_is_shown(tables: dict[str, pl.DataFrame]) -> None:
    renamed = tables["families"].with_columns(
        pl.col("explainer").replace({"kernel_shap": "random"})
    )
    assert "lime" in family_drawings({"families": renamed}, PRINT)[1].caption


def test_too_many_models_and_several_prompts_are_cut(tables: dict[str, pl.DataFrame]) -> None:
    frame = tables["families"].filter(pl.col("model") == "tiny")
    many = [frame.with_columns(model=pl.lit(f"m{i:02d}")) for i in range(MOST_MODELS + 3)]
    other = [each.with_columns(prompt=pl.lit("other")) for each in many]
    drawing = family_drawings({"families": pl.concat([*many, *other])}, PRINT)[0]
    assert len(drawing.figure.axes[0].get_yticks()) == MOST_MODELS
    assert drawing.caption.endswith("Shown: plain.")


def test_one_model_has_no_section(tmp_path: Path) -> None:
    rows = whole_run()
    one = {name: [r for r in table if r["model"] == "tiny"] for name, table in rows.items()}
    for made, names in ((rows, True), (one, False)):
        built = build_tables(run_of(**made))
        sections = build_sections(built, run_of(**made).predictions, tmp_path)
        assert ("families" in [section.name for section in sections]) is names
        assert bool(family_grids(built)) is bool(family_drawings(built, PRINT)) is names


def test_nothing_to_say() -> None:
    assert family_grids({}) == []
    assert family_drawings({}, PRINT) == []
    empty = build_tables(run_of())
    assert empty["families"].is_empty()
    assert family_drawings(empty, PRINT) == []


def test_predictions_alone_are_enough() -> None:
    rows = {"predictions": whole_run()["predictions"]}
    built = build_tables(run_of(**rows))
    assert [grid.caption for grid in family_grids(built)] == ["Is the model right?"]
    assert [drawing.name for drawing in family_drawings(built, PRINT)] == ["families_accuracy"]
