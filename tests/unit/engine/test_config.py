from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from engine.config import (
    ExplainerConfig,
    ModelConfig,
    PromptConfig,
    SweepConfig,
    apply_overrides,
    dump_config,
    json_schema,
    load_config,
    parse_config,
)
from engine.data_section import DataConfig
from engine.errors import ConfigError
from engine.prompt_section import Shot

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))

FULL: dict[str, Any] = {
    "run": {"name": "test", "seed": 3},
    "models": [{"name": "linear", "path": "fake:linear", "options": {"bias": 0.5}}],
    "data": {"path": "reviews.jsonl", "inputs": {"text": "text"}},
    "prompts": [
        {
            "name": "review",
            "template": "Review: {text}\nSentiment:",
            "labels": {"negative": " negative", "positive": " positive"},
            "shots": [{"inputs": {"text": "good"}, "label": "positive"}],
        }
    ],
    "explainers": [{"name": "lime", "num_samples": 100, "operator": "mask", "replacement": "_"}],
    "metrics": {},
    "cluster": {},
}


def full(**changes: Any) -> dict[str, Any]:
    """Return plain values; `a__0__b=c` sets a nested key, `None` takes a key away."""
    raw = copy.deepcopy(FULL)
    for key, value in changes.items():
        *parents, last = [int(k) if k.isdigit() else k for k in key.split("__")]
        node: Any = raw
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return raw


