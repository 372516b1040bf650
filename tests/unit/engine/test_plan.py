from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from engine.commits import CommittedPart
from engine.config import SweepConfig, parse_config
from engine.data import example_key
from engine.errors import ConfigError, ModelError
from engine.facts import AdapterFacts, ModelFacts
from engine.plan import (
    build_plan,
    data_source,
    run_record,
    shard,
    with_stored,
)
from engine.plan_file import with_units_of, write_plan
from engine.types import Example
from tests.unit.fake_sweep import LABELS, CountingHost, examples_of, plan_of, raw_sweep, sweep

EXAMPLES = examples_of(["good", "bad", "so so", "dull", "fun"], [1, 0, None, 0, 1])
FACTS = ModelFacts("weights", "bytes", 4096)


def render_chat(messages: list[dict[str, str]]) -> str:
    return "".join(f"<{m['role']}>{m['content']}</>" for m in messages) + "<assistant>"


def plan_with(facts: ModelFacts, **changes: Any) -> Any:
    config = sweep("occlusion", **changes)
    return build_plan(config, EXAMPLES, {"linear/fp32": facts}, "store")


def refused(facts: ModelFacts = FACTS, **changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        plan_with(facts, **changes)
    return str(error.value)


class TestPairs:
    def test_models_times_prompts(self) -> None:
        raw = raw_sweep("occlusion", models=["fake:linear", {"path": "fake:and_or", "name": "b"}])
        prompt = raw.pop("prompt")
        raw["prompts"] = [prompt, {**prompt, "name": "short", "template": "{text} ="}]
        plan = plan_of(parse_config(raw), EXAMPLES)
        assert list(plan.pairs) == [
            "fake:linear|fp32|none|review",
            "fake:linear|fp32|none|short",
            "b|fp32|none|review",
            "b|fp32|none|short",
        ]
        assert len({p.evaluation_fingerprint for p in plan.pairs.values()}) == 4
        assert len(plan.units) == 4 * 2
        factors = plan.pairs["b|fp32|none|short"].context.factors
        assert dict(factors) == {
            "data": "reviews",
            "model": "b",
            "precision": "fp32",
            "adapter": "none",
            "prompt": "short",
        }

    def test_a_model_without_facts_is_left_out(self) -> None:
        config = sweep("occlusion", models=["fake:linear", "owner/gone"])
        plan = build_plan(config, EXAMPLES, {"fake:linear/fp32": FACTS}, "store")
        assert list(plan.pairs) == ["fake:linear|fp32|none|review"]

    def test_pairs_of_the_same_evaluations_share_a_store_but_no_unit(self) -> None:
        """Such as a prompt with and without calibration: both are run, each coalition once."""
        raw = raw_sweep("occlusion")
        prompt = raw.pop("prompt")
        raw["prompts"] = [prompt, {**prompt, "name": "calibrated", "calibration": "contextual"}]
        plan = plan_of(parse_config(raw), EXAMPLES)
        one, other = plan.pairs.values()
        assert one.evaluation_fingerprint == other.evaluation_fingerprint
        assert one.context.store == other.context.store
        assert len({unit.id for unit in plan.units}) == len(plan.units) == 4

    @pytest.mark.parametrize(
        ("changes", "same"),
        [
            ({}, True),
            ({"prompt__calibration": "contextual"}, True),
            ({"prompt__normaliser": "vocab"}, True),
            ({"explainers": ["lime"]}, True),
            ({"run__seed": 5}, True),
            ({"run__deterministic": "example"}, False),
            ({"data__path": "x.csv"}, True),
            ({"prompt__template": "Text: {text}\nSentiment:"}, False),
            ({"prompt__labels": {"negative": " bad", "positive": " good"}}, False),
            ({"models": [{"name": "linear", "path": "fake:linear", "precision": "bf16"}]}, False),
            ({"models": [{"name": "linear", "path": "fake:and_or"}]}, False),
            (
                {"models": [{"name": "linear", "path": "fake:linear", "options": {"bias": 1}}]},
                False,
            ),
        ],
    )
    def test_evaluation_fingerprint_covers_what_scores_depend_on(
        self, changes: dict[str, Any], same: bool
    ) -> None:
        before, after = (
            next(iter(plan_of(config, EXAMPLES).pairs.values())).evaluation_fingerprint
            for config in (sweep("occlusion"), sweep("occlusion", **changes))
        )
        assert (before == after) == same

    def test_the_weights_are_part_of_it(self) -> None:
        one, other = (plan_with(replace(FACTS, digest=d)) for d in ("weights", "others"))
        keys = [next(iter(p.pairs.values())).evaluation_fingerprint for p in (one, other)]
        assert keys[0] != keys[1]
        assert one.fingerprint == other.fingerprint

    def test_explainers_are_resolved(self) -> None:
        lime = {"name": "lime", "num_samples": 9, "class": "positive", "seed": 4}
        config = sweep(lime, {"name": "exact", "class": "gold"}, run__seed=7)
        tasks = next(iter(plan_of(config, EXAMPLES).pairs.values())).context.explainers
        assert [(t.label, t.seed, t.class_rule, dict(t.params)) for t in tasks] == [
            ("lime", 4, "label:positive", {"num_samples": 9, "sampling": "pool"}),
            ("exact", 7, "gold", {}),
        ]

    @pytest.mark.parametrize(
        ("explainers", "sampling"),
        [
            (["lime"], ["pool"]),
            (["lime", "kernel_shap", "occlusion", "random"], ["pool", "pool"]),
            ([{"name": "lime", "sampling": "own"}, "kernel_shap"], ["own", "pool"]),
            ([{"name": "lime", "compat": "lime"}, "kernel_shap"], ["own", "pool"]),
            (["lime", {"name": "kernel_shap", "operator": "pad"}], ["pool", "pool"]),
        ],
    )
    def test_samplers_take_from_a_pool_unless_told_otherwise(
        self, explainers: list[Any], sampling: list[str]
    ) -> None:
        tasks = next(iter(plan_of(sweep(*explainers), EXAMPLES).pairs.values())).context.explainers
        assert [t.params["sampling"] for t in tasks if "sampling" in t.params] == sampling
        assert [t.pooled for t in tasks if "sampling" in t.params] == [
            s == "pool" for s in sampling
        ]


class TestUnits:
    def test_shards_keep_order_and_lose_nothing(self) -> None:
        plan = plan_of(sweep("occlusion"), EXAMPLES)
        [pair] = plan.pairs.values()
        for size in (1, 2, 5, 50):
            units = shard(pair, EXAMPLES, size)
            assert [e for unit in units for e in unit.examples] == EXAMPLES
            assert max(len(unit.examples) for unit in units) == min(size, 5)
            assert len({unit.id for unit in units}) == len(units)

    def test_ids_are_content(self) -> None:
        plan = plan_of(sweep("occlusion"), EXAMPLES)
        again = plan_of(sweep("lime", cluster__shard_size=4), EXAMPLES)
        assert [u.id for u in again.units] == [u.id for u in plan.units]
        [pair] = plan.pairs.values()
        base = shard(pair, EXAMPLES[:1], 1)[0].id
        others: list[Callable[[], Any]] = [
            lambda: replace(EXAMPLES[0], id="x"),
            lambda: replace(EXAMPLES[0], fields={"text": "goood"}),
        ]
        for other in others:
            assert shard(pair, [other()], 1)[0].id != base
        assert shard(pair, [replace(EXAMPLES[0], label=0)], 1)[0].id == base

    def test_golden(self) -> None:
        """A change makes run folders that exist start anew, and stores unread."""
        plan = plan_with(FACTS)
        [pair] = plan.pairs.values()
        assert pair.evaluation_fingerprint == "c98a364d60e1d564"
        assert [unit.id for unit in plan.units] == ["f1766d69785e8f86", "29c9af7ce5629496"]

    def test_the_store_s_row_groups_come_with_a_unit(self) -> None:
        [unit] = plan_of(sweep("occlusion"), EXAMPLES[:2]).units
        parts = [CommittedPart("evaluations", "f", i, "u") for i in range(4)]
        index = {
            example_key({"text": "good"}): (parts[0], parts[1]),
            example_key({"text": "bad"}): (parts[1],),
            example_key({"text": "N/A"}): (parts[2],),
            example_key({"text": "other"}): (parts[3],),
        }
        assert with_stored(unit, index, []).stored == tuple(parts[:2])
        blank = example_key({"text": "N/A"})
        assert with_stored(unit, index, [blank]).stored == tuple(parts[:3])


class TestGold:
    """The gold label counts in the prompt's order, whatever the order of the data's numbers."""

    def test_label_names_in_another_order(self) -> None:
        names = ["positive", "negative"]
        config = sweep("occlusion", data__label_names=names)
        assert data_source(config).label_names == ("positive", "negative")
        # a reader gives indices into label_names: 0 is positive
        rows = [Example("a", {"text": "good"}, 0), Example("b", {"text": "bad"}, 1), EXAMPLES[2]]
        plan = plan_of(config, rows)
        order = list(LABELS)
        labels = [None if e.label is None else order[e.label] for e in plan.examples]
        assert labels == ["positive", "negative", None]
        assert [e.label for unit in plan.units for e in unit.examples] == [1, 0, None]

    def test_by_default_the_prompt_s_order(self) -> None:
        config = sweep("occlusion")
        assert data_source(config).label_names == tuple(LABELS)
        assert [e.label for e in plan_of(config, EXAMPLES).examples] == [1, 0, None, 0, 1]


class TestFingerprint:
    def test_of_configuration_and_data(self) -> None:
        base = plan_of(sweep("occlusion"), EXAMPLES).fingerprint
        assert plan_of(sweep("occlusion", cluster__shard_size=1), EXAMPLES).fingerprint == base
        assert plan_of(sweep("lime"), EXAMPLES).fingerprint != base
        changes = [
            {"id": "x"},
            {"label": 0},
            {"group": "film"},
            {"fields": {"text": "goood"}},
        ]
        for change in changes:
            changed = [replace(EXAMPLES[0], **change), *EXAMPLES[1:]]
            assert plan_of(sweep("occlusion"), changed).fingerprint != base
        assert plan_of(sweep("occlusion"), EXAMPLES[::-1]).fingerprint != base


class TestTemplates:
    def test_chat(self) -> None:
        chat = [{"role": "user", "content": "Is it good? {text}"}]
        raw = raw_sweep("occlusion")
        raw["prompt"] = {"name": "chat", "chat": chat, "labels": LABELS}
        facts = replace(FACTS, chat=render_chat)
        plan = build_plan(parse_config(raw), EXAMPLES, {"linear/fp32": facts}, "store")
        template = plan.pairs["linear|fp32|none|chat"].context.template
        assert template.render({"text": "yes"}) == "<user>Is it good? yes</><assistant>"
        assert not template.add_special_tokens

    def test_shots_stand_in_front(self) -> None:
        shots = [{"inputs": {"text": "great {x}"}, "label": "positive"}]
        plan = plan_with(FACTS, prompt__shots=shots, prompt__separator="|")
        [pair] = plan.pairs.values()
        assert pair.context.template.render({"text": "meh"}) == (
            "Review: great {x}\nSentiment: positive|Review: meh\nSentiment:"
        )

    def test_room_for_the_labels(self) -> None:
        plan = plan_with(replace(FACTS, max_tokens=100))
        [pair] = plan.pairs.values()
        assert pair.context.max_tokens == 100 - len(" negative") + 1

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"prompt__template": "no slot"}, ["prompt.template", "{text}"]),
            ({"prompt__template": "{txt} ="}, ["prompt.template", "'txt'", "did you mean {text}"]),
            ({"prompt__template": "{text} { ="}, ["prompt.template", "column"]),
            (
                {"prompt__shots": [{"inputs": {"txt": "a"}, "label": "positive"}]},
                ["prompt.shots", "'text'"],
            ),
            (
                {"prompt__labels": {"negative": " no", "positive": " none"}},
                ["prompt.labels", "'negative'", "beginning"],
            ),
            (
                {"prompt__labels": {"negative": " no", "positive": " no"}},
                ["prompt.labels", "are the same"],
            ),
            ({"prompt__labels": {"negative": "", "positive": "x"}}, ["prompt.labels", "empty"]),
        ],
    )
    def test_what_does_not_fit_names_its_key(
        self, changes: dict[str, Any], said: list[str]
    ) -> None:
        message = refused(**changes)
        for part in said:
            assert part in message

    @pytest.mark.parametrize(
        ("content", "chat", "said"),
        [
            ("{text}", None, "no chat template"),
            ("{txt}", render_chat, "unknown slot 'txt'; did you mean 'text'?"),
            ("no slot", render_chat, "{text}"),
            ("{text}", lambda messages: "nothing", "drops"),
        ],
    )
    def test_chats_that_do_not_fit(self, content: str, chat: Any, said: str) -> None:
        raw = raw_sweep("occlusion")
        messages = [{"role": "user", "content": content}]
        raw["prompt"] = {"name": "chat", "chat": messages, "labels": LABELS}
        facts = {"linear/fp32": replace(FACTS, chat=chat)}
        with pytest.raises(ConfigError) as error:
            build_plan(parse_config(raw), EXAMPLES, facts, "store")
        assert str(error.value).startswith("prompt.chat: ")
        assert said in str(error.value)

    def test_one_of_several_prompts_is_named_by_its_place(self) -> None:
        raw = raw_sweep("occlusion")
        prompt = raw.pop("prompt")
        raw["prompts"] = [prompt, {**copy.deepcopy(prompt), "name": "b", "template": "none"}]
        with pytest.raises(ConfigError, match=r"^prompts\.1\.template: "):
            plan_of(parse_config(raw), EXAMPLES)


