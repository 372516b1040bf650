from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.bootstrap import group_codes, mean
from analysis.context import TOO_FEW
from analysis.levels import comparisons, levels
from analysis.shift import BELOW, BEYOND, WITHIN, attribution_shift_table
from analysis.shift_examples import ANSWERS, shift_examples_table, shifts
from engine.metrics.shift import BETWEEN, LEVEL
from engine.schema import FACTORS, GAME, TIDY
from tests.unit.analysis.frames import Rows, attribution, only, prediction, run_of
from tests.unit.fake_sweep import run_all, sweep

N = 30


def made(rows: Rows, config: Any = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables attribution_shift and shift_examples of attributions."""
    names = {tuple(row[k] for k in ("example", *FACTORS)): row for row in rows}
    predictions = [
        prediction(row["example"], [0.2, 0.8], 1, **{k: row[k] for k in FACTORS})
        for row in names.values()
    ]
    run = run_of(predictions=predictions, attributions=rows)
    found = shifts(run, comparisons(levels(run.predictions), config))
    return attribution_shift_table(found), shift_examples_table(found)


def explained(spread: float, seed: int, n: int = N, shift: float = 0, **more: Any) -> Rows:
    """The same n attributions each time, shifted the same way, then moved by noise of its own."""
    truth, way = np.random.default_rng(0).normal(size=(2, n, 8))
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    moved = truth + shift * way + spread * noise
    return [attribution(f"e{i:03d}", row.tolist(), **more) for i, row in enumerate(moved)]


TWINS = [
    {"name": "lime", "id": "lime"},
    {"name": "lime", "id": "lime.1", "seed": 1},
]


@cache
def study(shift: float, noise: float = 0.2, n: int = N) -> pl.DataFrame:
    """A base, two trainings of an adapter, two seeds of the explainer."""
    rows = [
        *explained(0, 0, n),
        *explained(noise, 1, n, explainer="lime.1"),
        *explained(0, 2, n, shift, adapter="sst-seed0"),
        *explained(noise, 3, n, shift, adapter="sst-seed1"),
    ]
    return made(rows, sweep(*TWINS))[0]


def test_every_statistic_has_its_rows() -> None:
    found = made([*explained(0, 0), *explained(1, 1, adapter="tuned")])[0]
    assert found.columns[: len(FACTORS)] == list(FACTORS)
    assert found.columns[-len(TIDY.names) :] == TIDY.names
    assert set(GAME) < set(found.columns)
    quantities = found.group_by("metric", maintain_order=True).agg("quantity")
    by_metric = dict(quantities.iter_rows())
    assert list(by_metric) == [*BETWEEN, *ANSWERS, *LEVEL]
    for metric in (*BETWEEN, *ANSWERS):
        assert by_metric[metric] == ["between"]
    for metric in LEVEL:
        names = ["reference", "other", "difference", "d_z", "g_av", "cohens_d"]
        assert by_metric[metric] == names


def test_values_are_means_over_the_examples() -> None:
    found, each = made([*explained(0, 0), *explained(1, 1, adapter="tuned")])
    codes = group_codes(each["example"].to_list(), each["group"].to_list())
    for metric in ("spearman", "top3_overlap", "sign_flips", "abs_cosine_gain"):
        values = each[metric].to_numpy()
        expected = mean(values, codes, ("reviews", "tiny", "fp32", "none", "plain"))
        row = only(found, metric=metric)
        assert (row["value"], row["ci_low"], row["ci_high"]) == expected[:1] + expected[2:4]
    ratio = only(found, metric="mass_ratio")
    assert ratio["value"] == pytest.approx(np.exp(np.log(each["mass_ratio"].to_numpy()).mean()))
    assert ratio["ci_low"] < ratio["value"] < ratio["ci_high"]
    mass = {q: only(found, metric="mass", quantity=q) for q in ("reference", "other", "difference")}
    assert mass["other"]["value"] - mass["reference"]["value"] == pytest.approx(
        mass["difference"]["value"]
    )
    difference = (each["mass_other"] - each["mass_reference"]).to_numpy()
    d_z = only(found, metric="mass", quantity="d_z")["value"]
    assert d_z == pytest.approx(difference.mean() / difference.std(ddof=1))


def test_what_is_undefined_and_what_is_refused_is_counted_apart() -> None:
    rows = [*explained(0, 0), *explained(1, 1, adapter="tuned")]
    rows[N].update(values=[0.0] * 8, values_by_label=[[0.0] * 8] * 2)  # no cosine
    rows[N + 1]["spans"] = rows[N + 1]["spans"][::-1]
    found = made(rows)[0]
    counts = ("n", "n_undefined", "n_refused")
    assert [only(found, metric="cosine")[c] for c in counts] == [N - 2, 1, 1]
    assert [only(found, metric="sign_flips")[c] for c in counts] == [N - 1, 0, 1]
    gini = only(found, metric="gini", quantity="difference")
    assert [gini[c] for c in counts] == [N - 2, 1, 1]


def test_a_shift_beyond_both_noises() -> None:
    found = study(shift=2.0)
    for kind in ("explainer_seed", "training_seed"):
        noise = found.filter((pl.col("kind") == kind) & (pl.col("metric") == "spearman"))
        assert noise["value"].min() > 0.5
        for metric, sign in (("spearman", -1), ("top3_overlap", -1), ("sign_flip_ratio", 1)):
            row = only(found, quantity=f"minus_{kind}", metric=metric, other_adapter="sst-seed0")
            assert sign * row["value"] > 0
            assert row["verdict"] == BEYOND, metric


def test_a_shift_within_or_below_the_noise() -> None:
    key = {"quantity": "minus_explainer_seed", "metric": "spearman", "other_adapter": "sst-seed0"}
    assert only(study(shift=0.2), **key)["verdict"] == WITHIN
    assert only(study(shift=0.02), **key)["verdict"] == BELOW
    assert only(study(shift=2.0, n=4), **key)["verdict"] == TOO_FEW


def test_noise_is_taken_away_example_by_example() -> None:
    rows = [
        *explained(0, 0),
        *explained(0.5, 1, explainer="lime.1"),
        *explained(1.5, 2, adapter="tuned"),
    ]
    found, each = made(rows, sweep(*TWINS))
    of = {kind: each.filter(pl.col("kind") == kind) for kind in ("adapter", "explainer_seed")}
    difference = of["adapter"]["spearman"] - of["explainer_seed"]["spearman"]
    row = only(found, quantity="minus_explainer_seed", metric="spearman")
    assert row["value"] == pytest.approx(difference.mean())
    # the comparison of the seeds themselves has no noise to be compared with
    assert found.filter(kind="explainer_seed", quantity="minus_explainer_seed").is_empty()


def test_training_noise_is_that_of_the_same_fine_tuning() -> None:
    rows = [*explained(0, 0)]
    for i, adapter in enumerate(("a-seed0", "a-seed1", "b-seed0", "plain")):
        rows += explained(1, i + 1, adapter=adapter)
    found = made(rows)[0].filter(pl.col("quantity") == "minus_training_seed")
    assert found["other_adapter"].unique().sort().to_list() == ["a-seed0", "a-seed1"]


def test_the_noise_of_an_explainer_is_not_that_of_another() -> None:
    rows = [
        *explained(0, 0),
        *explained(0.5, 1, explainer="lime.1"),
        *explained(0, 0, explainer="occlusion"),
        *explained(1, 2, adapter="tuned"),
        *explained(1, 2, adapter="tuned", explainer="occlusion"),
    ]
    found = made(rows, sweep(*TWINS, "occlusion"))[0]
    noisy = found.filter(pl.col("quantity") == "minus_explainer_seed")
    assert noisy["explainer"].unique().to_list() == ["lime"]


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [*explained(0, 0, group="g"), *explained(1, 1, adapter="tuned")]
    assert made(rows)[0].equals(made(rows[::-1])[0])


def test_without_comparisons_the_columns_are_there() -> None:
    full = made([*explained(0, 0), *explained(1, 1, adapter="tuned")])[0]
    empty = made(explained(0, 0))[0]
    assert empty.is_empty()
    assert empty.schema == full.schema


# ---- a whole sweep of analytic models


def test_two_models_that_are_one_have_the_same_attributions_to_the_last_bit() -> None:
    """Coalitions never depend on the model, so nothing but the model can move an explanation."""
    texts = ["a good film with a bad end and a good start", "not a dull moment in this fine work"]
    options = {"weights": {"good": 2.0, "bad": -1.5, "dull": -1.0, "fine": 1.0, "not": -0.5}}
    tuned = {"weights": {**options["weights"], "good": -1.0, "film": 0.7}}
    models = [
        {"name": name, "path": "fake:planted", "options": chosen}
        for name, chosen in (("base", options), ("again", options), ("tuned", tuned))
    ]
    lime = {"name": "lime", "num_samples": 24, "sampling": "own"}
    explainers = [{**lime, "id": "lime"}, {**lime, "id": "lime.1", "seed": 1}]
    config = sweep(*explainers, models=models)
    rows = run_all(config, texts)
    run = run_of(**{name: rows[name] for name in ("predictions", "attributions")})
    found = shifts(run, comparisons(levels(run.predictions), config))
    each = shift_examples_table(found).filter(pl.col("explainer") == "lime")
    assert each["refused"].null_count() == each.height
    again, moved, noise = (
        each.filter(**key)
        for key in (
            {"other_model": "again", "kind": "model"},
            {"other_model": "tuned", "kind": "model"},
            {"other_model": "base", "kind": "explainer_seed"},
        )
    )
    assert again["sign_flips"].sum() == 0
    assert again["mass_reference"].to_list() == again["mass_other"].to_list()
    assert (noise["mass_reference"] != noise["mass_other"]).all()
    assert (moved.sort("example")["spearman"] < noise.sort("example")["spearman"])[0]