def refused(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        parse_config(raw)
    return str(error.value)


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"modles": []}, ["modles: unknown key 'modles'", "did you mean 'models'?"]),
            ({"run__sed": 1}, ["run.sed: unknown key", "did you mean 'seed'?"]),
            ({"models__0__pth": "x"}, ["models.0.pth", "did you mean 'path'?"]),
            ({"data__lable": "y"}, ["data.lable", "did you mean 'label'?"]),
            ({"prompts__0__tempalte": "x"}, ["prompts.0.tempalte", "'template'"]),
            ({"prompts__0__shots": [{"inputs": {}, "lable": "positive"}]}, ["'label'"]),
            ({"metrics__fraction": [0.1]}, ["metrics.fraction", "did you mean 'fractions'?"]),
            ({"cluster__shard": 1}, ["cluster.shard", "did you mean 'shard_size'?"]),
            ({"cluster__zzzz": 1}, ["cluster.zzzz", "known: address"]),
        ],
    )
    def test_unknown_key_names_the_nearest(self, changes: dict[str, Any], said: list[str]) -> None:
        message = refused(full(**changes))
        for part in said:
            assert part in message

    @pytest.mark.parametrize(
        ("explainer", "said"),
        [
            ("limee", ["explainers.0", "unknown explainer 'limee'", "did you mean 'lime'?"]),
            ({"name": "shapley"}, ["unknown explainer 'shapley'"]),
            (
                {"name": "lime", "num_sample": 3},
                ["parameter of lime 'num_sample'", "did you mean 'num_samples'?"],
            ),
            ({"name": "lime", "class_": "gold"}, ["did you mean 'class'?"]),
            ({"name": "occlusion", "num_samples": 3}, ["parameter of occlusion 'num_samples'"]),
            ({"name": "lime", "num_samples": 0}, ["explainers.0", "num_samples", "at least 1"]),
            ({"name": "lime", "num_samples": "many"}, ["num_samples", "'many'"]),
            ({"name": "lime", "compat": "shap"}, ["compat", "'lime'"]),
            ({"name": "lime", "features": "word"}, ["explainers.0.features", "'words'"]),
            ({"name": "lime", "operator": "mask"}, ["operator 'mask' needs `replacement"]),
            ({"name": "lime", "operator": "mask", "replacement": ""}, ["needs `replacement"]),
            ({"name": "lime", "replacement": "x"}, ["`replacement` goes with"]),
            ({"name": "lime", "compat": "lime", "operator": "pad"}, ["compat", "`pad`"]),
            ({"name": "lime", "target": "odds"}, ["explainers.0.target", "'log_odds'"]),
            ({"name": "lime", "class": "postive"}, ["class of lime", "did you mean 'positive'?"]),
            ({"name": "lime", "seed": -1}, ["explainers.0.seed", "-1"]),
            ({"name": "lime", "sampling": "shared"}, ["explainers.0.sampling", "'pool'"]),
            ({"name": "exact", "sampling": "own"}, ["exact has no `sampling`", "lime"]),
            ({"name": "lime", "compat": "lime", "sampling": "pool"}, ["sampling", "compat: lime"]),
        ],
    )
    def test_explainers(self, explainer: Any, said: list[str]) -> None:
        message = refused(full(explainers=[explainer]))
        for part in said:
            assert part in message

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"models": []}, ["models", "at least 1"]),
            ({"models": None}, ["models", "required"]),
            ({"data": None}, ["data", "required"]),
            ({"prompts": None}, ["prompts", "required"]),
            ({"models__0__path": None}, ["models.0.path"]),
            ({"models__0__precision": "fp8"}, ["models.0.precision", "'fp8'"]),
            ({"models__0__backend": "transformers"}, ["models.0", "fake:linear", "backend"]),
            ({"models": ["fake:linear", "fake:linear"]}, ["models", "fake:linear", "twice"]),
            ({"explainers": ["lime", "lime"]}, ["explainers", "lime", "`id`"]),
            ({"run__name": "a/b"}, ["run.name", "a/b"]),
            ({"run__seed": -1}, ["run.seed"]),
            ({"run": 5}, ["run", "5"]),
            ({"data__limit": 0}, ["data.limit", "0"]),
            ({"data__label_names": ["negative", "positve"]}, ["label_names", "'positive'"]),
            ({"data__label_names": ["negative", "negative"]}, ["label_names", "twice"]),
            ({"prompts__0__template": None}, ["prompts.0", "`template` or `chat`"]),
            ({"prompts__0__chat": [{"role": "user", "content": "x"}]}, ["`template` or `chat`"]),
            ({"prompts__0__labels": {}}, ["prompts.0", "labels"]),
            ({"prompts__0__labels": {True: " yes", False: " no"}}, ["prompts.0.labels"]),
            ({"prompts__0__shots__0__label": "neutral"}, ["prompts.0", "neutral"]),
            ({"prompts__0__normaliser": "none"}, ["prompts.0.normaliser"]),
            ({"metrics__fractions": []}, ["metrics.fractions"]),
            ({"metrics__fractions": [0.5, 1.5]}, ["metrics.fractions"]),
            ({"metrics__random_orders": 1}, ["metrics.random_orders"]),
            ({"cluster__shard_size": 0}, ["cluster.shard_size"]),
            ({"cluster__gpus_per_host": float("inf")}, ["cluster.gpus_per_host"]),
        ],
    )
    def test_values(self, changes: dict[str, Any], said: list[str]) -> None:
        message = refused(full(**changes))
        for part in said:
            assert part in message

    def test_every_error_is_told_at_once(self) -> None:
        message = refused(full(run__seed=-1, data__limit=0))
        assert "run.seed" in message
        assert "data.limit" in message

    @pytest.mark.parametrize("key", ["role", "content"])
    def test_a_message_of_a_chat_has_role_and_content(self, key: str) -> None:
        message = {"role": "user", "content": "{text}"}
        del message[key]
        raw = full(prompts__0__template=None, prompts__0__chat=[message], prompts__0__shots=None)
        assert "message 0 of `chat`" in refused(raw)

    def test_shots_of_a_chat_are_messages(self) -> None:
        chat = [{"role": "user", "content": "{text}"}]
        raw = full(prompts__0__template=None, prompts__0__chat=chat)
        assert "`shots` go with `template`" in refused(raw)

    def test_log_odds_need_two_labels(self) -> None:
        raw = full(prompts__0__labels={"positive": " positive"})
        assert "log_odds needs two labels" in refused(raw)
        raw["explainers"][0]["target"] = "logprob"
        assert parse_config(raw).label_names == ("positive",)

    def test_prompts_share_their_label_names(self) -> None:
        raw = full()
        other = {**raw["prompts"][0], "name": "b", "shots": [], "labels": {"no": "n", "yes": "y"}}
        raw["prompts"].append(other)
        assert "same label names" in refused(raw)


