"""Adapters switched on and off on one base answer as freshly loaded models do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.adapter_files import read_adapter
from actors.backend import HostSpec, SequenceBatch
from actors.batching import ScoreSequence
from actors.hf_host import TransformersBackend
from engine.errors import AdapterError, ConfigError, ModelError
from engine.generations import GenerationAsk
from engine.gradients import GradientAsk
from engine.ragged import Ragged
from engine.schema import ScoreTask
from tests.models.lora import (
    ATTENTION,
    WIDE,
    edit_config,
    edit_weights,
    expected,
    fresh,
    inner,
    save_adapter,
)
from tests.models.tiny import LABELS, build, prompts

pytestmark = pytest.mark.models

EXACT = 1e-5
ULPS = 1e-6
"""Of values of 20 and more, where a plain pass in single precision is 1.4e-5 off one in double."""


def batch_of(rows: list[ScoreSequence]) -> SequenceBatch:
    return SequenceBatch(Ragged.of([row.ids for row in rows]), None)


class Stage:
    """A saved tiny model with adapters, and a host of it."""

    def __init__(self, folder: Path, family: str = "llama") -> None:
        self.folder = folder
        self.model = build(family)
        self.base = folder / "base"
        self.model.save_pretrained(self.base)
        self.adapters: dict[str, Path] = {}

    def add(self, name: str, **config: Any) -> str:
        """Save a random adapter; return its digest."""
        path = save_adapter(self.model, self.folder / name, seed=len(name), **config)
        digest = read_adapter(str(path), str(self.base)).digest
        self.adapters[digest] = path
        return digest

    def host(self, precision: str = "fp32", **options: Any) -> TransformersBackend:
        folders = {digest: str(path) for digest, path in self.adapters.items()}
        made = TransformersBackend(
            HostSpec(str(self.base), precision=precision, options=options, adapters=folders)
        )
        made.load()
        return made

    def expected(self, adapter: str, rows: list[ScoreSequence]) -> np.ndarray:
        return np.array(expected(fresh(self.model, self.adapters.get(adapter)), rows))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def score(host: TransformersBackend, adapter: str, rows: list[ScoreSequence]) -> np.ndarray:
    task = ScoreTask(LABELS, adapter=adapter)
    assert host.check(batch_of(rows), task) == {}
    return host.score(batch_of(rows), task).log_probs


@pytest.mark.parametrize("options", [{}, {"packing": False}, {"prepack": False}], ids=str)
def test_two_adapters_and_the_base_interleaved(stage: Stage, options: dict[str, Any]) -> None:
    a, b = stage.add("a", **ATTENTION), stage.add("b", **WIDE)
    host = stage.host(**options)
    rows = prompts(12)
    wanted = {adapter: stage.expected(adapter, rows) for adapter in ("", a, b)}
    assert np.abs(wanted[a] - wanted[""]).max() > 0.1
    assert np.abs(wanted[b] - wanted[a]).max() > 0.1
    table = host.model.get_input_embeddings().weight.data_ptr()
    turns = np.random.default_rng(0).integers(0, 3, 100)
    for turn in turns:
        adapter = ("", a, b)[turn]
        # other templates in between: kept keys and values must not be another adapter's
        found = score(host, adapter, rows)
        np.testing.assert_allclose(found, wanted[adapter], atol=EXACT, rtol=ULPS)
    swaps = int((np.diff(np.concatenate([[0], turns])) != 0).sum())
    assert host.swap_counts().swaps == swaps
    assert host.swap_counts().adapter_loads == 2
    assert host.model.get_input_embeddings().weight.data_ptr() == table


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "gpt_neox", "falcon", "mixtral"])
def test_families(tmp_path: Path, family: str) -> None:
    stage = Stage(tmp_path, family)
    targets = {
        "gpt2": ["c_attn", "c_proj"],
        "phi3": ["qkv_proj", "down_proj"],
        "gpt_neox": ["query_key_value", "dense"],
        "falcon": ["query_key_value"],
    }
    a = stage.add("a", r=4, target_modules=targets.get(family, ["q_proj", "o_proj"]))
    host = stage.host()
    rows = prompts(8)
    for adapter in ("", a, ""):
        np.testing.assert_allclose(
            score(host, adapter, rows), stage.expected(adapter, rows), atol=2e-5, rtol=0
        )


@pytest.mark.parametrize("config", [
    {"r": 4, "target_modules": ["q_proj", "lm_head"]},
    {"r": 4, "target_modules": ["embed_tokens", "v_proj"]},
    {"r": 4, "target_modules": ["k_proj", "up_proj"], "use_dora": True},
    {"r": 4, "target_modules": ["v_proj"], "lora_bias": True},
    {"r": 4, "target_modules": "all-linear", "layers_to_transform": None},
], ids=["output matrix", "embeddings", "dora", "bias", "all linear"])  # fmt: skip
def test_what_an_adapter_may_change(stage: Stage, config: dict[str, Any]) -> None:
    a, other = stage.add("a", **config), stage.add("other", **ATTENTION)
    host = stage.host()
    rows = prompts(8)
    for adapter in (a, "", other, a):
        np.testing.assert_allclose(
            score(host, adapter, rows), stage.expected(adapter, rows), atol=EXACT, rtol=ULPS
        )


def test_gradients_and_continuations_are_the_adapters(stage: Stage) -> None:
    a = stage.add("a", **WIDE)
    host = stage.host()
    ids = prompts(1)[0].ids
    ask = GradientAsk(
        key="k",
        ids=ids,
        positions=((5,), (6,)),
        method="integrated_gradients",
        steps=20,
        max_steps=40,
        baseline="mean",
        target="log_odds",
        floor=1e-3,
    )
    alone = TransformersBackend(HostSpec(str(stage.base), options={"prepack": False}))
    alone.load()
    for adapter in ("", a, ""):
        task = ScoreTask(((3,), (4,)), adapter=adapter)
        alone.model = inner(fresh(stage.model, stage.adapters.get(adapter)))
        alone._runners.clear()
        plain_task = ScoreTask(((3,), (4,)))
        found, wanted = host.gradients(ask, task), alone.gradients(ask, plain_task)
        np.testing.assert_allclose(found.values, wanted.values, atol=1e-4)
        said = GenerationAsk("k", ids, 5)
        assert host.generate(said, task).ids == alone.generate(said, plain_task).ids


def test_a_mixed_batch_equals_single_ones(stage: Stage) -> None:
    a, b = stage.add("a", **ATTENTION), stage.add("b", **WIDE)
    host = stage.host()
    rows = prompts(9)
    found = host.compare_adapters(batch_of(rows), LABELS, [a, "", b])
    for values, adapter in zip(found, (a, "", b), strict=True):
        np.testing.assert_allclose(values, score(host, adapter, rows), atol=EXACT, rtol=ULPS)


class TestMemory:
    def test_the_oldest_goes_and_comes_back_the_same(self, stage: Stage) -> None:
        a, b, c = (stage.add(name, **ATTENTION) for name in ("a", "bb", "ccc"))
        host = stage.host(adapters_kept=2)
        rows = prompts(5)
        first = {name: score(host, name, rows) for name in (a, b)}
        assert host.adapters is not None
        assert host.adapters.resident == (a, b)
        score(host, a, rows)
        score(host, c, rows)
        assert host.adapters.resident == (a, c)
        loads = host.swap_counts().adapter_loads
        np.testing.assert_array_equal(score(host, b, rows), first[b])
        assert host.swap_counts().adapter_loads == loads + 1
        assert host.adapters.resident == (c, b)
        left = [n for n, _ in host.model.named_parameters() if a in n]
        assert left == []

    def test_by_bytes(self, stage: Stage) -> None:
        a, b = (stage.add(name, **ATTENTION) for name in ("a", "bb"))
        size = read_adapter(str(stage.adapters[a])).nbytes
        host = stage.host(adapter_bytes=2 * size - 1)
        assert host.adapters is not None
        for adapter in (a, b):
            score(host, adapter, prompts(2))
            assert host.adapters.resident == (adapter,)
        held = sum(
            p.numel() * p.element_size() for n, p in host.model.named_parameters() if ".lora_" in n
        )
        assert held == size

    def test_more_in_one_batch_than_fit(self, stage: Stage) -> None:
        digests = [stage.add(name, **ATTENTION) for name in ("a", "bb")]
        host = stage.host(adapters_kept=1)
        with pytest.raises(ModelError, match="adapters_kept"):
            host.compare_adapters(batch_of(prompts(2)), LABELS, digests)

    def test_none_at_all_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="adapters_kept"):
            TransformersBackend(HostSpec("x", options={"adapters_kept": 0}))


class TestCanary:
    def test_an_adapter_without_effect(self, stage: Stage) -> None:
        a = stage.add("a", scale=0.0, **ATTENTION)
        host = stage.host()
        for _ in range(2):
            with pytest.raises(AdapterError, match=r"no effect.*lora_B is zero"):
                score(host, a, prompts(2))
        assert host.swap_counts().adapter_loads == 1  # its file is not read again and again
        score(host, "", prompts(2))

    def test_broken_numbers(self, stage: Stage) -> None:
        def broken(tensors: Any) -> Any:
            return {name: torch.full_like(t, float("nan")) for name, t in tensors.items()}

        path = save_adapter(stage.model, stage.folder / "a", **ATTENTION)
        edit_weights(path, broken)
        a = read_adapter(str(path)).digest
        stage.adapters[a] = path
        with pytest.raises(AdapterError, match="NaN"):
            score(stage.host(), a, prompts(2))

    def test_weights_that_are_changed_in_place(self, stage: Stage) -> None:
        a, b = stage.add("a", **ATTENTION), stage.add("bb", **ATTENTION)
        host = stage.host()
        rows = prompts(4)
        first = score(host, a, rows)
        score(host, b, rows)
        for name, parameter in host.model.named_parameters():
            if a in name and "lora_B" in name:
                parameter.data[0, 0] += 1e-3
        with pytest.raises(AdapterError, match="otherwise than when it was first loaded"):
            score(host, a, rows)
        # it was dropped, and comes from its file again
        np.testing.assert_array_equal(score(host, a, rows), first)

    def test_a_base_that_is_changed_in_place(self, stage: Stage) -> None:
        a = stage.add("a", **ATTENTION)
        host = stage.host()
        score(host, a, prompts(2))
        host.model.model.norm.weight.data += 1e-3
        for _ in range(2):
            with pytest.raises(AdapterError, match="with all adapters off"):
                score(host, "", prompts(2))

    def test_a_switch_that_does_nothing(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a = stage.add("a", **ATTENTION)
        host = stage.host()
        score(host, a, prompts(2))
        score(host, "", prompts(2))
        assert host.adapters is not None
        monkeypatch.setattr(host.adapters._layers, "on", lambda adapter: None)
        with pytest.raises(AdapterError, match="no effect"):
            score(host, a, prompts(2))


class TestRefused:
    def test_an_adapter_that_the_host_was_not_told_of(self, stage: Stage) -> None:
        a = stage.add("a", **ATTENTION)
        host = stage.host()
        with pytest.raises(ModelError, match="not told"):
            host.check(batch_of(prompts(1)), ScoreTask(LABELS, adapter="other"))
        stage.adapters.clear()
        with pytest.raises(ModelError, match="without adapters"):
            stage.host().check(batch_of(prompts(1)), ScoreTask(LABELS, adapter=a))

    def test_files_that_changed_since_the_plan_leave_the_others(self, stage: Stage) -> None:
        a, b = stage.add("a", **ATTENTION), stage.add("b", **WIDE)
        edit_config(stage.adapters[a], lora_alpha=99)
        host = stage.host()
        with pytest.raises(ModelError, match="planned"):
            host.check(batch_of(prompts(1)), ScoreTask(LABELS, adapter=a))
        np.testing.assert_allclose(
            score(host, b, prompts(3)), stage.expected(b, prompts(3)), atol=EXACT, rtol=ULPS
        )

    def test_other_embeddings_than_the_bases(self, stage: Stage) -> None:
        other = copy.deepcopy(stage.model)
        other.model.embed_tokens.weight.data += 1.0
        path = save_adapter(
            other, stage.folder / "e", r=4, target_modules=["embed_tokens", "v_proj"]
        )
        digest = read_adapter(str(path)).digest
        stage.adapters[digest] = path
        with pytest.raises(ModelError, match=r"embed_tokens\.weight of its own"):
            score(stage.host(), digest, prompts(1))

    def test_a_file_without_some_of_the_layers(self, stage: Stage) -> None:
        path = save_adapter(stage.model, stage.folder / "a", **ATTENTION)
        edit_weights(path, lambda t: {n: v for n, v in t.items() if ".layers.1." not in n})
        digest = read_adapter(str(path)).digest
        stage.adapters[digest] = path
        with pytest.raises(ModelError, match=r"lacks .*layers\.1\."):
            score(stage.host(), digest, prompts(1))
