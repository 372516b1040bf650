from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.exchange import HostReply, HostRequest
from engine.gradients import (
    GRADIENT_REPLY,
    GradientAnswer,
    GradientAsk,
    Gradients,
    even_gradients,
    expected_tokens,
    gradient_key,
    gradient_reply,
    gradient_request,
    no_gradients,
    read_gradient_request,
)
from engine.schema import ScoreCost, ScoreTask, score_reply, score_request

TASK = ScoreTask(((3,), (5, 7)), "abc")
ASK = GradientAsk(
    key=gradient_key("e", "ig"),
    ids=(1, 2, 3, 4, 5),
    positions=((1,), (), (2, 3)),
    method="integrated_gradients",
    steps=20,
    max_steps=320,
    baseline="mean",
    target="log_odds",
    floor=0.06,
)
ANSWER = GradientAnswer(
    values=np.array([[1.0, 0.0, -2.5], [0.5, 0.0, 1 / 3]]),
    base=np.array([0.1, 0.2]),
    full=np.array([-1.4, 1.0]),
    steps=40,
    evaluations=62,
    tokens=310,
    converged=False,
    curve=np.array([[-1.4, 0.0, 0.1], [1.0, 0.3, 0.2]]),
    seconds=0.5,
)


@pytest.mark.parametrize(
    "ask",
    [
        ASK,
        replace(ASK, method="ig_occlusion", occlusion_steps=5, calibration=(-0.5, -1 / 3)),
        replace(ASK, baseline="mask", baseline_ids=(9, 10), normaliser="vocab", positions=()),
    ],
)
def test_requests_come_back_whole(ask: GradientAsk) -> None:
    assert read_gradient_request(gradient_request([ask], TASK)) == ([ask], TASK)


def test_equal_keys_are_asked_once() -> None:
    other = replace(ASK, key="other")
    request = gradient_request([ASK, other, ASK], TASK)
    assert request.column("key").to_pylist() == [ASK.key, "other"]


def test_answers_and_errors_come_back_by_key() -> None:
    reply = gradient_reply(["a", "b"], [ANSWER, "no pad token"])
    assert reply.schema.equals(GRADIENT_REPLY)
    known = Gradients()
    known.add(reply)
    found = known.get("a")
    assert found is not None
    for name in ("values", "base", "full", "curve"):
        np.testing.assert_array_equal(getattr(found, name), getattr(ANSWER, name))
    assert (found.steps, found.evaluations, found.tokens) == (40, 62, 310)
    assert (found.converged, found.seconds) == (False, 0.5)
    assert (known.get("b"), known.error("b"), known.error("a")) == (None, "no pad token", None)


def test_answers_without_curve_or_features_keep_their_shapes() -> None:
    known = Gradients()
    empty = replace(ANSWER, values=np.zeros((2, 0)), curve=None)
    known.add(gradient_reply(["a"], [empty]))
    found = known.get("a")
    assert found is not None
    assert (found.values.shape, found.curve) == ((2, 0), None)


def test_a_host_that_only_scores_says_so_in_every_row() -> None:
    known = Gradients()
    known.add(no_gradients(gradient_request([ASK], TASK)))
    assert "only scores" in str(known.error(ASK.key))


def test_counting_answers_have_the_shapes_of_real_ones() -> None:
    occluding = replace(ASK, key="o", method="ig_occlusion", occlusion_steps=5)
    request = gradient_request([ASK, occluding], TASK)
    known = Gradients()
    known.add(even_gradients(request))
    plain, other = known.get(ASK.key), known.get("o")
    assert plain is not None
    assert other is not None
    assert plain.values.shape == (2, 3)
    assert (plain.evaluations, other.evaluations) == (22, 32)
    # two ends, twenty steps forward and back, two curves of five
    assert expected_tokens(request) == 5 * 42 + 5 * 52


def test_a_round_counts_both_kinds() -> None:
    scores = score_request([0, 0], [[1, 2], [3]], [None, None], TASK)
    request = HostRequest(scores, gradient_request([ASK], TASK))
    assert (request.sequences, request.tokens) == (3, 3 + 5 * 42)
    assert request.nbytes > scores.nbytes
    assert (HostRequest(scores).sequences, HostRequest(scores).tokens) == (2, 3)
    log_probs = np.array([[-1.0, -2.0]], dtype=np.float32)
    log_z = np.zeros(1, dtype=np.float32)
    scored = score_reply(log_probs, log_z, {}, ScoreCost(0.25, 3, "n"))
    assert HostReply(scored).seconds == 0.25
    assert HostReply(scored, gradient_reply(["a", "b"], [ANSWER, "no"])).seconds == 0.75
