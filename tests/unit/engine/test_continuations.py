"""Continuations as label sets, and a whole unit of one against a model known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.config import parse_config
from engine.context import MOST_TOKENS, Continuation
from engine.continuations import token_probabilities, token_values
from engine.errors import ConfigError, ExampleError
from engine.facts import ModelFacts
from engine.generations import GenerationAnswer, generation_reply, read_generation_request
from engine.not_a_number import MESSAGE
from engine.plan import Pair, Plan, build_plan
from engine.ragged import Ragged
from engine.results import UnitResult
from engine.schema import ScoreCost, score_reply, task_of
from engine.step import run_in_process, step
from engine.target import LOG_FLOOR
from engine.types import Example

BASE = -3.0
PER_WORD = 0.25
"""Log p of the token at place t: BASE − t + PER_WORD · t · (words of the text)."""


def plan_of(
    tokenizer: str,
    *explainers: Any,
    text: str = "so good film",
    answer: str = " yes",
    **prompt: Any,
) -> Plan:
    raw = {
        "models": [{"name": "m", "path": "some/model"}],
        "data": {"path": "bundled:reviews", "inputs": {"text": "text", "answer": "text"}},
        "prompt": {"template": "Say: {text} =>", "task": "generation", **prompt},
        "explainers": list(explainers),
        "metrics": {"faithfulness": False},
    }
    facts = {"m/fp32": ModelFacts("weights", tokenizer, 64)}
    example = Example("e", {"text": text, "answer": answer}, group="g")
    return build_plan(parse_config(raw), [example], facts, "store")


def pair_of(plan: Plan) -> Pair:
    [pair] = plan.pairs.values()
    return pair


def score(request: pa.Table) -> pa.Table:
    """Answer as the model of which all is known; prompts are bytes."""
    texts = [bytes(ids).decode() for ids in Ragged.from_arrow(request.column("ids")).to_lists()]
    words = np.array([len(t.removeprefix("Say:").removesuffix("=>").split()) for t in texts])
    place = np.arange(len(task_of(request).label_ids))
    tokens = BASE - place + PER_WORD * place * words[:, None]
    log_z = np.zeros(len(texts), dtype=np.float32)
    cumulated = tokens.cumsum(axis=1).astype(np.float32)
    return score_reply(cumulated, log_z, {}, ScoreCost(0.5, 10, "n"))


def generate(request: pa.Table) -> pa.Table:
    asks, _ = read_generation_request(request)
    answers = [GenerationAnswer(tuple(b" fine!"[: a.max_new_tokens]), 9, 0.5) for a in asks]
    return generation_reply([ask.key for ask in asks], answers)


def run(plan: Plan, **calls: Any) -> dict[str, list[dict[str, Any]]]:
    [unit] = plan.units
    calls = {"score": score, "generate": generate, **calls}
    found: UnitResult = run_in_process(pair_of(plan).context, unit, "n", **calls)
    return {name: table.to_pylist() for name, table in found.tables.items()}


class TestUnit:
    @pytest.mark.parametrize("method", ["exact", "kernel_shap", "lime", "occlusion"])
    def test_every_method_finds_what_a_word_adds(self, method: str) -> None:
        found = run(plan_of("bytes", method, max_new_tokens=4))
        assert found["failures"] == []
        [row] = found["attributions"]
        per_token = PER_WORD * np.arange(4)
        tolerance = 0.02 if method == "lime" else 1e-5  # its ridge penalty
        by_token = np.asarray(row["values_by_label"])
        assert by_token == pytest.approx(np.tile(per_token[:, None], 3), abs=tolerance)
        assert row["values"] == pytest.approx([per_token.sum()] * 3, abs=3 * tolerance)
        assert by_token.sum(axis=0) == pytest.approx(row["values"], abs=1e-9)
        assert row["class_name"] == " fin"
        full = (BASE - np.arange(4) + 3 * per_token).sum()
        assert row["full_value"] == pytest.approx(full)

    def test_the_row_of_the_prediction_has_the_tokens(self) -> None:
        [row] = run(plan_of("bytes", max_new_tokens=3))["predictions"]
        assert [part["text"] for part in row["continuation"]] == [" ", "f", "i"]
        assert [part["token"] for part in row["continuation"]] == list(b" fi")
        log_probs = [part["log_prob"] for part in row["continuation"]]
        assert log_probs == pytest.approx([-3.0, -3.25, -3.5])
        assert row["log_probs"] == [pytest.approx(-9.75)]
        assert row["probabilities"] == [pytest.approx(np.exp(-9.75))]
        assert (row["labels"], row["gold"], row["predicted"]) == ([" fi"], None, 0)

    def test_a_given_one_is_not_generated(self) -> None:
        found = run(plan_of("bytes", "occlusion", continuation="answer"), generate=None)
        assert found["predictions"][0]["labels"] == [" yes"]
        assert [r["consumer"] for r in found["timings"]] == ["prediction", "occlusion"]

    def test_the_same_coalitions_are_drawn_whatever_is_given(self) -> None:
        text = "a b c d e f g h i j k l"
        shown, keys = [], []
        for answer in (" yes", " no, never"):
            lime = {"name": "lime", "num_samples": 40}
            plan = plan_of("bytes", lime, text=text, answer=answer, continuation="answer")
            output = step(pair_of(plan).context, plan.units[0], 1, "n", [])
            assert output.lookups is not None
            shown.append(output.lookups.column("coalitions").to_pylist())
            keys.append(set(output.lookups.column("example").to_pylist()))
        assert shown[0] == shown[1]
        assert not keys[0] & keys[1]

    def test_generating_is_a_consumer(self) -> None:
        rows = {r["consumer"]: r for r in run(plan_of("bytes"))["timings"]}
        row = rows["generation"]
        assert (row["evaluations_asked"], row["evaluations_new"]) == (1, 1)
        assert (row["tokens_asked"], row["tokens_new"]) == (9, 9)
        assert (row["host_seconds"], row["standalone_seconds"]) == (0.5, 0.5)

    @pytest.mark.parametrize(
        ("text", "prompt", "code", "said"),
        [
            ("good", {}, "not_generated", "out of memory"),
            ("none", {}, "not_a_number", "use bf16 or fp32"),
            ("bad", {}, "empty_continuation", "no token to explain"),
        ],
    )
    def test_without_a_continuation_the_example_fails(
        self, text: str, prompt: dict[str, Any], code: str, said: str
    ) -> None:
        def failing(request: pa.Table) -> pa.Table:
            [key] = request.column("key").to_pylist()
            answers = {"good": "out of memory", "none": MESSAGE}
            return generation_reply([key], [answers.get(text, GenerationAnswer((), 3))])

        found = run(plan_of("bytes", "lime", text=text, **prompt), generate=failing)
        [row] = found["failures"]
        assert (row["stage"], row["code"], row["explainer"]) == ("score", code, None)
        assert said in row["message"]
        assert found["attributions"] == found["predictions"] == []

    def test_long_ones_are_refused(self) -> None:
        def longer(request: pa.Table) -> pa.Table:
            [key] = request.column("key").to_pylist()
            return generation_reply([key], [GenerationAnswer((65,) * (MOST_TOKENS + 1), 3)])

        [row] = run(plan_of("bytes"), generate=longer)["failures"]
        assert row["code"] == "long_continuation"

    def test_prompt_and_continuation_fit_the_window_together(self) -> None:
        # 60 of 64 tokens; the last one of a continuation is never fed
        [row] = run(plan_of("bytes", text="w" * 52, max_new_tokens=6))["failures"]
        assert row["stage"] == "score"
        assert run(plan_of("bytes", text="w" * 52, max_new_tokens=5))["failures"] == []

    def test_a_tokenizer_that_joins_it_to_the_prompt_fails_the_example(
        self, tokenizer_specs: dict[str, str]
    ) -> None:
        plan = plan_of(
            tokenizer_specs["bpe"], template="Review: {text}\nSentimen", continuation="answer"
        )
        [unit] = plan.units
        unit.examples[0].fields["answer"] = "t"  # type: ignore[index]
        [row] = run(plan)["failures"]
        assert row["code"] == "joined_continuation"
        assert "add a leading space" in row["message"]


class TestPlan:
    def test_the_continuation_may_not_stand_in_the_prompt(self) -> None:
        with pytest.raises(ConfigError, match="would stand in the prompt"):
            plan_of("bytes", template="{text} {answer}", continuation="answer")

    def test_given_and_own_ones_share_their_folder_of_the_store(self) -> None:
        given, own = (
            pair_of(plan_of("bytes", **prompt)) for prompt in ({"continuation": "answer"}, {})
        )
        assert given.evaluation_fingerprint == own.evaluation_fingerprint

    def test_class_rules(self) -> None:
        plan = plan_of("bytes", "lime", {"name": "lime", "id": "third", "class": 2})
        assert [t.class_rule for t in pair_of(plan).context.explainers] == ["whole", "token:2"]


class TestColumns:
    CONTINUATION = Continuation((5, 6), ("a", "b"), "ab")

    def test_they_are_tokens_and_then_the_whole(self) -> None:
        column = self.CONTINUATION.column
        assert [column("token:0"), column("token:1"), column("whole")] == [0, 1, 2]

    def test_a_token_too_many(self) -> None:
        with pytest.raises(ExampleError, match="has 2 tokens, counted from 0") as error:
            self.CONTINUATION.column("token:2")
        assert error.value.code == "no_such_token"


class TestValues:
    @given(
        arrays.arrays(
            np.float64,
            arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=st.floats(-70.0, 0.0),
        )
    )
    def test_they_are_the_differences(self, tokens: Any) -> None:
        values = token_values(tokens.cumsum(axis=1))
        np.testing.assert_allclose(values[:, :-1], tokens, atol=1e-9)
        np.testing.assert_allclose(values[:, -1], tokens.sum(axis=1), atol=1e-9)
        p = token_probabilities(tokens.cumsum(axis=1))
        np.testing.assert_allclose(p[:, :-1], np.exp(tokens), atol=1e-9)
        geometric = np.exp(tokens).prod(axis=1) ** (1 / tokens.shape[1])
        np.testing.assert_allclose(p[:, -1], geometric, rtol=1e-6)

    def test_what_can_not_be_stays_finite(self) -> None:
        values = token_values(np.array([[-1.0, -np.inf, -np.inf]]))
        assert values.tolist() == [[-1.0, LOG_FLOOR, LOG_FLOOR, -1.0 + 2 * LOG_FLOOR]]
        assert token_values(np.array([[1e-7]])).tolist() == [[0.0, 0.0]]  # rounding above 1
