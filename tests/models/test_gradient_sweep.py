"""Gradient explainers beside the others: a tiny real model, from the configuration to the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from actors.host import Host
from engine import schema
from engine.config import parse_config
from engine.exchange import HostReply, HostRequest
from engine.plan import Pair, Plan, build_plan, shard
from engine.results import UnitResult, result_digest
from engine.step import Round, run_in_process, step
from engine.types import Example
from jobs.estimate import count
from jobs.facts import facts_of, host_spec

pytestmark = pytest.mark.models

TEXTS = ("A fine film, and never dull.", "awful", " … ", "A fine film, and never dull.")
GRADIENTS = ("integrated_gradients", "gradient_x_input", "ig_occlusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama that reads bytes."""
    path = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(path)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.1)
    model.save_pretrained(path)
    return path


def plan_of(folder: Path, *explainers: Any, **changes: Any) -> tuple[Plan, Pair]:
    raw: dict[str, Any] = {
        "models": [{"name": "tiny", "path": str(folder)}],
        "data": "bundled:reviews",
        "prompt": {
            "template": "Review: {text}\nSentiment:",
            "labels": {"negative": " bad", "positive": " good"},
            **changes.pop("prompt", {}),
        },
        "explainers": list(explainers),
        "metrics": {"faithfulness": True, "random_orders": 2},
        **changes,
    }
    config = parse_config(raw)
    facts, _ = facts_of(config)
    examples = [Example(f"e{i}", {"text": text}) for i, text in enumerate(TEXTS)]
    plan = build_plan(config, examples, facts, "store")
    return plan, next(iter(plan.pairs.values()))


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    _, pair = plan_of(folder)
    made = Host(host_spec(pair.model))
    made.load()
    yield made
    made.stop()


def run(host: Host, plan: Plan, pair: Pair, **parts: Any) -> UnitResult:
    [unit] = shard(pair, plan.examples, len(TEXTS))
    parts = {"gradients": host.gradients, **parts}
    return run_in_process(pair.context, unit, host.load().numerics, host.score, **parts)


def rows_of(result: UnitResult, table: str, explainer: str) -> list[dict[str, Any]]:
    return [row for row in result.tables[table].to_pylist() if row["explainer"] == explainer]


@pytest.fixture(scope="module")
def result(host: Host, folder: Path) -> UnitResult:
    plan, pair = plan_of(folder, *GRADIENTS, {"name": "lime", "num_samples": 60})
    return run(host, plan, pair)


class TestRows:
    @pytest.mark.parametrize("name", GRADIENTS)
    def test_every_example_has_its_row(self, result: UnitResult, name: str) -> None:
        assert result.tables["failures"].num_rows == 0
        rows = rows_of(result, "attributions", name)
        lime = rows_of(result, "attributions", "lime")
        assert [r["n_features"] for r in rows] == [6, 1, 0, 6]
        for row, other in zip(rows, lime, strict=True):
            for column in ("spans", "features", "operator", "target", "class_name", "masked_on"):
                assert row[column] == other[column]
            assert row["full_value"] == pytest.approx(other["full_value"], abs=1e-4)
            assert len(row["values_by_label"]) == 2
            assert row["method"] == name

    def test_values_base_and_residual_make_the_full_value(self, result: UnitResult) -> None:
        for name in GRADIENTS:
            for row in rows_of(result, "attributions", name):
                total = row["base"] + sum(row["values"]) + row["residual"]
                assert total == pytest.approx(row["full_value"], abs=1e-9)

    def test_diagnostics_say_how(self, result: UnitResult) -> None:
        rows = rows_of(result, "attributions", "integrated_gradients")
        facts = json.loads(rows[0]["diagnostics"])
        assert facts["baseline"] == "mean"
        assert facts["converged"] is True
        assert rows[0]["evaluations"] >= 2 + facts["steps"]
        assert [r["status"] for r in rows] == ["ok", "ok", "no_features", "ok"]
        row = rows_of(result, "attributions", "ig_occlusion")[0]
        curve = json.loads(row["diagnostics"])["curve"]
        assert len(curve) == 6
        assert curve[0] == pytest.approx(row["full_value"], abs=1e-4)
        assert curve[-1] == pytest.approx(row["base"])

    def test_metrics_run_on_them_as_on_the_others(self, result: UnitResult) -> None:
        lime = rows_of(result, "metrics", "lime")
        for name in GRADIENTS:
            rows = rows_of(result, "metrics", name)
            assert [(r["example"], r["metric"]) for r in rows] == [
                (r["example"], r["metric"]) for r in lime
            ]
            assert [r["random"] for r in rows] == [r["random"] for r in lime]

    def test_their_cost_is_theirs_and_equal_texts_share_it(self, result: UnitResult) -> None:
        rows = [
            row
            for row in result.tables["timings"].to_pylist()
            if row["consumer"] == "integrated_gradients"
        ]
        assert [r["example"] for r in rows] == ["e0", "e1", "e3"]
        first, _, again = rows
        assert first["evaluations_asked"] == first["evaluations_new"] > 20
        assert first["host_seconds"] == first["standalone_seconds"] > 0
        assert (again["evaluations_asked"], again["evaluations_new"]) == (
            first["evaluations_asked"],
            0,
        )


