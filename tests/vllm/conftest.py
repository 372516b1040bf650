"""One vLLM engine for all of these tests, beside the transformers host that it must equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actors.adapter_files import read_adapter
from actors.backend import HostSpec
from actors.host import Host
from actors.loader import load_tokenizer_spec, resolve_model
from actors.offline import OFFLINE, find_gguf
from actors.vllm_settings import is_installed
from engine.tokens import Tokenizer, load_tokenizer

MODEL = "smollm2-135m"
THREADS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None if is_installed() else "vLLM isn't installed: make vllm"
    if missing is None and find_gguf(OFFLINE[0]) is None:
        missing = OFFLINE[0].install
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.models)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


class Adapter(NamedTuple):
    """A LoRA adapter on disk."""

    folder: Path
    digest: str


def make_adapter(folder: Path, rank: int, seed: int, scale: float, **config: Any) -> Adapter:
    """Save an adapter of random weights; `scale` is the deviation of its second matrix."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL).location, dtype=torch.float32)
    settings = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear", **config}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, scale)
    model.save_pretrained(folder)
    return Adapter(folder, read_adapter(str(folder)).digest)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """Two adapters of different ranks and targets, and one that does nothing."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        "wide": make_adapter(root / "wide", 4, 0, 0.02),
        "deep": make_adapter(
            root / "deep", 20, 1, 0.02, target_modules=["q_proj", "v_proj"], use_rslora=True
        ),
        "untrained": make_adapter(root / "untrained", 8, 2, 0.0),
    }


@pytest.fixture(scope="session")
def vllm_host(adapters: dict[str, Adapter]) -> Iterator[Host]:
    folders = {adapter.digest: str(adapter.folder) for adapter in adapters.values()}
    spec = HostSpec(MODEL, "vllm", "fp32", threads=THREADS, adapters=folders)
    host = Host(spec)
    host.load()
    yield host
    host.stop()


@pytest.fixture(scope="session")
def plain_host(adapters: dict[str, Adapter]) -> Iterator[Host]:
    folders = {adapter.digest: str(adapter.folder) for adapter in adapters.values()}
    host = Host(HostSpec(MODEL, "transformers", "fp32", "cpu", THREADS, adapters=folders))
    host.load()
    yield host
    host.stop()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(load_tokenizer_spec(resolve_model(MODEL)).json)