class TestAPromptThatFitsOneModelOnly:
    FITS: ClassVar = {
        "fake:linear/fp32": replace(FACTS, chat=render_chat),
        "fake:and_or/fp32": FACTS,
    }

    @staticmethod
    def config(**changes: Any) -> SweepConfig:
        raw = raw_sweep("occlusion", models=["fake:linear", "fake:and_or"])
        chat = {"chat": [{"role": "user", "content": "{text}"}], "name": "chat", "labels": LABELS}
        raw["prompts"] = [raw.pop("prompt"), {**chat, **changes}]
        return parse_config(raw)

    def test_leaves_the_other_pairs(self) -> None:
        plan = build_plan(self.config(), EXAMPLES, self.FITS, "store")
        assert [tuple(key.split("|"))[::3] for key in plan.pairs] == [
            ("fake:linear", "review"),
            ("fake:linear", "chat"),
            ("fake:and_or", "review"),
        ]
        [lost] = plan.lost
        assert (lost.model, lost.adapter, lost.prompt) == ("fake:and_or", "", "chat")
        assert lost.code == "prompt_unfit"
        assert lost.message.startswith("prompts.1.chat: this model has no chat template")

    def test_a_chat_template_that_refuses_the_messages(self) -> None:
        def refuse(messages: list[dict[str, str]]) -> str:
            raise ModelError("the model's chat template refuses these messages")

        facts = self.FITS | {"fake:and_or/fp32": replace(FACTS, chat=refuse)}
        [lost] = build_plan(self.config(), EXAMPLES, facts, "store").lost
        assert "refuses these messages" in lost.message

    def test_one_that_fits_none_is_refused_and_said_once(self) -> None:
        bad = {"chat": [{"role": "user", "content": "{txt}"}]}
        facts = dict.fromkeys(self.FITS, replace(FACTS, chat=render_chat))
        with pytest.raises(ConfigError) as error:
            build_plan(self.config(**bad), EXAMPLES, facts, "store")
        assert str(error.value).startswith("prompts.1.chat: ")
        assert str(error.value).count("unknown slot") == 1


