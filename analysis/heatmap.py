"""An explanation as coloured words: the palette, the segments of a text, the terminal, JSON.

Positive values are orange and negative ones blue, magnitude is opacity; the sign also shows by a
second channel everywhere (underline, + or −), so that nothing hangs on telling colours apart. The
hues follow Okabe and Ito (2008), "Color Universal Design", tuned for text contrast.
"""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

FAINT = 0.08
"""Words below this share of the largest magnitude carry no colour in the terminal."""


class Theme(NamedTuple):
    """The colours of one theme, `#rrggbb`; text on any tint of the two signs stays readable."""

    background: str
    surface: str
    text: str
    positive: str
    negative: str


LIGHT = Theme("#f7f6f3", "#ffffff", "#1c2024", "#f0a032", "#69b4ea")
DARK = Theme("#13161a", "#1b1f24", "#f1efeb", "#9c5600", "#1c66a6")


class FeatureSpan(NamedTuple):
    """Characters [start, end) of an input field that belong to a feature."""

    feature: int
    start: int
    end: int
    field: str = "text"


class Segment(NamedTuple):
    """A run of text of one feature (or of none), inside or outside the rationale."""

    text: str
    feature: int | None
    marked: bool


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, 0..1 (WCAG 2.2, "relative luminance")."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1..21 (WCAG 2.2, "contrast ratio")."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def blend(under: str, over: str, opacity: float) -> str:
    """Return the colour of `over` at an opacity of 0..1 on `under`."""
    pairs = zip(_channels(under), _channels(over), strict=True)
    return "#" + "".join(f"{round(u + (o - u) * opacity):02x}" for u, o in pairs)


def spans_of(rows: Iterable[Mapping[str, Any]] | None) -> tuple[FeatureSpan, ...]:
    """Return the spans of a `SPANS` cell of a result table."""
    return tuple(FeatureSpan(r["feature"], r["start"], r["end"], r["field"]) for r in rows or ())


def segments(
    text: str, spans: Sequence[FeatureSpan], rationale: Sequence[FeatureSpan] = ()
) -> list[Segment]:
    """Cut a text at the borders of its features and of its rationale; nothing is lost.

    Args:
        text: One input field.
        spans: Spans of that field; where two overlap, the first holds.
        rationale: Spans of the evidence in that field.
    """
    owner: list[int | None] = [None] * len(text)
    for index, span in reversed(list(enumerate(spans))):
        inside = range(len(text))[max(span.start, 0) : max(span.end, 0)]
        owner[inside.start : inside.stop] = [index] * len(inside)
    marked = [False] * len(text)
    for span in rationale:
        inside = range(len(text))[max(span.start, 0) : max(span.end, 0)]
        marked[inside.start : inside.stop] = [True] * len(inside)
    runs = groupby(zip(owner, marked, text, strict=True), lambda run: run[:2])
    cut = []
    for (index_or_none, mark), run in runs:
        feature = None if index_or_none is None else spans[index_or_none].feature
        cut.append(Segment("".join(char for _, _, char in run), feature, mark))
    return cut


def largest(values: Iterable[float | None]) -> float:
    """Return the largest finite magnitude, the full strength of an explanation's colours."""
    return max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)


def decimals(scale: float) -> int:
    """Return how many decimals give `scale` three significant digits, 0..8."""
    return min(max(2 - math.floor(math.log10(scale)), 0), 8) if scale > 0 else 2


def signed(value: float, scale: float) -> str:
    """Return a value with its sign and the decimals of `scale`; zero has no sign."""
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:+.{decimals(scale)}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def heatmap(
    text: str,
    spans: Sequence[FeatureSpan],
    values: Sequence[float],
    *,
    colour: bool = True,
    dark: bool = True,
) -> Text:
    """Return a text with its words coloured by sign and magnitude.

    Args:
        text: One input field.
        spans: Spans of its features; `feature` indexes `values`.
        values: Attribution of each feature [F].
        colour: False writes the signed number behind each word that is not faint instead.
        dark: Tints for a dark terminal.
    """
    theme = DARK if dark else LIGHT
    scale = largest(values)
    result = Text()
    for segment in segments(text, spans):
        shown = _printable(segment.text)
        value = 0.0 if segment.feature is None else values[segment.feature]
        share = abs(value) / scale if scale and math.isfinite(value) else 0.0
        if share < FAINT:
            result.append(shown)
        elif colour:
            result.append(shown, _chip(theme, value, share))
        else:
            result.append(f"{shown}[{signed(value, scale)}]")
    return result


def _chip(theme: Theme, value: float, share: float) -> Style:
    tint = theme.positive if value > 0 else theme.negative
    ground = blend(theme.surface, tint, share)
    return Style(color=theme.text, bgcolor=ground, underline=value < 0)


def _printable(text: str) -> str:
    """Replace control characters one for one: a text must not steer the terminal."""
    return "".join("�" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)