class TestForms:
    def test_strings_stand_for_sections(self) -> None:
        config = parse_config(
            full(models=["fake:linear"], data="bundled:reviews", explainers=["lime"])
        )
        assert config.models == [ModelConfig(path="fake:linear")]
        assert config.data == DataConfig(path="bundled:reviews")
        assert config.explainers == [ExplainerConfig(name="lime")]

    def test_prompt_is_prompts_of_one(self) -> None:
        raw = full()
        [prompt] = raw.pop("prompts")
        assert parse_config({**raw, "prompt": prompt}) == parse_config(full())

    def test_prompt_and_prompts_are_not_both_given(self) -> None:
        raw = full()
        assert "`prompt` or `prompts`" in refused({**raw, "prompt": raw["prompts"][0]})

    def test_errors_name_the_key_that_was_written(self) -> None:
        raw = full(prompts__0__tmplate="x")
        [prompt] = raw.pop("prompts")
        assert "prompt.tmplate:" in refused({**raw, "prompt": prompt})

    def test_names_in_tables(self) -> None:
        assert ModelConfig(path="owner/model-1b").label == "model-1b"
        assert ModelConfig(path="owner/model-1b", name="m").label == "m"
        assert DataConfig(path="a/b/reviews.jsonl.gz").table_name == "reviews"
        assert DataConfig(path="bundled:reviews").table_name == "reviews"
        assert DataConfig(path="stanfordnlp/sst2").table_name == "sst2"
        assert ExplainerConfig(name="lime").label == "lime"
        assert ExplainerConfig.model_validate({"name": "lime", "compat": "lime"}).label == (
            "lime.compat_lime"
        )
        assert ExplainerConfig(name="lime", id="mine").label == "mine"


class TestLoad:
    def test_reads_a_file_with_overrides(self, tmp_path: Path) -> None:
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(FULL), encoding="utf-8")
        config = load_config(file, ["run.seed=9", "data.limit=2"])
        assert config == parse_config(full(run__seed=9, data__limit=2))

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("models: [", "not valid YAML"),
            ("- a\n- b\n", "a sweep is a mapping"),
            ("", "a sweep is a mapping"),
            ("run: {seed: 1}\nrun: {seed: 2}\n", "the key 'run' stands twice"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, said: str) -> None:
        file = tmp_path / "sweep.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=said) as error:
            load_config(file)
        assert str(file) in str(error.value)

    def test_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="UTF-8"):
            load_config(tmp_path / "a.yaml")

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
            load_config(tmp_path / "none.yaml")
        with pytest.raises(ConfigError, match="directory"):
            load_config(tmp_path)

    def test_merge_keys_may_be_overridden(self, tmp_path: Path) -> None:
        file = tmp_path / "sweep.yaml"
        models = "models: [&a {name: a, path: 'fake:linear'}, {<<: *a, name: b}]\n"
        file.write_text(models + yaml.safe_dump(full(models=None)), encoding="utf-8")
        assert [m.label for m in load_config(file).models] == ["a", "b"]

    def test_a_single_wrong_value_is_one_line(self, tmp_path: Path) -> None:
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(full(run__sed=1)), encoding="utf-8")
        with pytest.raises(ConfigError) as error:
            load_config(file)
        assert len(str(error.value).splitlines()) == 1


