"""Colours, segments, the terminal and the JSON of an explanation."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.heatmap import (
    DARK,
    LIGHT,
    FeatureSpan,
    Segment,
    blend,
    contrast,
    explanation_json,
    heatmap,
    print_explanation,
    segments,
    signed,
)

TEXT = "Not bad at all"
SPANS = [FeatureSpan(0, 0, 3), FeatureSpan(1, 4, 7), FeatureSpan(2, 8, 10), FeatureSpan(3, 11, 14)]
VALUES = [-0.5, 1.0, 0.001, 0.0]


def rows(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    prediction = {
        "inputs": json.dumps({"text": TEXT}),
        "labels": ["negative", "positive"],
        "predicted": 1,
        "probabilities": [0.25, 0.75],
    }
    attribution = {
        "explainer": "lime",
        "operator": "delete",
        "target": "log_odds",
        "class_name": "positive",
        "spans": [span._asdict() for span in SPANS],
        "values": VALUES,
        "std_error": [0.1, 0.2, 0.3, float("nan")],
        "base": 0.3,
        "evaluations": 128,
        "residual": None,
        "r2": 0.9,
    }
    return prediction, attribution | more


def printed(*, color_system: Any = None, **more: Any) -> str:
    out = io.StringIO()
    kinds = {"force_terminal": color_system is not None, "color_system": color_system}
    console = Console(file=out, width=100, **kinds)  # type: ignore[arg-type]
    prediction, attribution = rows(**more)
    print_explanation(console, prediction, attribution)
    return out.getvalue()


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#ffffff", "#777777") == contrast("#777777", "#ffffff")


def test_blend_goes_from_one_colour_to_the_other() -> None:
    assert blend("#000000", "#ff8000", 0) == "#000000"
    assert blend("#000000", "#ff8000", 1) == "#ff8000"
    assert blend("#000000", "#ffffff", 0.5) == "#808080"


def test_signs_differ_in_lightness_or_hue_channel_for_the_colour_blind() -> None:
    """Blue against orange differs in the blue channel, which red-green blindness leaves intact."""
    for theme in (LIGHT, DARK):
        blue = [int(colour[5:7], 16) for colour in (theme.positive, theme.negative)]
        assert blue[1] - blue[0] > 120


def test_segments_at_the_borders_of_features_and_rationale() -> None:
    cut = segments("ab cd", [FeatureSpan(0, 0, 2), FeatureSpan(1, 3, 5)], [FeatureSpan(0, 1, 4)])
    assert cut == [
        Segment("a", 0, False),
        Segment("b", 0, True),
        Segment(" ", None, True),
        Segment("c", 1, True),
        Segment("d", 1, False),
    ]


def test_adjacent_spans_of_one_feature_stay_apart() -> None:
    cut = segments("abab", [FeatureSpan(0, 0, 2), FeatureSpan(0, 2, 4)])
    assert [s.text for s in cut] == ["ab", "ab"]


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-2, 35), st.integers(-2, 35))))
def test_segments_lose_nothing(text: str, borders: list[tuple[int, int]]) -> None:
    spans = [FeatureSpan(i, start, end) for i, (start, end) in enumerate(borders)]
    cut = segments(text, spans, spans[:1])
    assert "".join(segment.text for segment in cut) == text
    position = 0
    for segment in cut:
        covering = [s for s in spans if max(s.start, 0) <= position < s.end]
        assert segment.feature == (covering[0].feature if covering else None)
        position += len(segment.text)


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (1.234, 2.0, "+1.23"),
        (-0.01234, 0.05, "−0.0123"),
        (0.0, 1.0, "0.00"),
        (-0.0001, 1.0, "0.00"),
        (250.0, 250.0, "+250"),
        (0.0, 0.0, "0.00"),
        (float("nan"), 1.0, "undefined"),
    ],
)
def test_signed(value: float, scale: float, text: str) -> None:
    assert signed(value, scale) == text


def test_heatmap_colours_by_sign_and_magnitude() -> None:
    text = heatmap(TEXT, SPANS, VALUES, dark=False)
    assert text.plain == TEXT
    styles = {TEXT[s.start : s.end]: s.style for s in text.spans}
    assert set(styles) == {"Not", "bad"}  # faint words have none
    assert styles["bad"].bgcolor.name == LIGHT.positive
    assert styles["Not"].bgcolor.name == blend(LIGHT.surface, LIGHT.negative, 0.5)
    assert styles["Not"].underline
    assert not styles["bad"].underline


def test_heatmap_without_colour_has_signed_numbers() -> None:
    text = heatmap(TEXT, SPANS, VALUES, colour=False)
    assert text.plain == "Not[−0.50] bad[+1.00] at all"
    assert text.spans == []


def test_all_zero_values_are_plain() -> None:
    assert heatmap(TEXT, SPANS, [0.0] * 4, colour=False).plain == TEXT


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = heatmap("a\x1b[31mb\x9b\n", [FeatureSpan(0, 0, 1)], [1.0])
    assert text.plain == "a�[31mb�\n"


def test_markup_of_the_text_stays_text() -> None:
    assert heatmap("[bold]x[/bold]", [], []).plain == "[bold]x[/bold]"


def test_print_in_colour() -> None:
    out = printed(color_system="truecolor")
    assert "\x1b[" in out
    assert "bad[+" not in out
    assert "against" in out


def test_print_without_colour() -> None:
    out = printed()
    assert "\x1b[" not in out
    assert "Not[−0.50] bad[+1.00] at all" in out
    lines = out.splitlines()
    top = [line.split() for line in lines if "±" in line]
    assert [line[0] for line in top] == ["+1.00", "−0.50", "0.00"]
    assert top[0][1] == "±0.20"
    assert "positive 0.750" in out
    assert "128 evaluations" in out
    assert "weighted R² 0.900" in out


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "bad[+1.00]" in printed(color_system="truecolor")


def test_print_without_features() -> None:
    out = printed(spans=[], values=[], std_error=None)
    assert "nothing to explain" in out


def test_a_feature_of_several_spans_is_listed_once() -> None:
    twice = [FeatureSpan(0, 0, 3), FeatureSpan(0, 4, 7)]
    spans = [span._asdict() for span in twice]
    out = printed(spans=spans, values=[0.5], std_error=None)
    assert sum("█" in line for line in out.splitlines()) == 1
    document = explanation_json(*rows(spans=spans, values=[0.5], std_error=None))
    assert [(f["text"], f["value"]) for f in document["features"]] == [("Not", 0.5), ("bad", 0.5)]


def test_json_document() -> None:
    document = explanation_json(*rows())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["text"] == TEXT
    assert document["prediction"] == "positive"
    assert document["probabilities"] == {"negative": 0.25, "positive": 0.75}
    assert (document["target"], document["class"]) == ("log_odds", "positive")
    assert (document["base"], document["evaluations"]) == (0.3, 128)
    assert (document["residual"], document["r2"]) == (None, 0.9)
    assert document["features"][1] == {
        "text": "bad",
        "start": 4,
        "end": 7,
        "field": "text",
        "feature": 1,
        "value": 1.0,
        "std_error": 0.2,
    }
    assert document["features"][3]["std_error"] is None  # was not a number


TOKENS = (
    {"token": 7, "text": " very", "log_prob": -1.5},
    {"token": 8, "text": " good", "log_prob": -0.5},
)
BY_TOKEN = ([0.0, 1.0, 0.0, 0.0], [-0.5, 0.0, 0.001, float("nan")])


class TestContinuation:
    def rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        prediction, attribution = rows(
            target="logprob", class_name=" very good", values_by_label=BY_TOKEN
        )
        told = {"labels": [" very good"], "predicted": 0, "probabilities": [0.1]}
        return {**prediction, **told, "continuation": TOKENS}, attribution

    def test_it_stands_where_the_prediction_does(self) -> None:
        out = io.StringIO()
        print_explanation(Console(file=out, width=100), *self.rows())
        first = out.getvalue().splitlines()[0]
        assert first == "continuation  ' very good'  (log p −2.00, −1.00 a token)"
        assert "logprob of  very good" in out.getvalue()

    def test_json_has_the_values_of_each_token(self) -> None:
        document = explanation_json(*self.rows())
        assert [t["text"] for t in document["continuation"]] == [" very", " good"]
        assert [t["log_prob"] for t in document["continuation"]] == [-1.5, -0.5]
        assert document["continuation"][1]["values"] == [-0.5, 0.0, 0.001, None]
        assert "continuation" not in explanation_json(*rows())
