from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from analysis.levels import Comparison, Level, comparisons, family_of, training_of
from engine.config import ModelConfig, load_config
from tests.unit.fake_sweep import sweep

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
LINEAR = {"name": "linear", "path": "fake:linear"}


def at(
    model: str = "linear", precision: str = "fp32", adapter: str = "none", prompt: str = "review"
) -> Level:
    return Level("reviews", model, precision, adapter, prompt)


def brief(made: list[Comparison], *kinds: str) -> list[tuple[str, str, str]]:
    """Kind and what differs, model/precision/adapter of both sides."""
    return [
        (c.kind, "/".join(c.reference[1:4]), "/".join(c.other[1:4]))
        for c in made
        if not kinds or c.kind in kinds
    ]


def config(*explainers: Any, models: Any = (LINEAR,), **changes: Any) -> Any:
    return sweep(*explainers, models=list(models), **changes)


def test_one_level_is_compared_with_nothing() -> None:
    assert comparisons([at()], config("lime")) == []
    assert comparisons([]) == []


def test_adapters_against_the_base_and_training_seeds_against_each_other() -> None:
    found = [at(adapter=a) for a in ("none", "other", "sst-seed0", "sst-seed10", "sst-seed2")]
    made = comparisons(found)
    assert brief(made, "adapter") == [
        ("adapter", "linear/fp32/none", f"linear/fp32/{a}")
        for a in ("other", "sst-seed0", "sst-seed2", "sst-seed10")
    ]
    assert [(c.reference.adapter, c.other.adapter) for c in made if c.kind == "training_seed"] == [
        ("sst-seed0", "sst-seed2"),
        ("sst-seed0", "sst-seed10"),
        ("sst-seed2", "sst-seed10"),
    ]
    assert len(made) == 7


def test_without_the_base_adapters_have_no_reference() -> None:
    made = comparisons([at(adapter="a-seed0"), at(adapter="b-seed1")])
    assert made == []  # two fine-tunings, so no training noise either


def test_precisions_against_the_finest() -> None:
    found = [at(precision=p) for p in ("nf4", "fp16", "int8", "bf16", "fp4", "fp32")]
    assert [c.other.precision for c in comparisons(found)] == ["bf16", "fp16", "int8", "nf4", "fp4"]
    assert {c.reference.precision for c in comparisons(found)} == {"fp32"}
    without = [at(precision=p) for p in ("nf4", "auto")]
    assert brief(comparisons(without)) == [("precision", "linear/auto/none", "linear/nf4/none")]


def test_each_adapter_has_its_precisions() -> None:
    found = [at(precision=p, adapter=a) for p in ("fp32", "nf4") for a in ("none", "tuned")]
    assert brief(comparisons(found), "precision") == [
        ("precision", f"linear/fp32/{a}", f"linear/nf4/{a}") for a in ("none", "tuned")
    ]
    assert len(brief(comparisons(found), "adapter")) == 2


def test_adapters_trained_once_a_precision_are_two_trainings() -> None:
    names = ("none", "both-seed0", "each-seed0", "file")
    found = [at(precision=p, adapter=a) for p in ("fp32", "nf4", "int8") for a in names]
    adapters = {
        f"linear/{precision}": {
            "both-seed0": {"digest": "d", "path": "p"},
            "each-seed0": {"digest": f"trained-{precision}", "path": precision},
            "file": {"digest": "f", "path": "p"},
        }
        for precision in ("fp32", "nf4", "int8")
    }
    kinds = ("precision", "precision_and_training")
    made = brief(comparisons(found, adapters=adapters), *kinds)
    assert sorted(made) == sorted(
        (
            "precision_and_training" if a == "each-seed0" else "precision",
            f"linear/fp32/{a}",
            f"linear/{p}/{a}",
        )
        for p in ("nf4", "int8")
        for a in names
    )
    # what run.json doesn't say is told by the name
    unknown = {(kind, at.split("/")[2]) for kind, at, _ in brief(comparisons(found), *kinds)}
    assert unknown == {
        ("precision", "none"),
        ("precision", "file"),
        ("precision_and_training", "both-seed0"),
        ("precision_and_training", "each-seed0"),
    }


def test_what_a_comparison_is_a_seed_of() -> None:
    names = ("none", "a-seed0", "a-seed1")
    found = [at(precision=p, adapter=a) for p in ("fp32", "nf4") for a in names]
    made = comparisons(found)
    trainings = {c: t for c in made if (t := training_of(c))}
    assert brief(list(dict.fromkeys(trainings.values()))) == [
        ("adapter", "linear/fp32/none", "linear/fp32/a-seed*"),
        ("adapter", "linear/nf4/none", "linear/nf4/a-seed*"),
        ("precision_and_training", "linear/fp32/a-seed*", "linear/nf4/a-seed*"),
    ]
    assert {c.kind for c in made if c not in trainings} == {"precision", "training_seed"}
    other_seed = Comparison("model", at(adapter="a-seed0"), at("b", adapter="a-seed1"))
    assert training_of(other_seed) is None


