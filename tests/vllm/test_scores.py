"""What a vLLM host answers is what the transformers host answers."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from actors.host import Host
from engine.generations import GenerationAsk, generation_request
from engine.gradients import GradientAsk, gradient_request
from engine.schema import ScoreTask, cost_of, score_request
from engine.tokens import Tokenizer

TEXT = "the acting is fine but the story never quite finds a reason to exist , and it is too long ."
TEMPLATE = "Review: {text}\nSentiment:"
ONE_TOKEN = (" negative", " positive")
SEVERAL_TOKENS = (" negative", " positive", " mixed feelings", " mixed at best", " mixed at worst")


def prompts(tokenizer: Tokenizer, n: int, seed: int = 0) -> list[list[int]]:
    drawn, words = random.Random(seed), TEXT.split()
    texts: dict[str, None] = {}
    while len(texts) < n:
        kept = sorted(drawn.sample(range(len(words)), drawn.randint(0, len(words))))
        texts[" ".join(words[i] for i in kept)] = None
    return tokenizer.encode_batch([TEMPLATE.format(text=text) for text in texts], True)


def labels(tokenizer: Tokenizer, strings: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(ids) for ids in tokenizer.encode_batch(strings, False))


def log_probs(reply: pa.Table) -> np.ndarray:
    assert reply.column("error").null_count == reply.num_rows
    return np.array(reply.column("log_probs").to_pylist())


@pytest.mark.parametrize("strings", [ONE_TOKEN, SEVERAL_TOKENS], ids=["one token", "several"])
def test_labels(
    vllm_host: Host, plain_host: Host, tokenizer: Tokenizer, strings: tuple[str, ...]
) -> None:
    rows = prompts(tokenizer, 24)
    task = ScoreTask(labels(tokenizer, strings))
    assert (max(map(len, task.label_ids)) > 1) == (strings is SEVERAL_TOKENS)
    request = score_request(np.zeros(len(rows)), rows, None, task)
    ours, theirs = plain_host.score(request), vllm_host.score(request)
    np.testing.assert_allclose(log_probs(theirs), log_probs(ours), atol=1e-3)
    assert theirs.column("log_z").null_count == len(rows), "vLLM doesn't tell log Z"


def test_equal_prompts_are_asked_once(vllm_host: Host, tokenizer: Tokenizer) -> None:
    rows = prompts(tokenizer, 4, seed=1)
    task = ScoreTask(labels(tokenizer, (" bad", " good")))
    before = vllm_host.stats()
    reply = vllm_host.score(score_request(np.zeros(8), [*rows, *rows[::-1]], None, task))
    found = log_probs(reply)
    np.testing.assert_array_equal(found[:4], found[:3:-1])
    after = vllm_host.stats()
    assert after.sequences_computed - before.sequences_computed == 4
    assert after.tokens_distinct - before.tokens_distinct < sum(map(len, rows))


def test_the_prefix_cache_is_used(vllm_host: Host, tokenizer: Tokenizer) -> None:
    """Behind a template of many blocks only the text itself is computed."""
    front = tokenizer.encode_batch(["A review says. " * 60], True)[0]
    rows = [[*front, *ids] for ids in prompts(tokenizer, 6, seed=2)]
    task = ScoreTask(labels(tokenizer, ONE_TOKEN))
    cost = cost_of(vllm_host.score(score_request(np.zeros(6), rows, None, task)))
    assert cost.tokens_computed < len(front) + sum(len(ids) - len(front) + 32 for ids in rows)


def test_by_example_does_not_depend_on_what_was_asked_before(
    vllm_host: Host, tokenizer: Tokenizer
) -> None:
    rows = prompts(tokenizer, 6, seed=3)
    task = ScoreTask(labels(tokenizer, ONE_TOKEN), by_example=True)
    request = score_request(np.zeros(6), rows, None, task)
    first = log_probs(vllm_host.score(request))
    more = prompts(tokenizer, 9, seed=4)
    vllm_host.score(score_request(np.zeros(9), more, None, ScoreTask(task.label_ids)))
    np.testing.assert_array_equal(log_probs(vllm_host.score(request)), first)


def test_generation(vllm_host: Host, plain_host: Host, tokenizer: Tokenizer) -> None:
    texts = [
        "The capital of France is",
        TEMPLATE.format(text=TEXT),
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        "The capital of France is Paris",
    ]
    asks = [
        GenerationAsk(text, tuple(ids), 12)
        for text, ids in zip(texts, tokenizer.encode_batch(texts, True), strict=True)
    ]
    request = generation_request(asks, ScoreTask(()))
    ours, theirs = plain_host.generate(request), vllm_host.generate(request)
    assert theirs.column("ids").to_pylist() == ours.column("ids").to_pylist()
    ends = [len(ids) < 12 for ids in theirs.column("ids").to_pylist()]
    assert any(ends), "one of them ends by the model's own token"
    assert theirs.column("error").null_count == 3


def test_continuations_are_scored_token_by_token(
    vllm_host: Host, plain_host: Host, tokenizer: Tokenizer
) -> None:
    """The beginnings of a continuation are a label set; its last one is the longest label."""
    [ids] = tokenizer.encode_batch([" and it is far too long for what it has to say"], False)
    beginnings = tuple(tuple(ids[: n + 1]) for n in range(len(ids)))
    request = score_request([0] * 3, prompts(tokenizer, 3), None, ScoreTask(beginnings))
    ours, theirs = log_probs(plain_host.score(request)), log_probs(vllm_host.score(request))
    np.testing.assert_allclose(theirs, ours, atol=1e-3)
    assert (np.diff(theirs, axis=1) <= 0).all()


class TestRefusals:
    def test_prompts_have_errors_of_their_own(self, vllm_host: Host) -> None:
        info = vllm_host.load()
        assert info.max_tokens is not None
        rows = [[1, 2], [], [5] * (info.max_tokens + 1), [1, 49152], [7, 8, 9]]
        hidden = [None, None, None, None, [1]]
        reply = vllm_host.score(score_request([0] * 5, rows, hidden, ScoreTask(((3,), (4,)))))
        errors = reply.column("error").to_pylist()
        assert errors[0] is None
        assert errors[1] == "the prompt is empty"
        assert f"the model takes {info.max_tokens}" in errors[2]
        assert "outside the vocabulary of 49152" in errors[3]
        assert "another masking operator than pad" in errors[4]

    def test_the_longest_prompt_is_scored(self, vllm_host: Host) -> None:
        """At the edge vLLM itself must take what was let through."""
        backend = vllm_host._backend
        engine = backend.engine  # type: ignore[attr-defined]
        assert vllm_host.load().max_tokens == engine._config.model_config.max_model_len - 1

    def test_gradients(self, vllm_host: Host) -> None:
        ask = GradientAsk("k", (65,), ((0,),), "gradient_x_input", 1, 1, "mean", "log_odds", 0.1)
        [row] = vllm_host.gradients(gradient_request([ask], ScoreTask(((1,), (2,))))).to_pylist()
        assert "only backend transformers" in row["error"]

    def test_continuations_without_room(self, vllm_host: Host) -> None:
        most = vllm_host.load().max_tokens
        assert most is not None
        asked = generation_request([GenerationAsk("k", (5,) * most, 8)], ScoreTask(()))
        [row] = vllm_host.generate(asked).to_pylist()
        assert f"the model takes {most}" in row["error"]
