"""The original's pictures under their names, 300 dots an inch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.ink import PRINT
from analysis.legacy.lime_examples import LimeExample

DPI = 300
NAMES = {"zero_shot": "Zero-shot", "fine_tuned": "Fine-tuned"}


def performance_chart(scores: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Draw the five scores of each phase as bars.

    Args:
        scores: Phase -> metric -> value; undefined ones are left out.
        path: Of the PNG.
    """
    figure, axes = _figure(7.0, 4.0)
    metrics = list(next(iter(scores.values())))
    width = 0.8 / len(scores)
    for i, (phase, values) in enumerate(scores.items()):
        places = [x + (i - (len(scores) - 1) / 2) * width for x in range(len(metrics))]
        heights = [values[m] or 0.0 for m in metrics]
        bars = axes.bar(places, heights, width, label=NAMES[phase], color=PRINT.series[i])
        texts = ["undefined" if values[m] is None else f"{values[m]:.2f}" for m in metrics]
        axes.bar_label(bars, texts, fontsize=8, padding=2)
    axes.set_xticks(range(len(metrics)), [m.upper() if m == "mcc" else m for m in metrics])
    axes.set_ylim(min(0.0, *_known(scores)), 1.12)
    axes.set_ylabel("score")
    axes.legend()
    _save(figure, path)


def properties_chart(
    properties: Mapping[str, Mapping[str, float | None]], phase: str, path: Path
) -> None:
    """Draw the measured properties of each method as horizontal bars, each on its own scale.

    Args:
        properties: Method -> key -> value; keys without a value in any method are left out.
        phase: For the title.
        path: Of the PNG.
    """
    keys = [
        key
        for key in next(iter(properties.values()))
        if any(values.get(key) is not None for values in properties.values())
    ]
    figure = Figure(figsize=(7.0, 0.9 + 0.75 * len(keys)), layout="constrained")
    rows = figure.subplots(max(len(keys), 1), 1, squeeze=False)[:, 0]
    methods = list(properties)
    for row, key in zip(rows, keys, strict=False):
        values = [properties[m].get(key) for m in methods]
        bars = row.barh(
            methods,
            [v if v is not None else 0.0 for v in values],
            color=[PRINT.series[i % len(PRINT.series)] for i in range(len(methods))],
        )
        texts = ["none" if v is None else f"{v:.3g}" for v in values]
        row.bar_label(bars, texts, fontsize=7, padding=2)
        row.set_title(key.replace("_", " "), fontsize=8, loc="left")
        row.margins(x=0.15)
        row.invert_yaxis()
        row.tick_params(labelsize=7)
        row.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Properties of the explanations: {NAMES[phase].lower()}", fontsize=10)
    _save(figure, path)


def shap_summary_chart(tokens: Sequence[str], scores: Sequence[float], path: Path) -> None:
    """Draw the words of the largest |φ|, summed over the examples."""
    figure, axes = _figure(6.0, 0.9 + 0.35 * max(len(tokens), 1))
    axes.barh(range(len(tokens)), scores, color=PRINT.series[0])
    axes.set_yticks(range(len(tokens)), list(tokens), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("|Shapley value|, summed over the examples")
    _save(figure, path)


def lime_chart(example: LimeExample, path: Path) -> None:
    """Draw the weights of a text's words, those for the label to the right."""
    figure, axes = _figure(6.0, 1.2 + 0.35 * len(example.words))
    colours = [PRINT.positive if weight > 0 else PRINT.negative for weight in example.weights]
    axes.barh(range(len(example.words)), example.weights, color=colours)
    axes.set_yticks(range(len(example.words)), example.words, parse_math=False)
    axes.axvline(0.0, color=PRINT.text, linewidth=0.8)
    axes.invert_yaxis()
    target = example.target.replace("_", "-")
    axes.set_xlabel(f"LIME's weight, in {target} of “{example.label}”", parse_math=False)
    axes.set_title(f"Fine-tuned: {example.name}", fontsize=10, parse_math=False)
    _save(figure, path)


def _known(scores: Mapping[str, Mapping[str, float | None]]) -> list[float]:
    return [value for each in scores.values() for value in each.values() if value is not None] or [
        0.0
    ]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
