from __future__ import annotations

import pytest

from actors.host import Host, HostSpec
from engine.errors import ConfigError
from engine.generations import GenerationAsk, generation_request
from engine.gradients import GradientAsk, gradient_request
from engine.schema import ScoreTask, cost_of, score_request

REQUEST = score_request([0], [[65]], [None], ScoreTask(((1,), (2,))))


def test_a_host_is_light_until_it_is_loaded() -> None:
    host = Host(HostSpec("fake:linear", backend="fake"))
    assert not host.ready()
    with pytest.raises(RuntimeError, match="load the host"):
        host.score(REQUEST)
    info = host.load()
    assert host.ready()
    assert host.load() is info
    assert host.score(REQUEST).num_rows == 1
    assert host.stats().requests == 1
    host.stop()
    host.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        host.score(REQUEST)


def test_stopping_before_loading_is_fine() -> None:
    Host(HostSpec("fake:linear", backend="fake")).stop()


def test_unknown_backends_and_options_are_refused_before_anything_loads() -> None:
    with pytest.raises(ConfigError, match="use transformers, vllm or fake"):
        Host(HostSpec("m", backend="tensorflow"))
    with pytest.raises(ConfigError, match="batch_token"):
        Host(HostSpec("m", options={"batch_token": 3}))


def test_a_host_without_embeddings_says_so_in_every_row() -> None:
    ask = GradientAsk("k", (65,), ((0,),), "gradient_x_input", 1, 1, "mean", "log_odds", 0.1)
    asked = gradient_request([ask], ScoreTask(((1,), (2,))))
    host = Host(HostSpec("fake:linear", backend="fake"))
    with pytest.raises(RuntimeError, match="load the host"):
        host.gradients(asked)
    host.load()
    [row] = host.gradients(asked).to_pylist()
    assert row["key"] == "k"
    assert "fake:linear gives no gradients" in row["error"]
    assert "the fake models have none" in row["error"]
    host.stop()


def test_a_host_that_generates_nothing_says_so_in_every_row() -> None:
    asked = generation_request([GenerationAsk("k", (65,), 4)], ScoreTask(()))
    host = Host(HostSpec("fake:linear", backend="fake"))
    with pytest.raises(RuntimeError, match="load the host"):
        host.generate(asked)
    host.load()
    [row] = host.generate(asked).to_pylist()
    assert row["key"] == "k"
    assert "only scores" in row["error"]
    host.stop()


def test_a_request_without_rows_needs_no_label() -> None:
    host = Host(HostSpec("fake:linear", backend="fake"))
    info = host.load()
    reply = host.score(score_request([], [], None, ScoreTask(())))
    assert reply.num_rows == 0
    assert cost_of(reply).numerics == info.numerics
    host.stop()
