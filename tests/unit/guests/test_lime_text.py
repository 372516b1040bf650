from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lime.lime_text import LimeTextExplainer

from tests.unit.fake_sweep import run_texts, sweep
from tests.unit.guests.by_hand import TEXTS, ours, predict


def spans_by_feature(row: dict[str, Any]) -> list[list[tuple[int, int]]]:
    found: list[list[tuple[int, int]]] = [[] for _ in range(row["n_features"])]
    for span in row["spans"]:
        found[span["feature"]].append((span["start"], span["end"]))
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"num_samples": 120, "num_features": 4},
        {"num_samples": 120, "feature_selection": "lasso_path", "num_features": 3},
        {"num_samples": 150, "bow": False},
        {"num_samples": 150, "bow": False, "mask_string": "_", "kernel_width": 10},
    ],
    ids=lambda p: "-".join(map(str, p.values())) or "defaults",
)
def test_equals_lime_by_hand(text: str, params: dict[str, Any]) -> None:
    own = {k: params[k] for k in ("bow", "mask_string", "feature_selection") if k in params}
    if "kernel_width" in params:
        own["kernel_width"] = params["kernel_width"]
    called = {k: params[k] for k in ("num_samples", "num_features") if k in params}
    theirs = LimeTextExplainer(random_state=5, **own).explain_instance(text, predict, **called)
    row = ours(text, name="guest:lime", seed=5, **{"class": "positive"}, **params)
    values = np.zeros(row["n_features"])
    for feature, weight in theirs.local_exp[1]:
        values[feature] = weight
    np.testing.assert_allclose(row["values"], values, rtol=0, atol=1e-12)
    assert row["base"] == pytest.approx(theirs.intercept[1], abs=1e-12)
    assert row["r2"] == pytest.approx(theirs.score, abs=1e-12)
    indexed = theirs.domain_mapper.indexed_string
    for feature, spans in enumerate(spans_by_feature(row)):
        assert [s for s, _ in spans] == np.ravel(indexed.string_position(feature)).tolist()
        assert {text[start:end] for start, end in spans} == {indexed.word(feature)}


def test_stands_beside_the_compat_profile_as_the_same_game() -> None:
    compat = {"name": "lime", "compat": "lime", "target": "probability", "seed": 2}
    config = sweep(
        {"name": "guest:lime", "num_samples": 300, "seed": 2},
        {**compat, "num_samples": 300},
        metrics={"faithfulness": True},
    )
    rows = run_texts(config, TEXTS[0])
    theirs, ours = rows["attributions"]
    for column in ("features", "operator", "target", "spans", "n_features"):
        assert theirs[column] == ours[column]
    np.testing.assert_allclose(theirs["values"], ours["values"], atol=1e-9)
    by_name: dict[str, list[Any]] = {}
    for row in rows["metrics"]:
        by_name.setdefault(row["explainer"], []).append((row["metric"], row["value"]))
    assert by_name["guest:lime"] == by_name["lime.compat_lime"]


def test_positions_are_another_game() -> None:
    row = ours(TEXTS[0], name="guest:lime", num_samples=20, bow=False)
    assert (row["features"], row["operator"]) == ("words", "mask:UNKWORDZ")


@pytest.mark.parametrize("text", ["", " … "])
def test_no_words(text: str) -> None:
    row = ours(text, name="guest:lime")
    assert (row["status"], row["values"], row["evaluations"]) == ("no_features", [], 1)
    assert row["base"] == pytest.approx(row["full_value"])