class TestFile:
    @staticmethod
    def config(size: int, **changes: Any) -> SweepConfig:
        return sweep("occlusion", cluster__shard_size=size, **changes)

    def test_units_stay_as_they_were_first_cut(self, tmp_path: Path) -> None:
        first = plan_of(self.config(2), EXAMPLES)
        write_plan(first, tmp_path / "plan.parquet")
        again = plan_of(self.config(5), EXAMPLES)
        assert with_units_of(again, tmp_path / "plan.parquet").units == first.units

    def test_rows_say_what_a_unit_is(self, tmp_path: Path) -> None:
        plan = plan_of(self.config(3), EXAMPLES)
        write_plan(plan, tmp_path / "plan.parquet")
        rows = pq.read_table(tmp_path / "plan.parquet").to_pylist()
        assert [row["unit"] for row in rows] == [unit.id for unit in plan.units]
        assert [row["examples"] for row in rows] == [["e0", "e1", "e2"], ["e3", "e4"]]
        assert {row["model"] for row in rows} == {"linear"}

    def test_pairs_found_later_get_units_of_their_own(self, tmp_path: Path) -> None:
        config = self.config(2, models=["fake:linear", "fake:and_or"])
        only = build_plan(config, EXAMPLES, {"fake:linear/fp32": FACTS}, "store")
        write_plan(only, tmp_path / "plan.parquet")
        facts = {f"fake:{name}/fp32": FACTS for name in ("linear", "and_or")}
        both = build_plan(config, EXAMPLES, facts, "store")
        joined = with_units_of(both, tmp_path / "plan.parquet")
        assert joined.units[:3] == only.units
        assert {unit.pair for unit in joined.units[3:]} == {"fake:and_or|fp32|none|review"}

    def test_record_reads_back(self) -> None:
        plan = plan_of(self.config(3), EXAMPLES)
        record = run_record(plan)
        assert record["run_fingerprint"] == plan.fingerprint
        config = record["config"]
        assert isinstance(config, dict)
        assert parse_config(config) == plan.config
        assert list(record["evaluation_fingerprints"]) == list(plan.pairs)  # type: ignore[call-overload]


