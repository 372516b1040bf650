from __future__ import annotations

import polars as pl

from analysis.comparison_figure import MOST_LINES, shift_drawing
from analysis.comparison_words import compared, line_of
from analysis.ink import PRINT
from tests.unit.analysis.comparison_tables import study
from tests.unit.analysis.frames import only


def labels(tables: dict[str, pl.DataFrame]) -> list[str]:
    drawing = shift_drawing(tables, PRINT)
    assert drawing is not None
    return [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]


def test_noise_stands_below_what_was_meant() -> None:
    found = labels(study("lime", "lime.1", "occlusion"))
    assert found[:4] == [
        "sst-seed0 · fp32",
        "sst-seed1 · fp32",
        "nf4 · none",
        "sst, mean of 2 seeds · fp32",
    ]
    assert found[4] == "sst-seed0 → sst-seed1 · fp32"
    assert found[5:] == [
        "explainer’s seed · fp32 · none",
        "explainer’s seed · fp32 · sst-seed0",
        "explainer’s seed · fp32 · sst-seed1",
        "explainer’s seed · nf4 · none",
    ]
    drawing = shift_drawing(study("lime", "lime.1", "occlusion"), PRINT)
    assert drawing is not None
    (axes,) = drawing.figure.axes
    dashed = [line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in dashed] == [3.5]
    legend = axes.get_legend()
    assert legend is not None
    # the twin is there for the noise only
    assert [text.get_text() for text in legend.get_texts()] == ["lime", "occlusion"]


def test_points_are_the_table() -> None:
    tables = study("lime")
    drawing = shift_drawing(tables, PRINT)
    assert drawing is not None
    x = [bar.lines[0].get_xdata()[0] for bar in drawing.figure.axes[0].containers]
    row = only(
        tables["attribution_shift"], metric="spearman", other_precision="nf4", quantity="between"
    )
    assert x[2] == row["value"]


def test_without_noise_there_is_no_line() -> None:
    tables = study("lime")
    own = tables["attribution_shift"].filter(pl.col("kind") != "training_seed")
    drawing = shift_drawing({"attribution_shift": own}, PRINT)
    assert drawing is not None
    assert "Hollow" not in drawing.caption


def test_nothing_to_draw() -> None:
    assert shift_drawing({}, PRINT) is None
    assert shift_drawing({"attribution_shift": study()["attribution_shift"]}, PRINT) is None


def test_one_game_and_not_too_many_comparisons() -> None:
    frame = study("lime")["attribution_shift"]
    many = [frame.with_columns(model=pl.lit(f"m{i:02d}")) for i in range(MOST_LINES)]
    other = frame.with_columns(target=pl.lit("probability"))
    drawing = shift_drawing({"attribution_shift": pl.concat([*many, other])}, PRINT)
    assert drawing is not None
    assert len(drawing.figure.axes[0].get_yticks()) == MOST_LINES
    assert drawing.caption.endswith("Shown: log_odds.")


def test_words() -> None:
    row = {
        "kind": "model",
        "data": "d",
        "model": "a",
        "other_model": "b",
        "precision": "fp32",
        "other_precision": "fp32",
        "adapter": "none",
        "other_adapter": "none",
        "prompt": "p",
    }
    assert compared(row) == "a → b"
    assert line_of(row, [row]) == "b"
    again = {**row, "kind": "replicate", "other_model": "a#1"}
    assert compared(again) == "a → a#1"
    assert line_of(again, [row, again]) == "the same again"
    trained = {**row, "kind": "precision_and_training", "other_precision": "nf4"}
    assert compared(trained) == "fp32 → nf4"
    assert line_of(trained, [trained]) == "nf4, trained in it"
    nf4 = {**row, "precision": "nf4"}
    assert line_of(nf4, [row, nf4]) == "b · nf4"