class TestOverrides:
    @pytest.mark.parametrize(
        ("assignment", "place", "value"),
        [
            ("run.seed=9", ("run", "seed"), 9),
            ("run.seed = 9", ("run", "seed"), 9),
            ("cluster.hosts=2", ("cluster", "hosts"), 2),
            ("models.0.precision=bf16", ("models", 0, "precision"), "bf16"),
            ("explainers.0.num_samples=64", ("explainers", 0, "num_samples"), 64),
            ("prompts.0.labels.positive=' good'", ("prompts", 0, "labels", "positive"), " good"),
            ("metrics.fractions=[0.1, 0.2]", ("metrics", "fractions"), [0.1, 0.2]),
            ("data.limit=", ("data", "limit"), None),
            ("data={path: a=b.csv}", ("data", "path"), "a=b.csv"),
            ("explainers.0={name: exact}", ("explainers", 0), {"name": "exact"}),
        ],
    )
    def test_sets_a_value(self, assignment: str, place: tuple[Any, ...], value: Any) -> None:
        node: Any = apply_overrides(full(), [assignment])
        for part in place:
            node = node[part]
        assert node == value

    def test_new_sections_are_made(self) -> None:
        assert apply_overrides({}, ["a.b.c=1"]) == {"a": {"b": {"c": 1}}}
        assert apply_overrides({"cluster": None}, ["cluster.hosts=1"]) == {"cluster": {"hosts": 1}}

    def test_below_a_shorthand(self) -> None:
        raw = {"models": ["fake:linear"], "data": "a.csv", "explainers": ["lime"]}
        changes = ["models.0.precision=fp16", "data.limit=3", "explainers.0.num_samples=9"]
        assert apply_overrides(raw, changes) == {
            "models": [{"path": "fake:linear", "precision": "fp16"}],
            "data": {"path": "a.csv", "limit": 3},
            "explainers": [{"name": "lime", "num_samples": 9}],
        }

    def test_later_ones_win(self) -> None:
        assert apply_overrides({}, ["a=1", "a=2"]) == {"a": 2}

    @pytest.mark.parametrize(
        ("assignment", "said"),
        [
            ("run.seed", "key.subkey=value"),
            ("=3", "key.subkey=value"),
            ("run.seed.x=1", "run.seed has no keys below it"),
            ("run.name.x=1", "run.name has no keys below it"),
            ("data.path.x=1", "data.path has no keys below it"),
            ("models.1.path=x", "'1' is not an index below 1"),
            ("models.first.path=x", "'first' is not an index below 1"),
            ("models.-1=x", "'-1' is not an index"),
            ("data.limit=[1", "not valid YAML"),
            ("data={path: a, path: b}", "stands twice"),
        ],
    )
    def test_bad_assignments(self, assignment: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            apply_overrides(full(), [assignment])
        assert str(error.value).startswith(f"--set {assignment}")
        assert said in str(error.value)

    def test_an_unknown_key_is_found_by_the_check(self) -> None:
        raw = apply_overrides(full(), ["data.limt=3"])
        assert "did you mean 'limit'?" in refused(raw)


OTHER: dict[str, Any] = {
    "run.name": "other",
    "run.seed": 4,
    "run.out": "elsewhere",
    "run.store": "elsewhere",
    "run.deterministic": "example",
    "models.0.name": "other",
    "models.0.path": "fake:and_or",
    "models.0.backend": "fake",
    "models.0.precision": "bf16",
    "models.0.double_quant": False,
    "models.0.revision": "abc",
    "models.0.options": {"bias": 0.6},
    "data.name": "other",
    "data.path": "other.jsonl",
    "data.subset": "other",
    "data.split": "test",
    "data.inputs": {"text": "sentence"},
    "data.label": "gold",
    "data.label_names": ["positive", "negative"],
    "data.other_labels": "skip",
    "data.id": "id",
    "data.group": "film",
    "data.rationale": "evidence",
    "data.rationale_kind": "author_marked",
    "data.limit": 7,
    "data.explain_limit": 3,
    "prompts.0.name": "other",
    "prompts.0.template": "Text: {text}\nSentiment:",
    "prompts.0.chat": [{"role": "user", "content": "{text}"}],
    "prompts.0.add_special_tokens": False,
    "prompts.0.shots": [],
    "prompts.0.separator": "\n",
    "prompts.0.labels": {"negative": " bad", "positive": " good"},
    "prompts.0.normaliser": "vocab",
    "prompts.0.calibration": "contextual",
    "prompts.0.content_free": ["N/A"],
    "prompts.0.shots.0.inputs": {"text": "fine"},
    "prompts.0.shots.0.label": "negative",
    "explainers.0.name": "kernel_shap",
    "explainers.0.id": "other",
    "explainers.0.features": "tokens",
    "explainers.0.operator": "neutral",
    "explainers.0.replacement": "it",
    "explainers.0.target": "probability",
    "explainers.0.class": "gold",
    "explainers.0.seed": 5,
    "explainers.0.sampling": "pool",
    "explainers.0.num_samples": 101,
    "metrics.faithfulness": False,
    "metrics.fractions": [0.5],
    "metrics.random_orders": 4,
    "metrics.curve_points": 5,
    "cluster.address": "auto",
    "cluster.num_cpus": 2,
    "cluster.hosts": 2,
    "cluster.gpus_per_host": 0.5,
    "cluster.threads": 2,
    "cluster.shard_size": 9,
    "cluster.attempts": 1,
    "cluster.commit_seconds": 1.0,
}
"""A value that differs from FULL's for every key there is."""


def keys_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}.{field.alias or name}"