def print_explanation(
    console: Console, prediction: Mapping[str, Any], attribution: Mapping[str, Any], top: int = 10
) -> None:
    """Print an explanation: the prediction, the coloured text, its strongest words with numbers.

    Args:
        console: One without colours (`NO_COLOR`, a dumb terminal, a pipe) gets signed numbers.
        prediction: A row of `PREDICTIONS`.
        attribution: A row of `ATTRIBUTIONS` of the same example.
        top: How many words to list.
    """
    colour = console.color_system is not None and not console.no_color
    dark = _dark_terminal()
    document = explanation_json(prediction, attribution)
    console.print(Text(_printable(_said(document)), style="bold"))
    console.print(Text(_facts(document), style="dim"))
    spans, values = spans_of(attribution["spans"]), attribution["values"]
    inputs = json.loads(prediction["inputs"])
    for name, text in inputs.items():
        of_field = [span for span in spans if span.field == name]
        line = Text(f"{name}: ", style="dim") if len(inputs) > 1 else Text()
        console.print()
        console.print(line + heatmap(text, of_field, values, colour=colour, dark=dark))
    if not document["features"]:
        console.print(Text("nothing to explain: the text has no features", style="italic"))
        return
    console.print()
    if colour:
        console.print(_legend(DARK if dark else LIGHT, document["class"]))
    console.print(_top_words(document, top, DARK if dark else LIGHT))


def _said(document: Mapping[str, Any]) -> str:
    tokens = document.get("continuation")
    if tokens is None:
        chances = ", ".join(f"{k} {v:.3f}" for k, v in document["probabilities"].items())
        return f"prediction  {document['prediction']}  ({chances})"
    return f"continuation  {document['prediction']!r}  ({log_probability(tokens)})"


def log_probability(tokens: Sequence[Mapping[str, Any]]) -> str:
    """Return log p of a continuation and its mean a token, for people.

    Args:
        tokens: A `CONTINUATION` cell of a result table.
    """
    total = sum(token["log_prob"] for token in tokens)
    text = f"log p {total:.2f}, {total / len(tokens):.2f} a token"
    return text.replace("-", "−")


def _facts(document: Mapping[str, Any]) -> str:
    parts = [
        str(document["explainer"]),
        f"{document['target']} of {document['class']}",
        f"{document['evaluations']} evaluations",
    ]
    if document["r2"] is not None:
        parts.append(f"weighted R² {document['r2']:.3f}")
    if document["residual"] is not None:
        parts.append(f"additivity residual {document['residual']:.1e}".replace("e-", "e−"))
    return "explained by " + " · ".join(parts)


def _legend(theme: Theme, class_name: str) -> Text:
    legend = Text("speaks ", style="dim")
    legend.append(" for ", _chip(theme, 1.0, 1.0)).append(" or ")
    legend.append(" against ", _chip(theme, -1.0, 1.0)).append(f" {class_name}")
    return legend


def _top_words(document: Mapping[str, Any], top: int, theme: Theme) -> Table:
    # a feature of several spans (LIME's bag of words) is listed once
    once = {f["feature"]: f for f in reversed(document["features"]) if f["value"] is not None}
    features = list(once.values())
    features.sort(key=lambda f: (-abs(f["value"]), f["start"]))
    scale = largest(f["value"] for f in features)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for feature in features[:top]:
        value, error = feature["value"], feature["std_error"]
        number = signed(value, scale) + ("" if error is None else f" ±{error:.{decimals(scale)}f}")
        width = round(16 * abs(value) / scale) if scale else 0
        tint = theme.positive if value > 0 else theme.negative
        table.add_row(number, Text("█" * width, style=tint), Text(_printable(feature["text"])))
    return table


def _dark_terminal() -> bool:
    """Take the background from COLORFGBG (rxvt, konsole, iTerm), dark where it isn't told."""
    ground = os.environ.get("COLORFGBG", "").split(";")[-1]
    return not (ground.isdigit() and int(ground) in (7, *range(9, 16)))


def explanation_json(
    prediction: Mapping[str, Any], attribution: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an explanation as plain JSON values; undefined numbers are null.

    Args:
        prediction: A row of `PREDICTIONS`.
        attribution: A row of `ATTRIBUTIONS` of the same example.
    """
    inputs = json.loads(prediction["inputs"])
    labels = prediction["labels"]
    values, errors = attribution["values"], attribution["std_error"]
    features = [
        {
            "text": inputs[span.field][span.start : span.end],
            "start": span.start,
            "end": span.end,
            "field": span.field,
            "feature": span.feature,
            "value": _finite(values[span.feature]),
            "std_error": None if errors is None else _finite(errors[span.feature]),
        }
        for span in spans_of(attribution["spans"])
    ]
    probabilities = [_finite(p) for p in prediction["probabilities"]]
    tokens = prediction.get("continuation")
    return {
        "text": next(iter(inputs.values())) if len(inputs) == 1 else inputs,
        "prediction": labels[prediction["predicted"]],
        "probabilities": dict(zip(labels, probabilities, strict=True)),
        "target": attribution["target"],
        "class": attribution["class_name"],
        "explainer": attribution["explainer"],
        "operator": attribution["operator"],
        "features": features,
        "base": _finite(attribution["base"]),
        "evaluations": attribution["evaluations"],
        "residual": _finite(attribution["residual"]),
        "r2": _finite(attribution["r2"]),
        **({} if tokens is None else {"continuation": _by_token(tokens, attribution)}),
    }


def _by_token(
    tokens: Sequence[Mapping[str, Any]], attribution: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [
        {
            "text": token["text"],
            "log_prob": _finite(token["log_prob"]),
            "values": [_finite(value) for value in values],
        }
        for token, values in zip(tokens, attribution["values_by_label"], strict=True)
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
