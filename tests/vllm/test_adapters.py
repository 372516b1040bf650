"""LoRA adapters through vLLM answer as peft and the transformers host do; others are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.backend import HostSpec
from actors.host import Host
from actors.loader import resolve_model
from engine.errors import AdapterError, ModelError
from engine.schema import ScoreTask, score_request
from engine.tokens import Tokenizer
from tests.vllm.conftest import MODEL, Adapter, make_adapter
from tests.vllm.test_scores import SEVERAL_TOKENS, labels, log_probs, prompts


def with_peft(
    adapter: Adapter, rows: list[list[int]], label_ids: tuple[tuple[int, ...], ...]
) -> np.ndarray:
    """Every label in a forward pass of its own, through a freshly loaded base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).location, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter.folder).eval()
    found = np.zeros((len(rows), len(label_ids)))
    with torch.inference_mode():
        for row, ids in enumerate(rows):
            for column, label in enumerate(label_ids):
                logits = model(input_ids=torch.tensor([[*ids, *label[:-1]]])).logits[0].double()
                behind = logits[len(ids) - 1 :].log_softmax(-1)
                found[row, column] = sum(float(behind[i, t]) for i, t in enumerate(label))
    return found


def test_two_adapters_and_the_base_in_turn(
    vllm_host: Host, plain_host: Host, tokenizer: Tokenizer, adapters: dict[str, Adapter]
) -> None:
    rows, label_ids = prompts(tokenizer, 4), labels(tokenizer, SEVERAL_TOKENS)
    expected = {
        adapters[name].digest: with_peft(adapters[name], rows, label_ids)
        for name in ("wide", "deep")
    }
    request = score_request([0] * 4, rows, None, ScoreTask(label_ids))
    expected[""] = log_probs(plain_host.score(request))
    for digest, answer in expected.items():
        request = score_request([0] * 4, rows, None, ScoreTask(label_ids, digest))
        np.testing.assert_allclose(log_probs(plain_host.score(request)), answer, atol=1e-3)
    apart = [abs(a - b).max() for a in expected.values() for b in expected.values() if a is not b]
    assert min(apart) > 0.1, "the adapters change what is answered"
    before = vllm_host.stats()
    for turn in range(3):
        for digest, answer in expected.items():
            # other examples in every turn, or the host would answer from memory
            task = ScoreTask(label_ids, digest, by_example=turn > 0)
            found = log_probs(vllm_host.score(score_request([0] * 4, rows, None, task)))
            np.testing.assert_allclose(found, answer, atol=1e-3)
    after = vllm_host.stats()
    assert after.swaps - before.swaps == 9
    assert after.adapter_loads - before.adapter_loads == 2
    assert after.swap_seconds > before.swap_seconds


def test_an_adapter_without_effect_fails_loudly(
    vllm_host: Host, tokenizer: Tokenizer, adapters: dict[str, Adapter]
) -> None:
    task = ScoreTask(labels(tokenizer, (" a", " b")), adapters["untrained"].digest)
    with pytest.raises(AdapterError, match="has no effect"):
        vllm_host.score(score_request([0], prompts(tokenizer, 1), None, task))
    plain = ScoreTask(task.label_ids)  # and the base answers on
    log_probs(vllm_host.score(score_request([0], prompts(tokenizer, 1), None, plain)))


def test_an_adapter_that_was_not_planned(vllm_host: Host, tokenizer: Tokenizer) -> None:
    task = ScoreTask(labels(tokenizer, (" a", " b")), "0" * 64)
    with pytest.raises(ModelError, match="no adapter 0000"):
        vllm_host.score(score_request([0], prompts(tokenizer, 1), None, task))


def test_dora_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "dora", 4, 0, 0.02, use_dora=True)
    host = Host(HostSpec(MODEL, "vllm", adapters={adapter.digest: str(adapter.folder)}))
    with pytest.raises(ModelError, match="DoRA"):
        host.load()


def test_an_adapter_that_changed_since_planning(
    tmp_path: Path, adapters: dict[str, Adapter]
) -> None:
    folder = shutil.copytree(adapters["deep"].folder, tmp_path / "copy")
    host = Host(HostSpec(MODEL, "vllm", adapters={adapters["wide"].digest: str(folder)}))
    with pytest.raises(ModelError, match="has changed"):
        host.load()
