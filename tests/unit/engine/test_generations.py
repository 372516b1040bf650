from __future__ import annotations

import numpy as np

from engine.exchange import HostReply, HostRequest
from engine.generations import (
    GenerationAnswer,
    GenerationAsk,
    Generations,
    generation_reply,
    generation_request,
    longest_generations,
    most_tokens,
    no_generations,
    read_generation_request,
)
from engine.schema import ScoreCost, ScoreTask, score_reply, score_request

ASKS = [GenerationAsk("a", (1, 2, 3), 4), GenerationAsk("b", (), 2)]
TASK = ScoreTask((), "adapter", True)


def test_a_request_reads_back() -> None:
    assert read_generation_request(generation_request(ASKS, TASK)) == (ASKS, TASK)
    assert read_generation_request(generation_request([], TASK)) == ([], TASK)


def test_answers_and_errors_are_found_by_key() -> None:
    known = Generations()
    answer = GenerationAnswer((7, 8), 5, 0.25)
    known.add(generation_reply(["a", "b", "c"], [answer, "too long", GenerationAnswer((), 3)]))
    assert known.get("a") == answer
    assert (known.get("b"), known.error("b")) == (None, "too long")
    assert known.get("c") == GenerationAnswer((), 3)
    assert (known.get("d"), known.error("d")) == (None, None)


def test_hosts_that_only_score_answer_every_row() -> None:
    rows = no_generations(generation_request(ASKS, TASK)).to_pylist()
    assert [row["key"] for row in rows] == ["a", "b"]
    assert all("generates no text" in row["error"] for row in rows)


def test_the_longest_continuations_cost_the_most_tokens() -> None:
    request = generation_request(ASKS, TASK)
    rows = longest_generations(request).to_pylist()
    assert [len(row["ids"]) for row in rows] == [4, 2]
    assert sum(row["tokens"] for row in rows) == most_tokens(request) == 9


def test_a_request_to_a_host_counts_them() -> None:
    scores = score_request([], [], None, TASK)
    texts = generation_request(ASKS, TASK)
    request = HostRequest(scores, None, texts)
    assert (request.sequences, request.tokens) == (2, 9)
    assert request.nbytes == scores.nbytes + texts.nbytes
    none = np.zeros((0, 0), dtype=np.float32)
    scored = score_reply(none, np.zeros(0, dtype=np.float32), {}, ScoreCost(1.0, 0, "n"))
    texts = generation_reply(["a", "b"], [GenerationAnswer((1,), 3, 0.5), "no"])
    assert HostReply(scored, None, texts).seconds == 1.5