def every_key() -> set[str]:
    sections: dict[str, type[BaseModel]] = {
        "models.0": ModelConfig,
        "prompts.0": PromptConfig,
        "prompts.0.shots.0": Shot,
        "explainers.0": ExplainerConfig,
    }
    for name, field in SweepConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections[name] = field.annotation
    return {key for prefix, model in sections.items() for key in keys_of(model, prefix)}


class TestFingerprint:
    def test_every_key_is_looked_at(self) -> None:
        """A new key needs a decision: does it change results?"""
        generation = {f"prompts.0.{key}" for key in ("task", "continuation", "max_new_tokens")}
        apart = {"models.0.adapters", "models.0.replicate"} | generation
        assert every_key() | {"explainers.0.num_samples"} == set(OTHER) | apart

    def test_adapters_and_replicates_change_results(self) -> None:
        with_adapters = [
            full(models=[{"path": "some/model", "adapters": adapters}])
            for adapters in (["none"], ["none", "tuned"], ["tuned", "none"])
        ]
        again = full(models=[{"path": "some/model", "replicate": 1}])
        prints = {parse_config(raw).run_fingerprint() for raw in (*with_adapters, again)}
        assert len(prints) == 4

    @pytest.mark.parametrize("key", OTHER)
    def test_covers_exactly_what_changes_results(self, key: str) -> None:
        raw = full()
        if key == "prompts.0.chat":
            del raw["prompts"][0]["template"], raw["prompts"][0]["shots"]
        before = parse_config(full())
        after = parse_config(apply_overrides(raw, [f"{key}={json.dumps(OTHER[key])}"]))
        assert after != before
        scheduling = key in ("run.out", "run.store") or key.startswith("cluster.")
        assert (after.run_fingerprint() == before.run_fingerprint()) == scheduling

    def test_order_of_factors_counts_but_not_of_keys(self) -> None:
        raw = full(explainers=["lime", "exact"])
        before = parse_config(raw).run_fingerprint()
        assert parse_config(dict(reversed(raw.items()))).run_fingerprint() == before
        raw["explainers"].reverse()
        assert parse_config(raw).run_fingerprint() != before

    def test_writing_out_a_default_changes_nothing(self) -> None:
        config = parse_config(full())
        assert parse_config(dump_config(config)).run_fingerprint() == config.run_fingerprint()


@pytest.mark.parametrize("key", [None, *OTHER])
def test_dump_reads_back(key: str | None) -> None:
    raw = full()
    if key == "prompts.0.chat":
        del raw["prompts"][0]["template"], raw["prompts"][0]["shots"]
    if key is not None:
        apply_overrides(raw, [f"{key}={json.dumps(OTHER[key])}"])
    config = parse_config(raw)
    dumped = dump_config(config)
    assert parse_config(json.loads(json.dumps(dumped))) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(dumped))) == config


class TestShipped:
    def test_there_are_some(self) -> None:
        assert {file.stem for file in SHIPPED} >= {"demo", "fake", "sst2"}

    @pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
    def test_parses_and_fits_the_schema(self, file: Path) -> None:
        load_config(file)
        jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), json_schema())


class TestJsonSchema:
    def test_is_a_schema(self) -> None:
        jsonschema.Draft202012Validator.check_schema(json_schema())

    @pytest.mark.parametrize(
        "changes",
        [
            {"models": None},
            {"run__sed": 1},
            {"run__seed": -1},
            {"prompts": None},
            {"models": [3]},
            {"explainers__0__operator": "cut"},
        ],
    )
    def test_refuses_what_the_check_refuses(self, changes: dict[str, Any]) -> None:
        refused(full(**changes))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(full(**changes), json_schema())

    def test_every_key_has_a_description(self) -> None:
        definitions = json_schema()["$defs"]
        for name, definition in definitions.items():
            for key, value in definition["properties"].items():
                assert value.get("description"), f"{name}.{key}"


