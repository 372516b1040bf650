"""Continuations explained: a tiny real model, from the configuration to the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from actors.generation import continue_greedily
from actors.host import Host
from engine.commits import CommitLog
from engine.config import parse_config
from engine.context import Unit
from engine.data import example_key
from engine.generations import (
    GenerationAsk,
    generation_request,
    longest_generations,
    read_generation_request,
)
from engine.plan import Pair, Plan, build_plan, shard, with_stored
from engine.results import UnitResult
from engine.schema import ScoreTask
from engine.step import run_in_process
from engine.store import index_store, write_evaluations
from engine.types import Example
from jobs.estimate import count
from jobs.facts import facts_of, host_spec
from tests.models.trainings import spoil_at

pytestmark = pytest.mark.models

TEXTS = ("A fine film, and never dull.", "awful", " … ")
ANSWERS = (" good", " no", "\n\n")
END = 255
EXPLAINERS = (
    {"name": "lime", "num_samples": 60},
    {"name": "kernel_shap", "num_samples": 60},
    "occlusion",
)


def save_tiny(path: Path, **changes: Any) -> Path:
    """Write a random Llama that reads bytes; token 255 ends its texts."""
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
        eos_token_id=END,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.3)
    for key, value in changes.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def plan_of(
    folder: Path, *explainers: Any, store: Any = "store", **prompt: Any
) -> tuple[Plan, Pair]:
    raw: dict[str, Any] = {
        "models": [{"name": "tiny", "path": str(folder)}],
        "data": {"path": "bundled:reviews", "inputs": {"text": "text", "answer": "text"}},
        "prompt": {"template": "Review: {text}\nSentiment:", "task": "generation", **prompt},
        "explainers": list(explainers),
        "metrics": {"random_orders": 2},
    }
    config = parse_config(raw)
    facts, _ = facts_of(config)
    examples = [
        Example(f"e{i}", {"text": text, "answer": answer})
        for i, (text, answer) in enumerate(zip(TEXTS, ANSWERS, strict=True))
    ]
    plan = build_plan(config, examples, facts, store)
    return plan, next(iter(plan.pairs.values()))


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    _, pair = plan_of(folder)
    made = Host(host_spec(pair.model))
    made.load()
    yield made
    made.stop()


def run(host: Host, pair: Pair, unit: Unit, **calls: Any) -> UnitResult:
    calls = {"score": host.score, "generate": host.generate, **calls}
    return run_in_process(pair.context, unit, host.load().numerics, **calls)


def run_all(host: Host, plan: Plan, pair: Pair) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for unit in plan.units:
        for name, table in run(host, pair, unit).tables.items():
            rows.setdefault(name, []).extend(table.to_pylist())
    return rows


@pytest.fixture(scope="module")
def own(host: Host, folder: Path) -> dict[str, list[dict[str, Any]]]:
    plan, pair = plan_of(folder, *EXPLAINERS, max_new_tokens=5)
    return run_all(host, plan, pair)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def by_hand(model: Any, tokenizer: Any, prompt: str, continuation: list[int]) -> list[float]:
    """Return log p of each token, one plain forward pass a token."""
    ids = tokenizer(prompt)["input_ids"]
    found = []
    with torch.inference_mode():
        for token in continuation:
            logits = model(torch.tensor([ids])).logits[0, -1]
            found.append(float(logits.log_softmax(-1)[token]))
            ids = [*ids, token]
    return found


def prompt_of(text: str) -> str:
    return f"Review: {text}\nSentiment:"


class TestOwn:
    def test_it_is_what_transformers_generates(
        self, own: dict[str, Any], model: Any, tokenizer: Any
    ) -> None:
        assert own["failures"] == []
        assert len(own["predictions"]) == len(TEXTS)
        for text, row in zip(TEXTS, own["predictions"], strict=True):
            ids = tokenizer(prompt_of(text), return_tensors="pt")
            found = model.generate(**ids, do_sample=False, max_new_tokens=5, pad_token_id=0)
            new = found[0, ids["input_ids"].shape[1] :].tolist()
            assert [part["token"] for part in row["continuation"]] == new
            assert row["labels"] == [tokenizer.decode(new)]
            assert row["gold"] is None

    def test_log_probabilities_are_those_of_plain_passes(
        self, own: dict[str, Any], model: Any, tokenizer: Any
    ) -> None:
        for text, row in zip(TEXTS, own["predictions"], strict=True):
            tokens = [part["token"] for part in row["continuation"]]
            want = by_hand(model, tokenizer, prompt_of(text), tokens)
            got = [part["log_prob"] for part in row["continuation"]]
            assert got == pytest.approx(want, abs=1e-4)
            assert row["log_probs"] == [pytest.approx(sum(want), abs=1e-4)]

    def test_tokens_add_up_to_the_whole(self, own: dict[str, Any]) -> None:
        assert {row["explainer"] for row in own["attributions"]} == {
            "lime",
            "kernel_shap",
            "occlusion",
        }
        for row in own["attributions"]:
            assert (row["target"], row["class_rule"]) == ("logprob", "whole")
            by_token = np.asarray(row["values_by_label"])
            assert by_token.shape == (5, row["n_features"])
            assert by_token.sum(axis=0) == pytest.approx(row["values"], abs=1e-6)

    def test_occlusion_is_a_difference_of_plain_passes(
        self, own: dict[str, Any], model: Any, tokenizer: Any
    ) -> None:
        [row] = [
            r for r in own["attributions"] if r["explainer"] == "occlusion" and r["example"] == "e0"
        ]
        tokens = [p["token"] for p in own["predictions"][0]["continuation"]]
        full = by_hand(model, tokenizer, prompt_of(TEXTS[0]), tokens)
        less = by_hand(model, tokenizer, prompt_of("A film, and never dull."), tokens)
        fine = TEXTS[0].index("fine")
        [feature] = [s["feature"] for s in row["spans"] if s["start"] == fine]
        drop = np.subtract(full, less)
        assert row["values"][feature] == pytest.approx(drop.sum(), abs=1e-4)
        assert np.asarray(row["values_by_label"])[:, feature] == pytest.approx(drop, abs=1e-4)
        assert row["full_value"] == pytest.approx(sum(full), abs=1e-4)

    def test_metrics_are_of_the_mean_probability_of_a_token(
        self, own: dict[str, Any], model: Any, tokenizer: Any
    ) -> None:
        [row] = [
            r
            for r in own["metrics"]
            if (r["example"], r["explainer"], r["metric"]) == ("e1", "occlusion", "sufficiency")
        ]
        assert row["value"] == pytest.approx(0.0)  # of one word all is kept
        [drop] = [
            r
            for r in own["metrics"]
            if (r["example"], r["explainer"], r["metric"])
            == ("e1", "occlusion", "comprehensiveness")
        ]
        tokens = [p["token"] for p in own["predictions"][1]["continuation"]]
        full = by_hand(model, tokenizer, prompt_of(TEXTS[1]), tokens)
        less = by_hand(model, tokenizer, prompt_of(""), tokens)
        want = np.exp(np.mean(full)) - np.exp(np.mean(less))
        assert drop["value"] == pytest.approx(want, abs=1e-5)

    def test_generating_has_its_cost(self, own: dict[str, Any], tokenizer: Any) -> None:
        rows = [r for r in own["timings"] if r["consumer"] == "generation"]
        assert [r["evaluations_new"] for r in rows] == [1, 1, 1]
        lengths = [len(tokenizer(prompt_of(text))["input_ids"]) for text in TEXTS]
        assert [r["tokens_new"] for r in rows] == [n + 4 for n in lengths]
        assert all(r["host_seconds"] > 0 for r in rows)

    def test_the_plan_counts_what_is_asked(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(folder, "occlusion", max_new_tokens=5)
        pair = replace(pair, context=replace(pair.context, faithfulness=None))
        counted = count(pair, plan.examples, 4)
        rows = [
            r for unit in plan.units for r in run(host, pair, unit).tables["timings"].to_pylist()
        ]
        assert counted.failures == 0
        assert counted.evaluations == sum(r["evaluations_new"] for r in rows)


class TestGiven:
    def test_it_is_scored_as_it_stands(
        self, host: Host, folder: Path, model: Any, tokenizer: Any
    ) -> None:
        plan, pair = plan_of(folder, "occlusion", continuation="answer")

        def refuse(request: Any) -> Any:
            raise AssertionError("nothing is generated where the continuation is given")

        for text, answer, unit in zip(TEXTS, ANSWERS, plan.units, strict=True):
            found = run(host, pair, unit, generate=refuse)
            assert found.tables["failures"].num_rows == 0
            [row] = found.tables["predictions"].to_pylist()
            tokens = tokenizer(answer)["input_ids"]
            assert [p["token"] for p in row["continuation"]] == tokens
            assert row["labels"] == [answer]
            want = by_hand(model, tokenizer, prompt_of(text), tokens)
            assert [p["log_prob"] for p in row["continuation"]] == pytest.approx(want, abs=1e-4)

    def test_one_token_can_be_explained(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(
            folder,
            "occlusion",
            {"name": "occlusion", "id": "second", "class": 1},
            {"name": "occlusion", "id": "fourth", "class": 3},
            continuation="answer",
        )
        found = run(host, pair, plan.units[1])  # " no"
        whole, second = found.tables["attributions"].to_pylist()
        assert (second["class_rule"], second["class_name"]) == ("token:1", "n")
        assert second["values"] == whole["values_by_label"][1]
        [failure] = found.tables["failures"].to_pylist()
        assert (failure["explainer"], failure["code"]) == ("fourth", "no_such_token")
        assert "3 tokens" in failure["message"]

    def test_guests_explain_continuations_too(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(
            folder,
            {"name": "guest:shap.kernel", "nsamples": 40},
            "kernel_shap",
            continuation="answer",
        )
        found = run(host, pair, plan.units[0])
        assert found.tables["failures"].num_rows == 0
        guest, mine = found.tables["attributions"].to_pylist()
        assert len(guest["values_by_label"]) == len(ANSWERS[0])
        assert guest["full_value"] == pytest.approx(mine["full_value"], abs=1e-6)
        assert sum(guest["values"]) == pytest.approx(sum(mine["values"]), abs=1e-4)


class TestStore:
    def test_evaluations_of_another_continuation_are_not_taken(
        self, host: Host, folder: Path, tmp_path: Path
    ) -> None:
        plan, pair = plan_of(folder, "occlusion", max_new_tokens=5, store=tmp_path)
        first = run(host, pair, plan.units[0])
        written = write_evaluations(pair.context.store, "one", [first])
        log = CommitLog(pair.context.store, exclusive=False)
        log.append(written)
        log.close()

        def again(pair: Pair, unit: Unit) -> tuple[UnitResult, int]:
            asked = []

            def score(request: Any) -> Any:
                asked.append(request.num_rows)
                return host.score(request)

            stored = with_stored(unit, index_store(pair.context.store), [])
            assert stored.stored
            return run(host, pair, stored, score=score), sum(asked)

        same, scored = again(pair, plan.units[0])
        assert scored == 0
        for name in ("predictions", "attributions", "metrics"):
            assert same.tables[name].equals(first.tables[name])

        plan, pair = plan_of(folder, "occlusion", continuation="answer", store=tmp_path)
        other, scored = again(pair, plan.units[0])
        assert scored > 0
        fresh = run(host, pair, plan.units[0])
        assert other.tables["attributions"].equals(fresh.tables["attributions"])

    def test_coalitions_are_the_same_whatever_follows(self, host: Host, folder: Path) -> None:
        shown, spaces = [], []
        for prompt in ({"continuation": "answer"}, {"max_new_tokens": 3}):
            plan, pair = plan_of(folder, {"name": "lime", "num_samples": 20}, **prompt)
            pair = replace(pair, context=replace(pair.context, faithfulness=None))
            stored = run(host, pair, plan.units[0]).evaluations
            assert stored is not None
            shown.append(stored.column("coalitions").to_pylist())
            spaces.append(set(stored.column("space").to_pylist()))
        assert shown[0] == shown[1]
        assert not spaces[0] & spaces[1]


class TestEnds:
    """What ends a text is no part of the continuation."""

    def test_generation_stops_at_the_end_token(self, model: Any, tokenizer: Any) -> None:
        ids = tuple(tokenizer(prompt_of(TEXTS[0]))["input_ids"])
        free = continue_greedily(model, GenerationAsk("k", ids, 8)).ids
        assert len(free) == 8
        third = free.index(free[2])
        own = model.generation_config
        model.generation_config = transformers.GenerationConfig(eos_token_id=[1, free[2]])
        try:
            cut = continue_greedily(model, GenerationAsk("k", ids, 8))
            assert cut.ids == free[:third]
            assert cut.tokens == len(ids) + third
            at_once = transformers.GenerationConfig(eos_token_id=free[0])
            model.generation_config = at_once
            assert continue_greedily(model, GenerationAsk("k", ids, 8)).ids == ()
            assert model.generation_config is at_once
        finally:
            model.generation_config = own

    def test_penalties_of_the_model_are_not_applied(self, model: Any, tokenizer: Any) -> None:
        ids = tuple(tokenizer(prompt_of(TEXTS[0]))["input_ids"])
        ask = GenerationAsk("k", ids, 8)
        free = continue_greedily(model, ask).ids
        own = model.generation_config
        model.generation_config = transformers.GenerationConfig(
            repetition_penalty=50.0, do_sample=True, temperature=9.0, min_new_tokens=3
        )
        try:
            assert continue_greedily(model, ask).ids == free
        finally:
            model.generation_config = own

    def test_a_text_that_ends_at_once_fails_its_example(
        self, folder: Path, host: Host, tmp_path: Path, tokenizer: Any
    ) -> None:
        plan, pair = plan_of(folder, "occlusion")
        [ask], _ = read_generation_request(_first_request(host, pair, plan.units[1]))
        first = continue_greedily(
            transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ask
        ).ids[0]
        ending = save_tiny(tmp_path / "ending", eos_token_id=first)
        plan, pair = plan_of(ending, "occlusion")
        stopping = Host(host_spec(pair.model))
        try:
            stopping.load()
            found = run(stopping, pair, plan.units[1])
        finally:
            stopping.stop()
        [row] = found.tables["failures"].to_pylist()
        assert (row["stage"], row["code"], row["example"]) == ("score", "empty_continuation", "e1")
        assert row["unit"] == plan.units[1].id
        assert not found.failed
        assert found.tables["predictions"].num_rows == 0

    def test_logits_without_numbers_fail_its_example(self, tmp_path: Path, tokenizer: Any) -> None:
        [token] = tokenizer("m")["input_ids"]
        spoilt = spoil_at(save_tiny(tmp_path / "tiny"), token)
        plan, pair = plan_of(spoilt, "occlusion")
        made = Host(host_spec(pair.model))
        try:
            made.load()
            found = run(made, pair, plan.units[0])
        finally:
            made.stop()
        [row] = found.tables["failures"].to_pylist()
        assert (row["stage"], row["code"]) == ("score", "not_a_number")

    def test_a_prompt_without_room_says_so(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(folder, "occlusion", max_new_tokens=120)
        found = run(host, pair, plan.units[0])
        [row] = found.tables["failures"].to_pylist()
        assert row["code"] == "not_generated"
        assert "the model takes 128" in row["message"]

    def test_a_host_that_only_scores_says_so(self, host: Host, folder: Path) -> None:
        plan, pair = plan_of(folder, "occlusion")
        found = run_in_process(pair.context, plan.units[0], host.load().numerics, host.score)
        [row] = found.tables["failures"].to_pylist()
        assert row["code"] == "not_generated"
        assert "only scores" in row["message"]


def _first_request(host: Host, pair: Pair, unit: Unit) -> Any:
    kept = []

    def keep(request: Any) -> Any:
        kept.append(request)
        return longest_generations(request)

    run(host, pair, unit, generate=keep)
    return kept[0]


class TestHost:
    def test_rows_come_back_in_their_order(self, host: Host, model: Any, tokenizer: Any) -> None:
        prompts = [tuple(tokenizer(prompt_of(text))["input_ids"]) for text in TEXTS]
        asks = [GenerationAsk(f"k{i}", ids, 3) for i, ids in enumerate(prompts)]
        reply = host.generate(generation_request(asks, ScoreTask(()))).to_pylist()
        assert [row["key"] for row in reply] == ["k0", "k1", "k2"]
        assert [tuple(row["ids"]) for row in reply] == [
            continue_greedily(model, ask).ids for ask in asks
        ]

    def test_an_adapter_it_has_not_is_refused(self, host: Host) -> None:
        ask = GenerationAsk("k", (5, 6), 3)
        [row] = host.generate(generation_request([ask], ScoreTask((), "abc"))).to_pylist()
        assert row["ids"] is None
        assert "without adapters, but is asked for abc" in row["error"]


def test_units_have_one_example_each(folder: Path) -> None:
    plan, pair = plan_of(folder)
    assert [len(unit.examples) for unit in plan.units] == [1, 1, 1]
    assert len(shard(pair, plan.examples, 2)) == 3
    assert example_key(plan.examples[0].fields) != example_key({"text": TEXTS[0]})
