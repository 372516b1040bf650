"""Figures come from the tables, repeat byte for byte, and follow the page's theme."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.drawing import Drawing
from analysis.figures import draw, svg, write_figures
from analysis.ink import PRINT, THEMED
from analysis.select import rows_of, varying
from engine.schema import FACTORS

Row = dict[str, Any]
BASE = dict.fromkeys(FACTORS, "x")
GAME = {"features": "words", "operator": "delete", "target": "log_odds", "class_rule": "predicted"}


def measure(metric: str, value: float | None, n: int = 50, half: float = 0.1, **keys: Any) -> Row:
    interval = {"ci_low": None, "ci_high": None}
    if value is not None:
        interval = {"ci_low": value - half, "ci_high": value + half}
    return {**BASE, **keys, "metric": metric, "value": value, "n": n, **interval}


def tables(**more: Any) -> dict[str, pl.DataFrame]:
    game = {**GAME, **more}
    gains = {"lime": 0.3, "kernel_shap": 0.2, "random": -0.01}
    faith = [
        measure("comprehensiveness", v, explainer=e, reference="minus_random", n_removed=None)
        for e, v in gains.items()
    ]
    faith += [
        measure("comprehensiveness_at_k", v * k, n, explainer=e, reference="none", n_removed=k)
        for e, v in gains.items()
        for k, n in ((1, 50), (2, 40), (9, 2))
    ]
    pairs = [("lime", "kernel_shap", 0.8), ("lime", "random", -0.1), ("kernel_shap", "random", 0.0)]
    agreement = [
        measure(metric, v, explainer_a=a, explainer_b=b, **game)
        for a, b, v in pairs
        for metric in ("cosine", "spearman")
    ]
    seconds = {"lime": 2.0, "kernel_shap": 1.5, "random": 0.01, "prediction": 0.01}
    cost = [measure("standalone_seconds", v, explainer=e) for e, v in seconds.items()]
    return {
        "faithfulness": pl.DataFrame([{**row, **game} for row in faith], infer_schema_length=None),
        "agreement": pl.DataFrame(agreement),
        "cost": pl.DataFrame(cost),
    }


def predictions(labels: tuple[str, ...] = ("no", "yes"), gold: bool = True) -> pl.DataFrame:
    rows = [
        {
            **BASE,
            "labels": list(labels),
            "gold": i % len(labels) if gold else None,
            "probabilities": [1 - i / 10, *[i / 10 / (len(labels) - 1)] * (len(labels) - 1)],
        }
        for i in range(10)
    ]
    return pl.DataFrame(rows, schema_overrides={"gold": pl.Int32})


def names(drawings: list[Drawing]) -> list[str]:
    return [drawing.name for drawing in drawings]


def test_every_figure() -> None:
    found = names(draw(tables(), predictions()))
    assert found == ["probabilities", "faithfulness", "deletion", "agreement", "cost"]


def test_none_of_what_is_missing() -> None:
    assert draw({}, pl.DataFrame()) == []
    assert names(draw({"cost": tables()["cost"]}, predictions())) == ["probabilities"]
    without = {"faithfulness": tables()["faithfulness"].drop("reference"), "cost": pl.DataFrame()}
    assert draw(without, predictions().clear()) == []


def test_undefined_values_are_left_out() -> None:
    frame = pl.DataFrame([measure("gini", None), measure("gini", 0.5)])
    assert [row["value"] for row in rows_of({"t": frame}, "t", metric="gini")] == [0.5]
    assert rows_of({"t": frame}, "t", nothing="of this name") == []


def test_points_and_intervals_are_the_table(tmp_path: Path) -> None:
    drawing = next(d for d in draw(tables(), predictions()) if d.name == "faithfulness")
    (axes,) = drawing.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "lime",
        "kernel_shap",
        "random",
    ]
    x = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert x == [0.3, 0.2, -0.01]
    bars = [container.lines[2][0].get_segments()[0] for container in axes.containers]
    assert bars[0][:, 0].tolist() == pytest.approx([0.2, 0.4])


def test_deletion_leaves_out_sizes_of_few_examples() -> None:
    drawing = next(d for d in draw(tables(), predictions()) if d.name == "deletion")
    lines = {line.get_label(): line for line in drawing.figure.axes[0].get_lines()}
    assert list(lines["lime"].get_xdata()) == [1, 2]
    assert list(lines["lime"].get_ydata()) == [0.3, 0.6]


def test_agreement_is_symmetric_and_prefers_ranks() -> None:
    drawing = next(d for d in draw(tables(), predictions()) if d.name == "agreement")
    assert "rank correlation" in drawing.caption
    texts = {t.get_position(): t.get_text() for t in drawing.figure.axes[0].texts}
    assert texts[(1, 0)] == texts[(0, 1)] == "0.80"
    assert texts[(2, 0)] == "−0.10"
    assert texts[(1, 1)] == ""


def test_other_games_are_told_apart() -> None:
    one, two = tables()["faithfulness"], tables(target="probability")["faithfulness"]
    both = {"faithfulness": pl.concat([one, two.with_columns(explainer=pl.lit("other"))])}
    drawing = next(d for d in draw(both, predictions()) if d.name == "faithfulness")
    legend = drawing.figure.axes[0].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["log_odds", "probability"]
    assert varying(both["faithfulness"].to_dicts()) == ["target"]


@pytest.mark.parametrize(
    ("labels", "gold", "what"),
    [
        (("no", "yes"), True, "predicted probability of yes"),
        (("a", "b", "c"), True, "predicted probability of the gold label"),
        (("no", "yes"), False, "predicted probability of yes"),
    ],
)
def test_probabilities_by_gold_class(labels: tuple[str, ...], gold: bool, what: str) -> None:
    (drawing,) = draw({}, predictions(labels, gold))
    axes = drawing.figure.axes[0]
    assert axes.get_xlabel() == what
    shown = axes.get_legend_handles_labels()[1]
    wanted = [f"gold {name}" for name in labels] if gold else ["no gold label"]
    assert [label.partition(" (")[0] for label in shown] == wanted


def test_png_files_repeat_byte_for_byte(tmp_path: Path) -> None:
    one = write_figures(tables(), predictions(), tmp_path / "a")
    two = write_figures(tables(), predictions(), tmp_path / "b")
    assert [path.name for path in one][:2] == ["probabilities.png", "faithfulness.png"]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in one)


def test_svg_takes_the_colours_of_the_page() -> None:
    for drawing in draw(tables(), predictions(), THEMED):
        text = svg(drawing)
        assert text.startswith("<svg viewBox=")
        assert text.endswith("</svg>")
        assert "var(--text)" in text
        assert not re.search(r"#fe00\w\w", text)
        assert "http" not in text
        assert all(
            name.startswith(f"{drawing.name}-") for name in re.findall(r'\sid="([^"]*)', text)
        )
        assert len(text) < 60_000


def test_svg_repeats_byte_for_byte() -> None:
    one, two = (draw(tables(), predictions(), THEMED) for _ in range(2))
    assert [svg(d) for d in one] == [svg(d) for d in two]


def test_colours_of_print_are_not_stand_ins() -> None:
    assert not set(PRINT.series) & set(THEMED.series)
