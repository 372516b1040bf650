from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from actors import vllm_settings
from actors.sources import resolve_model
from engine.adapter_section import WantedAdapter
from engine.config import ClusterConfig, ModelConfig, SweepConfig
from engine.errors import ConfigError, ModelError
from jobs.facts import adapter_facts, facts_of, host_spec, model_facts, model_path
from tests.unit.fake_sweep import sweep


def model(path: str = "fake:linear", **fields: Any) -> ModelConfig:
    return ModelConfig(path=path, **fields)


def sweep_of(*models: ModelConfig) -> SweepConfig:
    return sweep().model_copy(update={"models": list(models)})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


class TestFakeModels:
    def test_need_no_files(self) -> None:
        facts = model_facts(model())
        assert facts.tokenizer == "bytes"
        assert facts.chat is None
        assert facts.parameters is None

    def test_window(self) -> None:
        assert model_facts(model(options={"max_tokens": 77})).max_tokens == 77
        assert model_facts(model()).max_tokens > 1000

    def test_digest_follows_the_answers_not_their_speed(self) -> None:
        base = model_facts(model()).digest
        assert model_facts(model("fake:and_or")).digest != base
        assert model_facts(model(options={"bias": 1.0})).digest != base
        assert model_facts(model(options={"seconds_per_token": 1e-6})).digest == base

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            (model("fake:linaer"), "fake:linear"),
            (model(options={"wieghts": {}}), "weights"),
            (model(options={"weights": {"good": "much"}}), "good"),
            (model("fake:planted"), "weights"),
        ],
    )
    def test_wrong_options_are_refused_before_anything_runs(
        self, bad: ModelConfig, said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            model_facts(bad)


class TestFactsOf:
    def test_a_missing_model_leaves_the_others(self, tmp_path: Path) -> None:
        gone = model(str(tmp_path / "gone"), precision="bf16")
        facts, lost = facts_of(sweep_of(model(), gone))
        assert list(facts) == ["fake:linear/fp32"]
        assert [each.place for each in lost] == ["gone/bf16"]
        assert str(tmp_path / "gone") in lost[0].message

    def test_none_of_them(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError) as error:
            facts_of(sweep_of(*(model(str(tmp_path / name)) for name in ("a1", "b2"))))
        assert "a1" in str(error.value)
        assert "b2" in str(error.value)

    def test_what_several_entries_name_is_looked_for_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The hub may take seconds to say that it can't be reached."""
        asked = []

        def resolve(path: str, *args: Any) -> Any:
            asked.append(path)
            return resolve_model(path, *args)

        monkeypatch.setattr("actors.loader.resolve_model", resolve)
        gone = [model("owner/gone", precision=p) for p in ("fp32", "bf16", "nf4")]
        _, lost = facts_of(sweep_of(model(), *gone))
        assert [each.precision for each in lost] == ["fp32", "bf16", "nf4"]
        assert len({each.message for each in lost}) == 1
        assert asked.count("owner/gone") == 1
        other = model("owner/gone", revision="v2")
        assert len(facts_of(sweep_of(model(), *gone, other))[1]) == 4
        assert asked.count("owner/gone@v2") == 1

    def test_the_same_model_in_two_precisions(self) -> None:
        facts, _ = facts_of(sweep_of(model(), model(precision="bf16")))
        assert list(facts) == ["fake:linear/fp32", "fake:linear/bf16"]


class TestLocalFolder:
    """A folder as save_pretrained leaves it, far too small to be a model."""

    @pytest.fixture
    def folder(self, tmp_path: Path, tokenizer_json: str) -> Path:
        from safetensors.numpy import save_file
        from transformers import LlamaConfig

        folder = tmp_path / "tiny"
        folder.mkdir()
        LlamaConfig(
            hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1,
            vocab_size=300, max_position_embeddings=64,
        ).save_pretrained(folder)  # fmt: skip
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8"
        )
        weights = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float32)}
        save_file(weights, folder / "model.safetensors")
        return folder

    @pytest.fixture
    def tokenizer_json(self) -> str:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({s: i for i, s in enumerate(alphabet)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return str(tokenizer.to_str())

    def test_facts(self, folder: Path) -> None:
        facts = model_facts(model(str(folder)))
        assert facts.max_tokens == 64
        assert facts.parameters == 3 * 4 + 5
        assert facts.chat is None
        assert '"BPE"' in facts.tokenizer


def test_specification_of_a_host() -> None:
    spec = host_spec(model("fake:linear", options={"bias": 1.0}))
    assert (spec.model, spec.backend, spec.options) == ("fake:linear", "fake", {"bias": 1.0})
    spec = host_spec(model("owner/name", revision="abc", precision="bf16"), device="cuda")
    assert (spec.model, spec.backend) == ("owner/name@abc", "transformers")
    assert (spec.precision, spec.device) == ("bf16", "cuda")
    assert model_path(model("owner/name")) == "owner/name"


class TestVllm:
    def test_is_asked_for_by_its_name(self) -> None:
        served = model("owner/name", backend="vllm", options={"block_size": 64})
        spec = host_spec(served)
        assert (spec.backend, spec.options) == ("vllm", {"block_size": 64})
        assert host_spec(model("owner/name")).backend == "transformers"

    def test_a_model_is_lost_where_it_is_not_installed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vllm_settings, "is_installed", lambda: False)
        facts, lost = facts_of(sweep_of(model(), model("owner/name", backend="vllm")))
        assert list(facts) == ["fake:linear/fp32"]
        assert "make vllm" in lost[0].message

    def test_its_options_are_checked_first(self) -> None:
        with pytest.raises(ConfigError, match="no option 'packing'"):
            model_facts(model("owner/name", backend="vllm", options={"packing": False}))

    def test_adapters_that_it_can_not_serve(self, tmp_path: Path) -> None:
        base, adapter = tmp_path / "base", tmp_path / "adapter"
        base.mkdir()
        adapter.mkdir()
        (base / "config.json").write_text("{}")
        save_file({"q.weight": np.zeros((4, 4), np.float32)}, base / "model.safetensors")
        config = '{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "lora_bias": true}'
        (adapter / "adapter_config.json").write_text(config)
        save_file(
            {
                "base_model.model.q.lora_A.weight": np.zeros((2, 4), np.float32),
                "base_model.model.q.lora_B.weight": np.zeros((4, 2), np.float32),
            },
            adapter / "adapter_model.safetensors",
        )
        wanted = WantedAdapter("biased", str(adapter))
        with pytest.raises(ModelError, match=r"lora_bias.*use backend transformers"):
            adapter_facts(model(str(base), backend="vllm"), wanted)
        assert adapter_facts(model(str(base)), wanted).path == str(adapter)

    @pytest.mark.parametrize("installed", [True, False])
    def test_families_that_it_serves_no_adapters_of(
        self, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Told before an adapter's files are looked at, and where vLLM isn't here."""
        monkeypatch.setattr(vllm_settings, "is_installed", lambda: installed)
        config = {"model_type": "stablelm", "hidden_size": 8, "max_position_embeddings": 64}
        (tmp_path / "config.json").write_text(json.dumps(config))
        fields = {"name": "s", "backend": "vllm", "adapters": ["none", "nowhere"]}
        served = ModelConfig.model_validate({"path": str(tmp_path), **fields})
        lost = facts_of(sweep_of(model(), served))[1]
        refused = next(each for each in lost if each.adapter)
        assert (refused.place, refused.code) == ("s/fp32 with nowhere", "no_adapter")
        assert refused.message == (
            f"adapter 'nowhere' of {tmp_path}: vLLM serves no LoRA adapters of the family "
            "stablelm; use backend transformers"
        )
        plain = served.model_copy(update={"backend": None})
        assert not any("stablelm" in each.message for each in facts_of(sweep_of(model(), plain))[1])

    def test_a_family_may_be_known_by_the_model_s_name(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vllm_settings, "is_installed", lambda: False)
        fields = {"backend": "vllm", "adapters": ["none", "owner/adapter"]}
        zephyr, phi = (
            ModelConfig.model_validate({"path": path, **fields})
            for path in ("stabilityai/stablelm-zephyr-3b", "microsoft/phi-1_5")
        )
        _, lost = facts_of(sweep_of(model(), zephyr, phi))
        assert [each.place for each in lost] == [
            "stablelm-zephyr-3b/fp32 with adapter",
            "stablelm-zephyr-3b/fp32",
            "phi-1_5/fp32",
        ]
        assert "family stablelm" in lost[0].message


class TestMemory:
    """What is too large is lost as a model of its own, with the arithmetic; the others go on."""

    @pytest.fixture
    def large(self, tmp_path: Path) -> ModelConfig:
        from tests.models.trainings import save_tiny

        return model(str(save_tiny(tmp_path / "large")))

    def test_refused(self, large: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("actors.memory_need.device_memory", lambda device: 1_000_000)
        facts, lost = facts_of(sweep_of(model(), large))
        assert list(facts) == ["fake:linear/fp32"]
        [refused] = lost
        assert refused.code == "too_large"
        assert "million weights × 4.00 bytes in fp32" in refused.message

    def test_hosts_that_share_a_machine_are_counted(
        self, large: ModelConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("actors.memory_need.device_memory", lambda device: 1_500_000_000)
        assert not facts_of(sweep_of(large))[1]
        two = sweep_of(model(), large).model_copy(
            update={"cluster": ClusterConfig.model_validate({"hosts": 2})}
        )
        [refused] = facts_of(two)[1]
        assert "2 times (2 hosts)" in refused.message
