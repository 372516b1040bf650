"""What `rayxai plan` says of families whose models aren't here, and of one that is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from actors.family_lookup import KNOWN, KnownModel, find_config, find_family, known_model
from engine.config import load_config
from engine.errors import ModelError
from jobs.estimate import print_plan
from jobs.family_plan import lines_of, print_families
from tests.unit.fake_sweep import sweep

ROOT = Path(__file__).resolve().parents[3]
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
LLAMA = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


@pytest.fixture(autouse=True)
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def said(path: str) -> str:
    return "\n".join(lines_of(find_family(path), "cpu"))


def test_the_known_models_are_those_of_the_original() -> None:
    assert len(KNOWN) == len({model.hub_id for model in KNOWN}) == 17
    assert {model.model_type for model in KNOWN} == {
        "llama", "phi", "qwen2", "gemma3_text", "granitemoe", "stablelm", "granite", "gpt_neox",
        "mistral",
    }  # fmt: skip


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.hub_id)
def test_a_name_alone_gives_family_and_targets(model: KnownModel) -> None:
    found = find_family(model.hub_id)
    assert found.model_type == model.model_type
    assert found.facts is None
    assert found.lora_targets
    text = said(model.hub_id)
    assert f"{model.hub_id}: {model.model_type} (by name); LoRA on {found.lora_targets[0]}" in text
    assert "unknown without its config.json: number of weights, memory" in text
    assert "can't be had: the hub's cache doesn't have it" in text
    assert "HF_HUB_OFFLINE is set" in text
    assert ("accept the licence" in text) == model.gated


def test_families_whose_targets_differ() -> None:
    assert LLAMA in said("tiiuae/Falcon3-7B-Instruct")  # a Llama, whatever its name says
    assert "LoRA on q_proj, k_proj, v_proj, dense, fc1, fc2; packed" in said("microsoft/phi-1_5")
    neox = said("togethercomputer/RedPajama-INCITE-Instruct-3B-v1")
    assert "LoRA on query_key_value, dense, dense_h_to_4h, dense_4h_to_h; packed" in neox
    moe = said("ibm-granite/granite-3.1-3b-a800m-instruct")
    assert "LoRA on q_proj, k_proj, v_proj, o_proj; packed" in moe
    assert "vLLM serves no adapters of it" in said("stabilityai/stablelm-zephyr-3b")


def test_a_mirror_has_the_family_of_its_original() -> None:
    assert known_model("unsloth/Llama-3.2-1B") == known_model("meta-llama/Llama-3.2-1B")
    assert known_model("owner/Llama-3.2-1B-other") is None


def test_a_configuration_at_hand_gives_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "smol"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMOLLM2))
    text = said(str(folder))
    assert f"{folder}: llama (LlamaForCausalLM, 134.5 M weights); LoRA on {LLAMA}; packed" in text
    # 106,168,320 weights in packed layers, 28,346,688 in the tied embedding and the norms
    assert "weights alone on cpu, GB: fp32 0.54, 16 bit 0.27, int8 0.22, 4 bit 0.17" in text
    assert "can't be had" not in text


def test_a_checkpoint_that_is_quantized_already_takes_what_its_files_do(tmp_path: Path) -> None:
    method = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2 | method))
    assert "unknown without its files, which are quantized already: memory" in said(str(tmp_path))
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(140_000_000)
    assert "  weights alone on cpu, GB: awq 0.14\n" in said(str(tmp_path)) + "\n"


def test_a_configuration_in_the_hubs_cache_is_enough(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(json.dumps(SMOLLM2))
    assert find_family("owner/name").facts is not None


def test_an_unknown_name_says_so() -> None:
    text = said("owner/unheard-of")
    assert "owner/unheard-of: family, LoRA targets and memory are unknown" in text
    assert "can't be had: the hub's cache doesn't have it" in text
    assert "no folder ./nowhere" in said("./nowhere")


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(self: object, repo: str, **options: object) -> None:
        asked.append(repo)
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ModelError, match="no route to host"):
        find_config("owner/name")
    assert asked == ["owner/name"]


def test_a_gated_model_says_so_and_never_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object, repo: str, **options: object) -> None:
        raise ConnectionError("403 for hf_secret")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refused)
    text = said("meta-llama/Llama-3.2-1B")
    assert "403" in text
    assert "accept the licence on its page at huggingface.co/meta-llama/Llama-3.2-1B" in text
    assert "hf_secret" not in text


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_family"}')
    assert "config.json can't be read" in said(str(tmp_path))


def test_each_model_is_told_once_and_fakes_not_at_all() -> None:
    models = [
        {"path": "fake:linear"},
        {"path": "microsoft/phi-1_5", "precision": "fp32"},
        {"path": "microsoft/phi-1_5", "precision": "bf16"},
    ]
    out = io.StringIO()
    print_families(sweep(models=models), Console(file=out, soft_wrap=True))
    assert out.getvalue().count("microsoft/phi-1_5: phi") == 1
    assert "fake" not in out.getvalue()


def test_the_sweep_of_the_original_names_the_known_models() -> None:
    config = load_config(ROOT / "configs" / "families_gpu.yaml")
    assert list(dict.fromkeys(m.path for m in config.models)) == [m.hub_id for m in KNOWN]
    for precision in ("nf4", "auto"):
        assert sum(m.precision == precision for m in config.models) == len(KNOWN)
    assert all([a.label for a in m.adapters] == ["none", "tuned"] for m in config.models)


def test_families_are_told_where_no_model_can_be_had() -> None:
    config = sweep(models=[{"path": "microsoft/phi-1_5"}])
    out = io.StringIO()
    with pytest.raises(ModelError, match="phi-1_5"):
        print_plan(config, Console(file=out, soft_wrap=True))
    assert "microsoft/phi-1_5: phi (by name)" in out.getvalue()