class TestKinds:
    @pytest.mark.parametrize("features", ["words", "tokens", "sentences"])
    def test_values_of_larger_features_are_sums(
        self, host: Host, folder: Path, features: str
    ) -> None:
        fine = {"name": "integrated_gradients", "id": "fine", "features": "tokens"}
        plan, pair = plan_of(
            folder,
            {"name": "integrated_gradients", "features": features, "max_steps": 20},
            {**fine, "max_steps": 20},
            metrics={"faithfulness": False},
        )
        found = run(host, plan, pair)
        row = rows_of(found, "attributions", "integrated_gradients")[0]
        assert row["n_features"] == {"words": 6, "tokens": 28, "sentences": 1}[features]
        if features != "words":  # whose punctuation stays, so that it is another path
            by_token = rows_of(found, "attributions", "fine")[0]
            assert sum(row["values"]) == pytest.approx(sum(by_token["values"]), abs=1e-4)

    @pytest.mark.parametrize("target", ["log_odds", "probability", "logprob"])
    def test_targets_are_those_of_the_other_explainers(
        self, host: Host, folder: Path, target: str
    ) -> None:
        common = {"target": target, "class": "positive"}
        plan, pair = plan_of(
            folder,
            {"name": "integrated_gradients", **common},
            {"name": "occlusion", **common},
            prompt={"calibration": "contextual", "labels": {"negative": "no", "positive": "y"}},
            metrics={"faithfulness": False},
        )
        found = run(host, plan, pair)
        mine = rows_of(found, "attributions", "integrated_gradients")
        others = rows_of(found, "attributions", "occlusion")
        for row, other in zip(mine, others, strict=True):
            assert row["full_value"] == pytest.approx(other["full_value"], abs=1e-4)
            assert row["status"] in ("ok", "no_features")

    def test_what_does_not_converge_says_so_and_is_measured_all_the_same(
        self, host: Host, folder: Path
    ) -> None:
        plan, pair = plan_of(
            folder,
            {
                "name": "integrated_gradients",
                "steps": 1,
                "max_steps": 1,
                "baseline": "zero",
                "value_range": 1e-6,
            },
        )
        found = run(host, plan, pair)
        rows = rows_of(found, "attributions", "integrated_gradients")
        assert rows[0]["status"] == "not_converged"
        assert rows_of(found, "metrics", "integrated_gradients")


class TestFailures:
    def test_a_baseline_that_is_not_there_fails_its_explainer_only(
        self, host: Host, folder: Path
    ) -> None:
        plan, pair = plan_of(
            folder, {"name": "integrated_gradients", "baseline": "pad"}, "occlusion"
        )
        found = run(host, plan, pair)
        rows = rows_of(found, "failures", "integrated_gradients")
        assert [r["code"] for r in rows] == ["no_gradients"] * 3
        assert "names no padding token: use baseline mean" in rows[0]["message"]
        assert len(rows_of(found, "attributions", "occlusion")) == 4

    def test_without_gradients_the_others_go_on(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(folder, "gradient_x_input", "occlusion")
        [unit] = shard(pair, plan.examples, len(TEXTS))
        found = run_in_process(pair.context, unit, host.load().numerics, host.score)
        rows = rows_of(found, "failures", "gradient_x_input")
        assert "only scores" in rows[0]["message"]
        assert len(rows_of(found, "attributions", "occlusion")) == 4


class TestRounds:
    def test_a_unit_whose_scores_are_known_asks_for_gradients_alone(
        self, host: Host, folder: Path
    ) -> None:
        plan, pair = plan_of(folder, "integrated_gradients", metrics={"faithfulness": False})
        [unit] = shard(pair, plan.examples, len(TEXTS))
        numerics = host.load().numerics
        first = step(pair.context, unit, 1, numerics, [])
        assert first.request is not None
        assert first.gradients is not None
        assert first.gradients.num_rows == 2  # of four texts one is empty and two are equal
        request = HostRequest(first.request, first.gradients)
        assert request.sequences == first.request.num_rows + 2
        scored = Round(first.lookups, host.score(request.scores))
        second = step(pair.context, unit, 1, numerics, [scored])
        assert second.request is not None
        assert second.gradients is not None
        assert second.request.num_rows == 0
        reply = HostReply(host.score(second.request), host.gradients(second.gradients))
        assert reply.seconds > 0
        last = Round(second.lookups, reply.scores, reply.gradients)
        assert step(pair.context, unit, 1, numerics, [scored, last]).result is not None

    def test_a_step_is_a_pure_function(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(folder, *GRADIENTS)
        kept: dict[str, Any] = {}

        def once(request: Any) -> Any:
            key = repr(request.column("key").to_pylist())
            return kept.setdefault(key, host.gradients(request))

        digests = {result_digest(run(host, plan, pair, gradients=once).tables) for _ in range(2)}
        assert len(digests) == 1

    def test_the_plan_counts_what_is_asked(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(
            folder,
            {"name": "integrated_gradients", "max_steps": 20},
            "gradient_x_input",
            metrics={"faithfulness": False},  # whose order of removal depends on the values
        )
        counted = count(pair, plan.examples, len(TEXTS))
        rows = run(host, plan, pair).tables["timings"].to_pylist()
        assert counted.failures == 0
        assert counted.evaluations == sum(r["evaluations_new"] for r in rows)

    def test_labels_are_summed_over_their_tokens(self, result: UnitResult) -> None:
        row = result.tables["predictions"].to_pylist()[0]
        odds = np.subtract(*row["log_probs"][::-1])
        mine = rows_of(result, "attributions", "integrated_gradients")[0]
        sign = 1 if mine["class_name"] == "positive" else -1
        assert mine["full_value"] == pytest.approx(sign * odds, abs=1e-4)
        assert schema.ATTRIBUTIONS.names[0] == "unit"
