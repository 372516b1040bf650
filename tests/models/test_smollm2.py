"""The offline model: conversion from its package, and scoring against plain forward passes."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from actors.host import Host, HostSpec
from actors.loader import ModelSource, load_tokenizer_spec, resolve_model
from actors.offline import OFFLINE, find_gguf
from engine.schema import ScoreTask, cost_of, score_request
from engine.tokens import Tokenizer, load_tokenizer

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(find_gguf(OFFLINE[0]) is None, reason=OFFLINE[0].install),
]

TEXT = "the acting is fine but the story never quite finds a reason to exist , and it is too long ."
TEMPLATE = "Review: {text}\nSentiment:"
ONE_TOKEN = (" negative", " positive")
SEVERAL_TOKENS = (" negative", " positive", " mixed feelings", " mixed at best")


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return resolve_model("smollm2-135m")


@pytest.fixture(scope="module")
def tokenizer(source: ModelSource) -> Tokenizer:
    return load_tokenizer(load_tokenizer_spec(source).json)


@pytest.fixture(scope="module")
def host(source: ModelSource) -> Iterator[Host]:
    made = Host(HostSpec("smollm2-135m", device="cpu", threads=1))
    made.load()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def model(source: ModelSource) -> Iterator[transformers.PreTrainedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield transformers.AutoModelForCausalLM.from_pretrained(source.location, dtype=torch.float32)
    torch.set_num_threads(threads)


def perturbed(n: int) -> list[str]:
    drawn, words = random.Random(0), TEXT.split()
    texts: dict[str, None] = {}
    while len(texts) < n:
        kept = sorted(drawn.sample(range(len(words)), drawn.randint(0, len(words))))
        texts[" ".join(words[i] for i in kept)] = None
    return list(texts)


def plain(model: torch.nn.Module, ids: list[int], label: tuple[int, ...]) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*ids, *label[:-1]]])).logits[0].double()
    log_probs = logits[len(ids) - 1 :].log_softmax(dim=-1)
    return sum(float(log_probs[i, token]) for i, token in enumerate(label))


def test_the_converted_copy_is_a_plain_checkpoint(source: ModelSource) -> None:
    folder = Path(source.location)
    assert source.kind == "package"
    assert len(source.digest) == 64
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("*.gguf"))


def test_the_model_has_its_parameters(host: Host, source: ModelSource) -> None:
    info = host.load()
    assert info.parameters == 134_515_008
    assert info.weights == source.digest
    assert info.scorer == "packed+lean+gathered+prefix+prepacked"
    assert info.max_tokens == 8192


def test_the_hub_id_falls_back_to_the_package(
    source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = resolve_model("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert found == source._replace(name="HuggingFaceTB/SmolLM2-135M-Instruct")


def test_the_tokenizer_keeps_its_text_and_chat_template(source: ModelSource) -> None:
    spec = load_tokenizer_spec(source)
    assert (spec.before, spec.after, spec.max_tokens) == ((), (), 8192)
    tokenizer = load_tokenizer(spec.json)
    text = "It's 2024: naïve, “quoted”\n\nend"
    (ids,) = tokenizer.encode_batch([text], add_special_tokens=True)
    assert tokenizer.decode(ids) == text
    chat = pickle.loads(pickle.dumps(spec)).chat
    rendered = chat([{"role": "user", "content": "Hello?"}])
    assert rendered.endswith("<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n")
    (ids,) = tokenizer.encode_batch(["<|im_start|>"], add_special_tokens=False)
    assert ids == [1]


def test_packed_scoring_equals_one_plain_pass_a_text(
    host: Host, model: torch.nn.Module, tokenizer: Tokenizer
) -> None:
    rows = tokenizer.encode_batch([TEMPLATE.format(text=t) for t in perturbed(56)], True)
    labels = tuple(tuple(ids) for ids in tokenizer.encode_batch(ONE_TOKEN, False))
    assert all(len(label) == 1 for label in labels)
    reply = host.score(score_request([0] * len(rows), rows, [None] * len(rows), ScoreTask(labels)))
    expected = []
    for ids in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        log_probs = logits.log_softmax(dim=-1)
        expected.append([float(log_probs[label[0]]) for label in labels])
    np.testing.assert_allclose(np.array(reply["log_probs"].to_pylist()), expected, atol=1e-4)
    # labels of one token add nothing: what is computed is exactly the distinct prefixes
    distinct = {tuple(ids[: i + 1]) for ids in rows for i in range(len(ids))}
    assert cost_of(reply).tokens_computed == len(distinct)


def test_labels_of_several_tokens_are_sums(
    host: Host, model: torch.nn.Module, tokenizer: Tokenizer
) -> None:
    rows = tokenizer.encode_batch([TEMPLATE.format(text=t) for t in perturbed(6)], True)
    labels = tuple(tuple(ids) for ids in tokenizer.encode_batch(SEVERAL_TOKENS, False))
    assert max(map(len, labels)) > 2
    reply = host.score(score_request([0] * len(rows), rows, [None] * len(rows), ScoreTask(labels)))
    expected = [[plain(model, ids, label) for label in labels] for ids in rows]
    np.testing.assert_allclose(np.array(reply["log_probs"].to_pylist()), expected, atol=1e-4)
