from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.bootstrap import group_codes, mean
from analysis.context import TOO_FEW
from analysis.levels import comparisons, levels
from analysis.shift import BELOW, BEYOND, WITHIN, attribution_shift_table
from analysis.shift_examples import ANSWERS, shift_examples_table, shifts
from engine.metrics.shift import BETWEEN, LEVEL, between
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
    assert found["other_adapter"].unique().sort().to_list() == ["a-seed*", "a-seed0", "a-seed1"]


def test_two_trainings_in_two_precisions_are_judged_beside_training_noise() -> None:
    rows = []
    adapters = ("none", "a-seed0", "a-seed1", "b-seed0", "b-seed1")
    for i, (precision, adapter) in enumerate(product(("fp32", "nf4"), adapters)):
        rows += explained(1, i, precision=precision, adapter=adapter)
    found, each = made(rows)
    judged = found.filter(quantity="minus_training_seed", metric="spearman")
    drift = judged.filter(kind="precision_and_training", n_seeds=1)
    assert drift["adapter"].sort().to_list() == ["a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    assert judged.filter(kind="precision").is_empty()  # of the base, in which nothing was trained
    noise = each.filter(pl.col("kind") == "training_seed", pl.col("adapter") == "a-seed0")
    assert noise["precision"].unique().sort().to_list() == ["fp32", "nf4"]
    own = each.filter(kind="precision_and_training", adapter="a-seed0")
    row = only(drift, adapter="a-seed0")
    assert row["value"] == pytest.approx(own["spearman"].mean() - noise["spearman"].mean())


def test_the_seeds_of_a_training_are_averaged() -> None:
    rows = [*explained(0, 0), *explained(0.2, 9, explainer="lime.1")]
    for i, adapter in enumerate(("a-seed0", "a-seed1", "a-seed2", "b-seed0")):
        rows += explained(0.3 + i, i + 1, shift=1, adapter=adapter)
    lacking = next(r for r in rows if (r["adapter"], r["example"]) == ("a-seed1", "e003"))
    lacking["spans"] = lacking["spans"][::-1]
    found, each = made(rows, sweep(*TWINS))
    pooled = found.filter(pl.col("n_seeds") > 1)
    assert pooled.select("kind", "adapter", "other_adapter", "n_seeds").unique().rows() == [
        ("adapter", "none", "a-seed*", 3)
    ]
    assert set(pooled["quantity"]) == set(found.filter(kind="adapter")["quantity"])
    of_seed = [
        each.filter(kind="adapter", other_adapter=f"a-seed{i}", explainer="lime") for i in range(3)
    ]
    key = {"other_adapter": "a-seed*", "kind": "adapter"}
    for metric, value in (
        ("spearman", lambda frame: frame["spearman"].mean()),
        ("mass_ratio", lambda frame: frame["mass_ratio"].log().mean()),
    ):
        wanted = np.mean([value(frame) for frame in of_seed])
        row = only(found, metric=metric, quantity="between", **key)
        assert row["value"] == pytest.approx(np.exp(wanted) if metric == "mass_ratio" else wanted)
        # what one seed lacks others have
        assert (row["n"], row["n_undefined"], row["n_refused"]) == (N, 0, 0)
    for quantity in ("reference", "other", "difference", "d_z", "cohens_d"):
        gini = found.filter(metric="gini", quantity=quantity, kind="adapter")
        own = [only(gini, other_adapter=f"a-seed{i}") for i in range(3)]
        row = only(gini, **key)
        assert row["value"] == pytest.approx(np.mean([r["value"] for r in own]))
    # the noise of each seed is taken away from its own shift
    for kind in ("explainer_seed", "training_seed"):
        quantity = f"minus_{kind}"
        own = [
            only(found, metric="cosine", quantity=quantity, other_adapter=f"a-seed{i}")["value"]
            for i in range(3)
        ]
        row = only(found, metric="cosine", quantity=quantity, other_adapter="a-seed*")
        assert row["value"] == pytest.approx(np.mean(own))
        assert row["verdict"]


def test_an_interval_over_seeds_is_of_new_seeds_too() -> None:
    rows = [*explained(0, 0)]
    for i, spread in enumerate((0.1, 3.0)):  # trainings that differ much
        rows += explained(spread, i + 1, adapter=f"a-seed{i}")
    found = made(rows)[0].filter(metric="spearman", quantity="between", kind="adapter")
    near, far, both = (only(found, other_adapter=f"a-seed{i}") for i in (0, 1, "*"))
    assert near["ci_low"] > both["value"] > far["ci_high"]
    assert both["ci_low"] < far["value"] + 0.1
    assert both["ci_high"] > near["value"] - 0.1


def three_labels(adapter: str, label: int, values: np.ndarray, **more: Any) -> tuple[Rows, Rows]:
    """Predictions of a label of three and attributions [N, L, F] that report it."""
    probabilities = [0.8 if i == label else 0.1 for i in range(3)]
    predictions, rows = [], []
    for i, by_label in enumerate(values.tolist()):
        predictions.append(prediction(f"e{i:03d}", probabilities, 1, adapter=adapter))
        own = {"class_name": f"label{label}", "values_by_label": by_label}
        rows.append(attribution(f"e{i:03d}", by_label[label], adapter=adapter, **own, **more))
    return predictions, rows


def test_noise_is_measured_on_the_class_of_the_shift() -> None:
    """The base predicts label0, both trainings label1, of which alone they say the same."""
    rng = np.random.default_rng(0)
    base, *tuned = rng.normal(size=(3, N, 3, 8))
    tuned[1][:, 1] = tuned[0][:, 1] + 0.05 * rng.normal(size=(N, 8))
    again = [base, tuned[0].copy()]
    again[1][:, 0] = rng.normal(size=(N, 8))  # another seed moves the tuned model's label0
    sides = [
        three_labels("none", 0, base),
        three_labels("sst-seed0", 1, tuned[0]),
        three_labels("sst-seed1", 1, tuned[1]),
    ]
    twins = [
        three_labels("none", 0, again[0], explainer="lime.1"),
        three_labels("sst-seed0", 1, again[1], explainer="lime.1"),
    ]
    run = run_of(
        predictions=[row for predictions, _ in sides for row in predictions],
        attributions=[row for _, rows in (*sides, *twins) for row in rows],
    )
    found = shifts(run, comparisons(levels(run.predictions), sweep(*TWINS)))
    table = attribution_shift_table(found)
    key = {"metric": "spearman", "other_adapter": "sst-seed0", "explainer": "lime"}
    shift = only(table, kind="adapter", quantity="between", **key)["value"]
    assert abs(shift) < 0.1

    def on_label0(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return between(a[:, 0], b[:, 0])["spearman"]

    training = only(table, quantity="minus_training_seed", **key)
    assert training["value"] == pytest.approx(shift - on_label0(*tuned).mean())
    assert training["verdict"] == WITHIN
    # the table of the noise itself is on the class that its own reference predicts
    own = only(table, metric="spearman", kind="training_seed", quantity="between")
    assert own["value"] > 0.9
    # the explainer's noise is the mean of the base's, which is none, and of the tuned model's
    estimator = only(table, quantity="minus_explainer_seed", **key)
    both = [on_label0(base, again[0]), on_label0(tuned[0], again[1])]
    assert estimator["value"] == pytest.approx(shift - np.mean(both))


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