class TestAdapters:
    FACTS = ModelFacts("weights", "bytes", 4096, adapters={"tuned": AdapterFacts("a1b2", "/there")})

    def pairs(self, *adapters: object) -> Any:
        models = [{"name": "m", "path": "some/model", "adapters": list(adapters)}]
        config = sweep("occlusion", models=models)
        return build_plan(config, EXAMPLES, {"m/fp32": self.FACTS}, "store").pairs

    def test_each_is_a_pair_with_evaluations_of_its_own(self) -> None:
        pairs = self.pairs("none", "folder/tuned")
        base, tuned = pairs.values()
        assert list(pairs) == ["m|fp32|none|review", "m|fp32|tuned|review"]
        assert (base.adapter, base.context.adapter) == (None, "")
        assert (tuned.adapter, tuned.context.adapter) == (AdapterFacts("a1b2", "/there"), "a1b2")
        assert base.evaluation_fingerprint != tuned.evaluation_fingerprint
        assert base.model == tuned.model  # so that one host serves both

    def test_its_name_is_no_part_of_what_an_evaluation_is(self) -> None:
        other = ModelFacts("weights", "bytes", 4096, adapters={"x": AdapterFacts("a1b2", "/else")})
        config = sweep(
            "occlusion", models=[{"name": "m", "path": "some/model", "adapters": ["folder/x"]}]
        )
        (renamed,) = build_plan(config, EXAMPLES, {"m/fp32": other}, "store").pairs.values()
        (tuned,) = self.pairs("folder/tuned").values()
        assert renamed.evaluation_fingerprint == tuned.evaluation_fingerprint

    def test_one_that_is_not_at_hand_leaves_the_others(self) -> None:
        assert list(self.pairs("none", "folder/gone")) == ["m|fp32|none|review"]