GENERATION: dict[str, Any] = {
    "models": ["some/model"],
    "data": {"path": "a.jsonl", "inputs": {"text": "text", "answer": "reply"}},
    "prompt": {"template": "{text} =>", "task": "generation"},
    "explainers": ["lime", {"name": "occlusion", "class": 2}, "guest:shap.kernel"],
}


def generating(*assignments: str) -> dict[str, Any]:
    return apply_overrides(copy.deepcopy(GENERATION), assignments)


class TestGeneration:
    def test_defaults_are_those_of_continuations(self) -> None:
        config = parse_config(GENERATION)
        assert config.task == "generation"
        assert [e.target for e in config.explainers] == ["logprob"] * 3
        assert [e.class_ for e in config.explainers] == ["whole", "2", "whole"]
        task = config.prompts[0].generation
        assert task is not None
        assert (task.given, task.max_new_tokens) == (None, 16)
        assert config.label_names == ()

    def test_dump_reads_back(self) -> None:
        config = parse_config(generating("prompt.max_new_tokens=4"))
        assert parse_config(json.loads(json.dumps(dump_config(config)))) == config
        jsonschema.validate(GENERATION, json_schema())

    @pytest.mark.parametrize(
        "assignment",
        ["prompt.continuation=answer", "prompt.max_new_tokens=4", "explainers.0.class=1"],
    )
    def test_changes_are_in_the_fingerprint(self, assignment: str) -> None:
        before = parse_config(GENERATION).run_fingerprint()
        raw = generating("explainers=[{name: lime}, occlusion]")
        again = apply_overrides(copy.deepcopy(raw), [assignment])
        assert parse_config(again).run_fingerprint() != parse_config(raw).run_fingerprint()
        assert before

    @pytest.mark.parametrize(
        ("assignment", "said"),
        [
            ("prompt.labels={a: b}", "`labels` go with `task: classification`"),
            ("prompt.shots=[{inputs: {text: a}, label: b}]", "into the template"),
            ("prompt.calibration=contextual", "`calibration` is of labels"),
            ("prompt.max_new_tokens=0", "prompt.max_new_tokens"),
            ("prompt.max_new_tokens=257", "prompt.max_new_tokens"),
            ("prompt.continuation=reply", "none of data.inputs (text, answer)"),
            ("prompt={template: '{text}', task: generate}", "prompt.task"),
            ("data.label_names=[a, b]", "data.label_names"),
            ("models=['fake:linear']", "fake models score labels only"),
            ("explainers=[{name: lime, target: log_odds}]", "log_odds needs a label set"),
            ("explainers=[{name: lime, target: probability}]", "probability needs a label set"),
            ("explainers=[{name: lime, class: gold}]", "class 'gold' needs a label set"),
            ("explainers=[{name: lime, class: predicted}]", "needs a label set"),
            ("explainers=[{name: lime, class: -1}]", "token's number from 0"),
            ("explainers=[integrated_gradients]", "differentiate labels"),
        ],
    )
    def test_what_needs_labels_is_refused(self, assignment: str, said: str) -> None:
        assert said in refused(generating(assignment))

    def test_a_given_continuation_has_its_own_length(self) -> None:
        raw = generating("prompt.continuation=answer", "prompt.max_new_tokens=4")
        assert "of the model's own continuation" in refused(raw)

    @pytest.mark.parametrize("key", ["continuation=answer", "max_new_tokens=4"])
    def test_keys_go_with_their_task(self, key: str) -> None:
        raw = apply_overrides(full(), [f"prompts.0.{key}"])
        assert "goes with `task: generation`" in refused(raw)

    def test_a_sweep_has_one_task(self) -> None:
        raw = generating("explainers=[]")
        labelled = {"name": "b", "template": "{text}", "labels": {"a": " a", "b": " b"}}
        raw["prompts"] = [raw.pop("prompt"), labelled]
        assert "the same task" in refused(raw)

    def test_guests_do_not_explain_the_continuation(self) -> None:
        raw = generating("explainers=['guest:shap.partition']")
        assert "add `field:`" in refused(raw)
        parse_config(apply_overrides(raw, ["prompt.continuation=answer"]))