def test_models_against_the_first_of_the_configuration() -> None:
    models = [{"name": n, "path": "fake:linear"} for n in ("zeta", "beta", "alpha")]
    found = [at(n) for n in ("alpha", "beta", "zeta")]
    assert brief(comparisons(found, config(models=models))) == [
        ("model", "zeta/fp32/none", "beta/fp32/none"),
        ("model", "zeta/fp32/none", "alpha/fp32/none"),
    ]
    assert [c.reference.model for c in comparisons(found)] == ["alpha", "alpha"]


def test_models_at_common_precisions_and_adapters_or_at_the_finest_of_each() -> None:
    first = [at("a", p, x) for p in ("fp32", "nf4") for x in ("none", "sst-seed0")]
    second = [at("b", "nf4", x) for x in ("none", "sst-seed0")]
    third = [at("c", p) for p in ("int8", "bf16")]
    assert brief(comparisons([*first, *second, *third]), "model") == [
        ("model", "a/nf4/none", "b/nf4/none"),
        ("model", "a/nf4/sst-seed0", "b/nf4/sst-seed0"),
        ("model", "a/fp32/none", "c/bf16/none"),
    ]


def test_explainers_that_are_equal_but_for_the_seed() -> None:
    explainers = [
        {"name": "lime", "num_samples": 64},
        {"name": "lime", "num_samples": 64, "seed": 7, "id": "lime.7"},
        {"name": "lime", "num_samples": 32, "seed": 7, "id": "lime.small"},
        {"name": "kernel_shap", "num_samples": 64, "seed": 7},
        {"name": "lime", "num_samples": 64, "seed": 8, "id": "lime.8"},
        {"name": "lime", "num_samples": 64, "seed": 0, "id": "lime.again"},  # the run's seed
    ]
    found = [at(), at(adapter="tuned")]
    made = [c for c in comparisons(found, config(*explainers)) if c.kind == "explainer_seed"]
    assert [(c.reference.adapter, c.explainers) for c in made] == [
        (adapter, pair)
        for adapter in ("none", "tuned")
        for pair in (("lime", "lime.7"), ("lime", "lime.8"))
    ]
    assert all(c.reference == c.other for c in made)


@pytest.mark.parametrize("name", ["zero_shot_vs_finetuned", "quantization"])
def test_every_explainer_that_samples_has_its_noise_measured(name: str) -> None:
    study = load_config(CONFIGS / f"{name}.yaml")
    (first, *_) = study.models
    made = comparisons([at(first.label)], study)
    pairs = {c.explainers for c in made if c.kind == "explainer_seed"}
    assert pairs == {("kernel_shap", "kernel_shap_again"), ("lime", "lime_again")}


def test_a_replicate_is_compared_with_its_twin_alone() -> None:
    entries = [
        ModelConfig(name="linear", path="hub/linear", replicate=1),
        ModelConfig.model_validate(
            {"name": "linear", "path": "hub/linear", "adapters": ["none", "tuned"]}
        ),
        ModelConfig(name="other", path="hub/other", replicate=1),
    ]
    setting = config({"name": "lime", "id": "a"}, {"name": "lime", "id": "b", "seed": 1})
    setting = setting.model_copy(update={"models": entries})
    found = [at("linear"), at("linear", adapter="tuned"), at("linear#1"), at("other#1")]
    made = comparisons(found, setting)
    assert brief(made, "replicate") == [("replicate", "linear/fp32/none", "linear#1/fp32/none")]
    # it is no model of its own anywhere else; what has no twin is
    assert brief(made, "model") == [("model", "linear/fp32/none", "other#1/fp32/none")]
    seeded = [c.reference.model for c in made if c.kind == "explainer_seed"]
    assert seeded == ["linear", "linear", "other#1"]


def test_other_data_and_prompts_are_never_compared() -> None:
    found = [at(prompt=p, adapter=a) for p in ("one", "two") for a in ("none", "tuned")]
    found += [level._replace(data="other") for level in found]
    made = comparisons(found)
    assert len(made) == 4
    assert all(
        (c.reference.data, c.reference.prompt) == (c.other.data, c.other.prompt) for c in made
    )


def test_the_order_of_rows_changes_nothing() -> None:
    found = [at(m, p, a) for m in ("a", "b") for p in ("fp32", "int8") for a in ("none", "x-seed0")]
    made = comparisons(found)
    for seed in range(5):
        random.Random(seed).shuffle(found)
        assert comparisons(found) == made


@pytest.mark.parametrize(
    ("name", "family"),
    [("sst-seed0", ("sst", 0)), ("a-seed1-seed12", ("a-seed1", 12)), ("seed3", None), ("x", None)],
)
def test_names_that_say_their_training_seed(name: str, family: object) -> None:
    assert family_of(name) == family
