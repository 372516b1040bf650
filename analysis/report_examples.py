"""The examples of the report: each text with its words coloured by every explainer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup, escape

from analysis.heatmap import (
    FeatureSpan,
    decimals,
    largest,
    log_probability,
    segments,
    signed,
    spans_of,
)
from analysis.report_parts import number, words_of
from analysis.select import Row, combination, varying
from engine.schema import FACTORS

MOST_EXAMPLES = 200
"""Examples shown with their text; the others are in the Parquet files."""
MOST_WORDS = 200_000
"""Coloured words on the page: long texts make it stop before `MOST_EXAMPLES`."""
NAMED_WORDS = 20
"""Words listed with their number below an explanation, the strongest first."""


class Explained(NamedTuple):
    """One explanation of one example."""

    explainer: str
    badges: list[str]
    fields: list[tuple[str, Markup]]
    words: list[tuple[str, str, str]]  # sign, signed number, text; the strongest first
    facts: list[str]


class Panel(NamedTuple):
    """An example under one combination of the factors."""

    heading: str
    verb: str
    prediction: str
    probability: str
    gold: str | None
    right: bool | None
    rationale: str
    common: str
    plain: list[tuple[str, Markup]]
    explained: list[Explained]


class Card(NamedTuple):
    """An example with its panels, and what the page's filter asks for."""

    name: str
    gold: str
    predicted: list[str]
    wrong: bool
    panels: list[Panel]


def build_cards(predictions: pl.DataFrame, attributions: pl.DataFrame) -> tuple[list[Card], int]:
    """Return the examples to show, by id, and how many there are."""
    explanations: dict[tuple[Any, ...], list[Row]] = {}
    for row in attributions.iter_rows(named=True):
        explanations.setdefault(_example_key(row), []).append(row)
    examples: dict[tuple[str, str], list[Row]] = {}
    for row in predictions.iter_rows(named=True):
        if not explanations or _example_key(row) in explanations:
            examples.setdefault((row["data"], row["example"]), []).append(row)
    shown = varying([row for rows in examples.values() for row in rows], FACTORS[1:])
    order = sorted(examples, key=lambda key: (key[0], _natural(key[1])))
    cards: list[Card] = []
    words = 0
    for key in order[:MOST_EXAMPLES]:
        own = [explanations.get(_example_key(row), []) for row in examples[key]]
        words += sum(row["n_features"] for rows in own for row in rows)
        if cards and words > MOST_WORDS:
            break
        panels = [
            _panel(row, rows, combination(row, shown))
            for row, rows in zip(examples[key], own, strict=True)
        ]
        cards.append(
            Card(
                key[1],
                next((panel.gold for panel in panels if panel.gold), ""),
                [panel.prediction for panel in panels],
                any(panel.right is False for panel in panels),
                panels,
            )
        )
    return cards, len(order)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts review-9 before review-10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _example_key(row: Row) -> tuple[Any, ...]:
    return (*[row[factor] for factor in FACTORS], row["example"])


def _panel(prediction: Row, rows: Sequence[Row], heading: str) -> Panel:
    labels, predicted, gold = prediction["labels"], prediction["predicted"], prediction["gold"]
    inputs = json.loads(prediction["inputs"])
    rationale = spans_of(prediction["rationale"])
    settings = Counter(_settings(row) for row in rows)
    common = settings.most_common(1)[0][0] if settings else ()
    kind = words_of(prediction["rationale_kind"]) if rationale else ""
    tokens = prediction.get("continuation")
    return Panel(
        heading,
        "predicts" if tokens is None else "continues with",
        labels[predicted],
        f"{prediction['probabilities'][predicted]:.3f}"
        if tokens is None
        else log_probability(tokens),
        None if gold is None else labels[gold],
        None if gold is None else gold == predicted,
        kind,
        " · ".join(common),
        [] if rows else _colour(inputs, (), (), None, rationale),
        [_explained(row, inputs, rationale, common) for row in rows],
    )


def _settings(row: Row) -> tuple[str, ...]:
    return (
        f"explains {_explained_part(row)}",
        words_of(row["target"]).replace("log odds", "log-odds"),
        words_of(row["features"]),
        f"removed by {row['operator']}",
    )


def _explained_part(row: Row) -> str:
    if row["class_rule"] == "whole":
        return "the whole continuation"
    kind, _, number = row["class_rule"].partition(":")
    return f"token {number}, {row['class_name']!r}" if kind == "token" else row["class_name"]


def _explained(
    row: Row, inputs: Mapping[str, str], rationale: Sequence[FeatureSpan], common: Sequence[str]
) -> Explained:
    badges = [text for text in _settings(row) if text not in common]
    if profile := re.search(r"\[compat:(.+)\]", row["method"]):
        badges.insert(0, f"compat: {profile.group(1)}")
    elif row["method"] != row["explainer"]:
        badges.insert(0, row["method"])
    facts = [f"{number(row['evaluations'])} evaluations"]
    if row["r2"] is not None:
        facts.append(f"R² {number(row['r2'])}")
    if row["residual"] is not None:
        facts.append(f"residual {number(row['residual'])}")
    if row["status"] != "ok":
        facts.insert(0, words_of(row["status"]))
    spans, values = spans_of(row["spans"]), row["values"]
    if spans and not any(values):
        facts.insert(0, "every value is 0")
    fields = _colour(inputs, spans, values, row["std_error"], rationale)
    return Explained(row["explainer"], badges, fields, _strongest(inputs, spans, values), facts)


def _strongest(
    inputs: Mapping[str, str], spans: Sequence[FeatureSpan], values: Sequence[float]
) -> list[tuple[str, str, str]]:
    scale = largest(values)
    first = {span.feature: span for span in reversed(spans) if values[span.feature]}
    order = sorted(first, key=lambda feature: (-abs(values[feature]), feature))
    words = [(values[f], inputs[first[f].field][first[f].start : first[f].end]) for f in order]
    return [(_sign(v), signed(v, scale), _short(word)) for v, word in words[:NAMED_WORDS]]


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31].rstrip() + "…"


def _sign(value: float) -> str:
    return "p" if value > 0 else "n" if value < 0 else "z"


def _colour(
    inputs: Mapping[str, str],
    spans: Sequence[FeatureSpan],
    values: Sequence[float],
    errors: Sequence[float] | None,
    rationale: Sequence[FeatureSpan],
) -> list[tuple[str, Markup]]:
    """Return each input field as HTML with its words coloured and its evidence marked."""
    scale = largest(values)
    fields = []
    for name, text in inputs.items():
        here = [span for span in spans if span.field == name]
        marks = [span for span in rationale if span.field == name]
        parts: list[Markup] = []
        for marked, run in groupby(segments(text, here, marks), lambda segment: segment.marked):
            inner = Markup("").join(_word(s.text, s.feature, values, errors, scale) for s in run)
            parts.append(Markup('<span class="m">{}</span>').format(inner) if marked else inner)
        fields.append((name if len(inputs) > 1 else "", Markup("").join(parts)))
    return fields


def _word(
    text: str,
    feature: int | None,
    values: Sequence[float],
    errors: Sequence[float] | None,
    scale: float,
) -> Markup:
    if feature is None:
        return escape(text)
    value = values[feature]
    title = signed(value, scale)
    if errors is not None and errors[feature] is not None:
        title += f" ± {errors[feature]:.{decimals(scale)}f}"
    share = abs(value) / scale if scale and value == value else 0.0
    return Markup('<span class="w {}" style="--a:{}" title="{}">{}</span>').format(
        _sign(value), f"{share:.2f}", title, text
    )