class TestExplainLimit:
    TEXTS = examples_of([f"text {i}" for i in range(40)], [i % 2 for i in range(40)])

    def plan(self, limit: int | None, **changes: Any) -> Any:
        config = sweep("occlusion", data__explain_limit=limit, **changes)
        return build_plan(config, self.TEXTS, {"linear/fp32": FACTS}, "store")

    def test_every_example_is_in_one_unit_and_some_are_explained(self) -> None:
        plan = self.plan(7)
        by_kind = {
            kind: [e.id for u in plan.units if u.explain is kind for e in u.examples]
            for kind in (True, False)
        }
        assert set(by_kind[True]) == plan.explained
        assert len(by_kind[True]) == 7
        assert sorted(by_kind[True] + by_kind[False]) == sorted(e.id for e in self.TEXTS)

    def test_which_ones_depends_on_seed_and_ids_alone(self) -> None:
        assert self.plan(7).explained == self.plan(7, prompt__name="other").explained
        assert self.plan(7).explained < self.plan(8).explained
        assert self.plan(7).explained != self.plan(7, run__seed=1).explained

    def test_without_a_limit_all_are_explained(self) -> None:
        for limit in (None, 40, 99):
            assert len(self.plan(limit).explained) == 40
            assert all(unit.explain for unit in self.plan(limit).units)

    def test_none_at_all(self) -> None:
        assert not any(unit.explain for unit in self.plan(0).units)

    def test_a_plan_that_was_written_reads_back(self, tmp_path: Path) -> None:
        plan = self.plan(7)
        write_plan(plan, tmp_path / "plan.parquet")
        assert with_units_of(plan, tmp_path / "plan.parquet").units == plan.units

    def test_predicted_only_asks_for_one_evaluation_an_example(self) -> None:
        plan = self.plan(1)
        [pair] = plan.pairs.values()
        with CountingHost(pair) as host:
            results = [host.run(pair, unit) for unit in plan.units if not unit.explain]
        assert len(host.sequences) == 39
        assert sum(r.tables["predictions"].num_rows for r in results) == 39
        assert sum(r.tables["attributions"].num_rows for r in results) == 0
        assert sum(r.tables["metrics"].num_rows for r in results) == 0
