"""Every precision on a tiny model: what is loaded, what it weighs, and packed against plain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from actors.backend import HostSpec
from actors.host import Host
from actors.loader import load_model
from actors.memory_need import check_fits, count_weights, device_memory, memory_need
from actors.precision import computes_in_bf16, precision_of, resolve_precision
from actors.sources import resolve_model
from engine.errors import ModelError, TooLargeError
from engine.not_a_number import MESSAGE
from engine.ragged import Ragged
from engine.schema import ScoreTask, score_request
from tests.models.trainings import save_tiny, spoil_at

pytestmark = pytest.mark.models

QUANTIZED = ("nf4", "fp4", "int8")
BOUND = {"fp32": 2e-5, "bf16": 0.1, "fp16": 0.02, "nf4": 0.1, "fp4": 0.1, "int8": 0.05}
"""Largest difference in log-odds between packed and one prompt at a time, on this model."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), hidden=64)


def prompts() -> Ragged:
    random = np.random.default_rng(0)
    text = random.integers(0, 256, 24)
    keep = random.random((48, 24)) < 0.6
    return Ragged.of([[7, *text[row].tolist(), 9, 11] for row in keep])


def log_odds(spec: HostSpec) -> np.ndarray:
    host = Host(spec)
    host.load()
    rows = prompts()
    task = ScoreTask(((40,), (41, 42)))
    try:
        table = host.score(score_request(np.zeros(rows.n_rows, int), rows, None, task))
    finally:
        host.stop()
    assert table.column("error").null_count == rows.n_rows
    scores = np.array(table.column("log_probs").to_pylist())
    return scores[:, 0] - scores[:, 1]


@pytest.mark.parametrize("precision", BOUND)
def test_packed_is_plain_to_its_bound(folder: Path, precision: str) -> None:
    packed = log_odds(HostSpec(str(folder), precision=precision))
    one_by_one = {"packing": False, "prepack": False, "prefix_cache": 0, "batch_tokens": 1}
    plain = log_odds(HostSpec(str(folder), precision=precision, options=one_by_one))
    assert np.abs(packed - plain).max() <= BOUND[precision]


@pytest.mark.parametrize("precision", QUANTIZED)
def test_weights_are_packed_and_answers_near(folder: Path, precision: str) -> None:
    source = resolve_model(str(folder))
    model = load_model(source, precision, "cpu")
    assert precision_of(model) == precision
    full = load_model(source, "fp32", "cpu")
    host = Host(HostSpec(str(folder), precision=precision))
    info = host.load()
    host.stop()
    assert info.precision == precision
    assert info.parameters == full.num_parameters()
    assert info.memory_bytes < 0.75 * 4 * info.parameters
    need = memory_need(full.config, str(folder), precision, "cpu")
    assert need.weight_bytes == pytest.approx(info.memory_bytes, rel=0.1)
    odds = log_odds(HostSpec(str(folder), precision=precision))
    exact = log_odds(HostSpec(str(folder)))
    assert np.abs(odds - exact).max() > 0
    assert np.corrcoef(odds, exact)[0, 1] > 0.6


def test_auto_is_what_the_device_does_best(folder: Path) -> None:
    best = "bf16" if computes_in_bf16("cpu") else "fp32"
    assert resolve_precision("auto", "cpu") == best
    assert precision_of(load_model(resolve_model(str(folder)), "auto", "cpu")) == best


def test_int8_does_not_depend_on_what_is_beside_it(folder: Path) -> None:
    """The paper's threshold would pick outlying columns by the whole batch."""
    model = load_model(resolve_model(str(folder)), "int8", "cpu")
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 256, (1, 20), generator=random) for _ in range(2))
    with torch.inference_mode():
        alone = model(a).logits
        beside = model(torch.cat([a, b])).logits[:1]
    torch.testing.assert_close(alone, beside, atol=1e-4, rtol=1e-4)


def test_a_replicate_differs_by_rounding_alone(folder: Path) -> None:
    twin = log_odds(HostSpec(str(folder), replicate=1))
    assert np.abs(twin - log_odds(HostSpec(str(folder)))).max() <= 2e-5


def test_a_prompt_without_a_number_is_an_error_and_spoils_no_other(tmp_path: Path) -> None:
    token = 90
    spoilt = spoil_at(save_tiny(tmp_path), token)
    rows = Ragged.of([[7, 8, 9], [7, token, 9], [7, 8, 10]])
    request = score_request([0, 1, 2], rows, None, ScoreTask(((40,), (41, 42))))
    found = []
    for options in ({}, {"packing": False}):
        host = Host(HostSpec(str(spoilt), options=options))
        assert ("packed+" in host.load().scorer) is not bool(options)
        reply = host.score(request)
        host.stop()
        assert reply.column("error").to_pylist() == [None, MESSAGE, None]
        found.append(np.array(reply.column("log_probs").drop_null().to_pylist()))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_a_model_without_any_number_is_refused(tmp_path: Path) -> None:
    host = Host(HostSpec(str(spoil_at(save_tiny(tmp_path), 13))))  # of the probe
    with pytest.raises(ModelError, match="not a number: use bf16 or fp32"):
        host.load()


class TestTooLarge:
    def test_the_arithmetic_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("actors.memory_need.device_memory", lambda device: 1_100_000_000)
        config = LlamaConfig(
            vocab_size=32_000,
            hidden_size=4096,
            intermediate_size=11_008,
            num_hidden_layers=32,
            num_attention_heads=32,
        )
        count = count_weights(config)
        assert count.total == 6_738_415_616  # Llama 2 7B
        need = memory_need(config, str(folder), "fp16", "cpu")
        assert need.weight_bytes == 2 * count.total
        with pytest.raises(TooLargeError, match=r"6,738 million weights × 2\.00 bytes in fp16"):
            check_fits("llama", need, "cpu")

    def test_loading_refuses(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("actors.memory_need.device_memory", lambda device: 1000)
        with pytest.raises(TooLargeError, match="is too large"):
            load_model(resolve_model(str(folder)))

    def test_there_is_some_memory(self) -> None:
        assert device_memory("cpu") > 1 << 28


def test_a_checkpoint_that_is_quantized_already_loads_by_auto_alone(
    folder: Path, tmp_path: Path
) -> None:
    model = load_model(resolve_model(str(folder)), "nf4", "cpu")
    model.save_pretrained(tmp_path / "four")
    for file in folder.glob("tokenizer*"):
        (tmp_path / "four" / file.name).write_bytes(file.read_bytes())
    source = resolve_model(str(tmp_path / "four"))
    assert precision_of(load_model(source, "auto", "cpu")) == "nf4"
    with pytest.raises(ModelError, match="quantized already"):
        load_model(source, "fp32", "cpu")
