from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.analytic import analytic_model
from actors.fake_host import FakeBackend, fake_digest
from actors.host import Host, HostSpec
from engine.errors import ConfigError, ModelError
from engine.schema import ScoreTask, cost_of, score_request

LABELS = ((110,), (112,))


def host(model: str = "fake:linear", **options: Any) -> Host:
    made = Host(HostSpec(model, backend="fake", options=options))
    made.load()
    return made


def request(
    texts: Sequence[str], hidden: Sequence[Sequence[int] | None] | None = None, **task: Any
) -> pa.Table:
    ids = [list(text.encode()) for text in texts]
    hidden = hidden or [None] * len(texts)
    return score_request([0] * len(texts), ids, hidden, ScoreTask(LABELS, **task))


def log_odds(reply: pa.Table) -> np.ndarray:
    pairs = np.array(reply["log_probs"].to_pylist())
    return pairs[:, 1] - pairs[:, 0]


def test_the_answers_are_the_analytic_ones() -> None:
    texts = ["Review: a good film — naïve", "an awful, awful film", ""]
    model = analytic_model("fake:linear", {"bias": 0.5})
    reply = host(bias=0.5).score(request(texts[:2]))
    expected = np.array([model.log_probs(text) for text in texts[:2]], dtype=np.float32)
    np.testing.assert_array_equal(np.array(reply["log_probs"].to_pylist()), expected)
    assert reply["log_z"].to_pylist() == [0.0, 0.0]
    assert cost_of(reply).tokens_computed == sum(len(text.encode()) for text in texts)


def test_hidden_bytes_read_as_spaces() -> None:
    text = "a good film"
    at = list(range(2, 6))
    found = log_odds(host().score(request([text, text], [None, at])))
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-6)


def test_results_do_not_depend_on_how_texts_are_packed() -> None:
    texts = [f"good {'very ' * n}bad" if n % 2 else f"superb{' x' * n}" for n in range(30)]
    together = host().score(request(texts))
    apart = [host(batch_tokens=1).score(request([text])) for text in texts]
    assert together.equals(pa.concat_tables(apart).replace_schema_metadata(None))


def test_noise_depends_on_the_batch_and_on_nothing_else() -> None:
    texts = ["good", "bad film", "dull"]
    exact = log_odds(host().score(request(texts)))
    noisy = log_odds(host(noise=0.01).score(request(texts)))
    again = log_odds(host(noise=0.01).score(request(texts)))
    other = log_odds(host(noise=0.01, batch_tokens=1).score(request(texts)))
    np.testing.assert_array_equal(noisy, again)
    assert not np.array_equal(noisy, exact)
    assert not np.array_equal(noisy, other)
    assert np.abs(noisy - exact).max() <= 0.02
    assert host(noise=0.01).load().numerics != host().load().numerics


def test_noise_is_the_same_in_any_queue_when_batches_are_by_example() -> None:
    texts = ["good", "bad film", "dull"]
    alone = log_odds(host(noise=0.01).score(request(texts, by_example=True)))
    busy = host(noise=0.01)
    busy.score(request(["something", "else"]))
    np.testing.assert_array_equal(
        log_odds(busy.score(request(texts[::-1], by_example=True)))[::-1], alone
    )


def test_planted_failures_are_row_errors() -> None:
    reply = host(fail_on="boom").score(request(["good", "Boom! here", "boomerang"]))
    errors = reply["error"].to_pylist()
    assert errors[0] is None
    assert errors[2] is None
    assert "boom" in errors[1]


def test_bad_rows_say_why() -> None:
    reply = host(max_tokens=5).score(request(["", "too long", "fine"]))
    errors = reply["error"].to_pylist()
    assert errors[0] == "the prompt is empty"
    assert errors[1] == "the prompt has 8 tokens, the model takes 5"
    assert errors[2] is None
    table = score_request([0], [[300]], [None], ScoreTask(LABELS))
    assert "0..255" in host().score(table)["error"][0].as_py()


def test_a_task_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="2 labels, the prompt has 3"):
        host().score(score_request([0], [[65]], [None], ScoreTask((*LABELS, (1,)))))
    with pytest.raises(ModelError, match="takes no adapter"):
        host().score(request(["good"], adapter="abc"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"seconds_per_token": 1.0, "crash_on": "x", "admit_tokens": 5}, True),
        ({}, {"bias": 0.0}, True),
        ({}, {"bias": 1.0}, False),
        ({}, {"weights": {"zebra": 1.0}}, False),
        ({}, {"noise": 0.1}, False),
        ({}, {"fail_on": "x"}, False),
    ],
)
def test_the_digest_covers_what_changes_answers(
    one: Mapping[str, Any], other: Mapping[str, Any], same: bool
) -> None:
    digests = {fake_digest("fake:linear", one), fake_digest("fake:linear", other)}
    assert len(digests) == (1 if same else 2)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="nois"):
        FakeBackend(HostSpec("fake:linear", backend="fake", options={"nois": 1}))


def test_what_a_host_hands_out_can_be_pickled() -> None:
    made = host()
    for value in (made.load(), made.stats(), made.score(request(["good"])), HostSpec("m")):
        assert pickle.loads(pickle.dumps(value)) == value


def test_planted_crashes_end_the_process_and_no_model_library_is_imported() -> None:
    script = """
import sys
from actors.host import Host, HostSpec
from actors.loader import load_tokenizer_spec, resolve_model
from engine.schema import ScoreTask, score_request
assert load_tokenizer_spec(resolve_model("fake:linear")).json == "bytes"
host = Host(HostSpec("fake:linear", backend="fake", options={"crash_on": "boom"}))
host.load()
def ask(text):
    task = ScoreTask(((1,), (2,)))
    return host.score(score_request([0], [list(text.encode())], [None], task))
assert ask("fine").num_rows == 1
print(sorted({"torch", "transformers", "ray"} & set(sys.modules)), flush=True)
ask("boom")
print("still here")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert done.returncode == 1
