"""From a sweep to its trainings; the models are folders without weights worth the name."""

from __future__ import annotations

import importlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, StableLmConfig

from actors import vllm_settings
from actors.adapter_card import CARD
from actors.checkpoints import STATE, folder_of, mark_complete
from actors.loader import choose_device
from actors.precision import resolve_precision
from actors.trainer import CHECKPOINTS
from engine.config import DataConfig, SweepConfig, parse_config
from engine.data import load_examples
from engine.errors import ConfigError
from engine.facts import Lost, ModelFacts
from engine.plan import build_plan, data_source
from engine.types import Example
from jobs.auto_precision import auto_here
from jobs.estimate import print_plan
from jobs.facts import facts_of, model_facts
from jobs.finetune import finetune
from jobs.prepared import prepare
from jobs.sweep import adapters_of
from jobs.training_plan import Training, plan_trainings, with_trained
from tests.unit.fake_sweep import examples_of, sweep


def folder_of_model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    if folder.exists():
        return folder
    folder.mkdir()
    fields = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    LlamaConfig(vocab_size=300, max_position_embeddings=64, **fields).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    kind = '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    (folder / "tokenizer_config.json").write_text(kind, encoding="utf-8")
    save_file({"a": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")
    return folder


EVALUATED = examples_of(["a fine film", "dull"], [1, 0])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def config_of(tmp_path: Path, *given: dict[str, Any], **entry: Any) -> SweepConfig:
    rows = tmp_path / "train.jsonl"
    if not rows.exists():
        lines = [{"text": f"text number {i}", "label": i % 2} for i in range(50)]
        lines.append({"text": "dull", "label": 0})
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    adapters = ["none", {"finetune": "t"}]
    given = given or ({"name": "m", "path": str(folder_of_model(tmp_path))},)
    return sweep(
        "occlusion",
        models=[{"adapters": adapters, **model} for model in given],
        finetune=[{"name": "t", "data": str(rows), "seeds": [0, 1], **entry}],
    )


def planned(
    config: SweepConfig, store: Path, evaluated: Sequence[Example] = EVALUATED
) -> tuple[dict[str, ModelFacts], list[Training]]:
    facts, _ = facts_of(config)
    return facts, plan_trainings(config, facts, evaluated, store)[0]


def finish(training: Training) -> None:
    training.folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["a"], "init_lora_weights": True}
    (training.folder / "adapter_config.json").write_text(json.dumps(config))
    layer = "base_model.model.a"
    weights = {f"{layer}.lora_A.weight": np.ones((2, 4)), f"{layer}.lora_B.weight": np.ones((3, 2))}
    save_file(weights, training.folder / "adapter_model.safetensors")
    (training.folder / CARD).write_text("{}")


def test_one_training_a_model_and_seed_in_a_folder_of_its_fingerprint(
    tmp_path: Path, store: Path
) -> None:
    _, trainings = planned(config_of(tmp_path), store)
    assert [t.adapter for t in trainings] == ["t-seed0", "t-seed1"]
    assert [t.task.seed for t in trainings] == [0, 1]
    for training in trainings:
        assert training.folder == store / "adapters" / training.task.fingerprint
        assert training.place == f"m/fp32 with {training.adapter}"
        assert not training.is_done
        assert len(training.task.data.train) == 50
        assert training.task.data.left_out == {"evaluated": 1}


def test_the_same_training_is_one_for_whoever_asks(tmp_path: Path, store: Path) -> None:
    """Another name, and another model's entry of the same folder and precision."""
    path = str(folder_of_model(tmp_path))
    two = [{"name": "a", "path": path}, {"name": "b", "path": path}]
    _, both = planned(config_of(tmp_path, *two), store)
    assert len(both) == 4
    assert len({t.folder for t in both}) == 2
    _, other = planned(config_of(tmp_path, {"path": path, "precision": "bf16"}), store)
    assert not {t.folder for t in other} & {t.folder for t in both}


class TestPrecision:
    """An adapter is named by the number format that it is trained in, wherever that is."""

    def trained_in(self, tmp_path: Path, auto: Any, **model: Any) -> tuple[str, str]:
        config = config_of(tmp_path, {"path": str(folder_of_model(tmp_path)), **model})
        facts, _ = facts_of(config)
        [training, _], _ = plan_trainings(config, facts, EVALUATED, tmp_path / "store", auto)
        return training.task.precision, training.fingerprint

    def test_auto_is_what_it_comes_to(self, tmp_path: Path) -> None:
        plain = {p: self.trained_in(tmp_path, None, precision=p) for p in ("fp32", "bf16")}
        for precision, expected in plain.items():
            found = self.trained_in(tmp_path, lambda _, p=precision: p, precision="auto")
            assert found == expected

    def test_here_where_no_cluster_is_joined(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        # a Ray of other tests may be up in this process
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        here = resolve_precision("auto", choose_device("auto"))
        assert self.trained_in(tmp_path, auto_here, precision="auto")[0] == here
        monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
        assert self.trained_in(tmp_path, auto_here, precision="auto")[0] == "auto"

    def test_the_ray_of_this_process_may_have_other_machines(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("ray.is_initialized", lambda: True)
        assert self.trained_in(tmp_path, auto_here, precision="auto")[0] == "auto"

    def test_scales_of_scales_are_part_of_a_base_in_four_bits(self, tmp_path: Path) -> None:
        def named(**model: Any) -> str:
            return self.trained_in(tmp_path, None, **model)[1]

        assert named(precision="nf4") != named(precision="nf4", double_quant=False)
        assert named(precision="fp32") == named(precision="fp32", double_quant=False)

    def test_a_checkpoint_that_is_quantized_already_loads_as_it_is(self, tmp_path: Path) -> None:
        file = folder_of_model(tmp_path) / "config.json"
        method = {"quant_method": "gptq", "bits": 4}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": method}))
        config = config_of(tmp_path, {"path": str(tmp_path / "tiny"), "precision": "auto"})
        known = model_facts(config.models[0])
        [training, _], _ = plan_trainings(config, {"tiny/auto": known}, EVALUATED, tmp_path)
        assert training.task.precision == "gptq"
        assert training.task.as_stored


@pytest.mark.parametrize(
    ("entry", "steps"),
    [
        ({}, 4),  # 50 examples in batches of 16
        ({"epochs": 2}, 8),
        ({"epochs": 0.5}, 2),
        ({"batch_size": 8, "gradient_accumulation": 2}, 4),
        ({"batch_size": 8, "gradient_accumulation": 4, "epochs": 3}, 6),
        ({"validation": 0.2}, 3),
    ],
)
def test_steps(tmp_path: Path, store: Path, entry: dict[str, Any], steps: int) -> None:
    _, trainings = planned(config_of(tmp_path, **entry), store)
    assert {t.steps for t in trainings} == {steps}


def test_tokens_are_about_those_of_the_rows(tmp_path: Path, store: Path) -> None:
    config = config_of(tmp_path, epochs=3)
    _, [training, _] = planned(config, store)
    rendered = [
        f"Review: {example.fields['text']}\nSentiment:" for example in training.task.data.train
    ]
    labels = training.task.labels.token_ids
    exact = sum(map(len, rendered)) + sum(
        len(labels[example.label or 0]) for example in training.task.data.train
    )
    assert training.tokens() == pytest.approx(3 * exact, rel=0.02)


class TestWhatIsThere:
    def test_beforehand_the_plan_is_whole(self, tmp_path: Path, store: Path) -> None:
        config = config_of(tmp_path)
        facts, trainings = planned(config, store)
        finish(trainings[1])
        facts, lost = with_trained(facts, trainings)
        assert lost == []
        adapters = facts["m/fp32"].adapters
        assert adapters["t-seed0"].digest == f"untrained {trainings[0].fingerprint}"
        assert len(adapters["t-seed1"].digest) == 64
        plan = build_plan(config, EVALUATED, facts, store)
        names = [pair.context.factors["adapter"] for pair in plan.pairs.values()]
        assert names == ["none", "t-seed0", "t-seed1"]

    def test_what_failed_is_lost_and_the_others_go_on(self, tmp_path: Path, store: Path) -> None:
        config = config_of(tmp_path)
        facts, trainings = planned(config, store)
        finish(trainings[1])
        facts, lost = with_trained(facts, trainings, {trainings[0].fingerprint: "out of memory"})
        assert lost == [Lost("m", "fp32", "t-seed0", "not_trained", "out of memory")]
        plan = build_plan(config, EVALUATED, facts, store)
        names = [pair.context.factors["adapter"] for pair in plan.pairs.values()]
        assert names == ["none", "t-seed1"]

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", CARD])
    def test_what_is_damaged_is_trained_again(self, tmp_path: Path, store: Path, name: str) -> None:
        facts, trainings = planned(config_of(tmp_path), store)
        for training in trainings:
            finish(training)
        damaged = trainings[0].folder / name
        damaged.write_bytes(damaged.read_bytes()[:-1])
        assert [training.is_done for training in trainings] == [False, True]
        before, lost = with_trained(facts, trainings)
        assert [a.is_untrained for a in before["m/fp32"].adapters.values()] == [True, False]
        assert not lost
        after, [lost_one] = with_trained(facts, trainings, {trainings[0].fingerprint: "no room"})
        assert list(after["m/fp32"].adapters) == ["t-seed1"]
        assert lost_one.message == "no room"

    def test_where_a_training_goes_on(self, tmp_path: Path, store: Path) -> None:
        _, [training, other] = planned(config_of(tmp_path), store)
        checkpoints = training.folder / CHECKPOINTS
        folder_of(checkpoints, 3).mkdir(parents=True)
        (folder_of(checkpoints, 3) / STATE).write_text('{"global_step": 3}')
        assert training.step_done == 0
        mark_complete(checkpoints, 3)
        assert training.step_done == 3
        assert other.step_done == 0


def test_the_plan_says_what_will_be_trained(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_of(tmp_path, seeds=[0, 1, 2])
    path = config.finetune[0].data.path
    config = config.model_copy(update={"data": DataConfig(path=path, limit=4)})
    _, trainings = planned(config, tmp_path / "store", load_examples(data_source(config)).examples)
    finish(trainings[0])
    checkpoints = trainings[1].folder / CHECKPOINTS
    folder_of(checkpoints, 2).mkdir(parents=True)
    (folder_of(checkpoints, 2) / STATE).write_text('{"global_step": 2}')
    mark_complete(checkpoints, 2)
    out = io.StringIO()
    print_plan(config, Console(file=out, width=200))
    rows = {
        cells[1]: cells[2:6]
        for line in out.getvalue().splitlines()
        if "with t-seed" in line and (cells := [c.strip() for c in line.split("│")])
    }
    assert {name: cells[:2] for name, cells in rows.items()} == {
        f"m/fp32 with t-seed{seed}": ["47", "3"] for seed in range(3)
    }
    times = [cells[3] for cells in rows.values()]
    assert times[0] == "trained"
    assert times[1].endswith("2 steps done")
    assert times[2].endswith(" s")
    assert "m|fp32|t-seed2|review" in out.getvalue()


class TestAdapterOfAnotherBase:
    """Of the same shapes: the weights differ, and the folder's name."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        other = tmp_path / "other"
        shutil.copytree(folder_of_model(tmp_path), other)
        save_file({"a": np.ones((3, 4), np.float32)}, other / "model.safetensors")
        return other

    @pytest.fixture
    def adapter(self, tmp_path: Path, store: Path) -> Path:
        facts, [training, _] = planned(config_of(tmp_path), store)
        finish(training)
        model = {"weights": facts["m/fp32"].digest, "path": str(tmp_path / "tiny")}
        (training.folder / CARD).write_text(json.dumps({"model": model}))
        config = json.loads((training.folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "owner/tiny"
        (training.folder / "adapter_config.json").write_text(json.dumps(config))
        return training.folder

    def config(self, adapter: Path, *bases: Path) -> SweepConfig:
        adapters = ["none", {"name": "tuned", "path": str(adapter)}]
        return sweep(
            "occlusion",
            models=[{"path": str(base), "adapters": adapters} for base in bases],
            data={"path": "bundled:reviews", "limit": 2},
        )

    def test_is_refused_by_its_card(self, tmp_path: Path, adapter: Path, other: Path) -> None:
        facts, [lost] = facts_of(self.config(adapter, tmp_path / "tiny", other))
        assert list(facts["tiny/fp32"].adapters) == ["tuned"]
        assert not facts["tiny/fp32"].adapters["tuned"].warning
        assert not facts["other/fp32"].adapters
        assert (lost.model, lost.adapter, lost.code) == ("other", "tuned", "no_adapter")
        assert "trained on" in lost.message

    def test_is_warned_of_where_there_is_no_card(
        self, tmp_path: Path, adapter: Path, other: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (adapter / CARD).unlink()
        out = io.StringIO()
        config = self.config(adapter, tmp_path / "tiny", other)
        print_plan(config, Console(file=out, width=400))
        [warning] = [line for line in out.getvalue().splitlines() if "warning: " in line]
        assert f"trained on owner/tiny, and is served on {other}" in warning
        plan, _ = prepare(config).plan()
        adapters = adapters_of(plan)  # as run.json has them
        assert "warning" not in adapters["tiny/fp32"]["tuned"]
        assert adapters["other/fp32"]["tuned"]["warning"] in warning


def test_a_prompt_that_does_not_fit_one_model_leaves_the_others(
    tmp_path: Path, store: Path
) -> None:
    """The prompt is a chat, and of two models only one has a chat template."""
    folder = folder_of_model(tmp_path)
    chatting = tmp_path / "chatting"
    shutil.copytree(folder, chatting)
    kind = json.loads((chatting / "tokenizer_config.json").read_text())
    kind["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (chatting / "tokenizer_config.json").write_text(json.dumps(kind))
    config = config_of(tmp_path, {"path": str(folder)}, {"path": str(chatting)})
    raw = config.model_dump(mode="json", by_alias=True)
    raw["data"]["limit"] = 2
    raw["run"]["store"] = str(store)
    [prompt] = raw["prompts"]
    del prompt["template"]
    prompt["chat"] = [{"role": "user", "content": "{text}"}]
    plan, lost = prepare(parse_config(raw)).plan()
    assert {pair.model.label for pair in plan.pairs.values()} == {"chatting"}
    assert len(plan.pairs) == 3
    assert {(each.model, each.adapter, each.prompt, each.code) for each in lost} == {
        ("tiny", "t-seed0", "", "prompt_unfit"),
        ("tiny", "t-seed1", "", "prompt_unfit"),
        ("tiny", "", "review", "prompt_unfit"),
    }
    assert all("this model has no chat template" in each.message for each in lost)
    raw["models"] = raw["models"][:1]
    with pytest.raises(ConfigError, match="this model has no chat template"):
        prepare(parse_config(raw))


def test_data_and_models_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []

    def counted(module: str, name: str) -> None:
        real = getattr(importlib.import_module(module), name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(f"{module}.{name}", call)

    counted("jobs.prepared", "load_examples")
    counted("jobs.training_plan", "load_training_data")
    counted("actors.loader", "load_tokenizer_spec")
    path = str(folder_of_model(tmp_path))
    config = config_of(tmp_path, {"path": path}, {"path": path, "precision": "bf16"})
    config = config.model_copy(update={"data": DataConfig(path="bundled:reviews", limit=2)})
    print_plan(config, Console(file=io.StringIO()))
    names = ["load_examples", "load_tokenizer_spec", "load_training_data"]
    assert sorted(calls) == names
    # trainings fail or don't: the plan follows without looking again
    prepared = prepare(config)
    untrained = {training.fingerprint: "no room" for training in prepared.trainings}
    before, after = prepared.plan()[0], prepared.plan(untrained)[0]
    assert sorted(calls) == sorted([*names, *names])
    assert (len(before.pairs), len(after.pairs)) == (6, 2)


def test_a_label_that_does_not_fit_the_prompt_is_refused(tmp_path: Path, store: Path) -> None:
    config = config_of(tmp_path)
    raw = config.model_dump(mode="json", by_alias=True)
    raw["prompts"][0]["labels"] = {"negative": " a", "positive": " ab"}
    with pytest.raises(ConfigError, match=r"prompt\.labels: the label 'negative' can't be told"):
        planned(parse_config(raw), store)


class TestVllm:
    """Adapters that vLLM couldn't serve afterwards are refused and not trained."""

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vllm_settings, "is_installed", lambda: True)

    @pytest.fixture
    def stablelm(self, tmp_path: Path) -> dict[str, Any]:
        folder = folder_of_model(tmp_path)
        fields = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        StableLmConfig(vocab_size=300, max_position_embeddings=64, **fields).save_pretrained(folder)
        return {"name": "m", "path": str(folder)}

    def test_a_family_without_adapters(
        self, tmp_path: Path, store: Path, stablelm: dict[str, Any]
    ) -> None:
        both = [{**stablelm, "backend": "vllm"}, {**stablelm, "name": "other"}]
        config = config_of(tmp_path, *both)
        facts, trainings = planned(config, store)
        assert [t.place for t in trainings] == [f"other/fp32 with t-seed{i}" for i in range(2)]
        plan = build_plan(config, EVALUATED, with_trained(facts, trainings)[0], store)
        adapters = [pair.context.factors["adapter"] for pair in plan.pairs.values()]
        assert adapters == ["none", "none", "t-seed0", "t-seed1"]
        out = io.StringIO()
        print_plan(config, Console(file=out, soft_wrap=True))
        said = [line for line in out.getvalue().splitlines() if line.startswith("failure: ")]
        assert said == [
            f"failure: m/fp32 with t-seed{i}: adapter 't-seed{i}' of {stablelm['path']}: vLLM "
            "serves no LoRA adapters of the family stablelm; use backend transformers"
            for i in range(2)
        ]

    def test_where_nothing_else_is_to_be_trained(
        self, tmp_path: Path, stablelm: dict[str, Any]
    ) -> None:
        config = config_of(tmp_path, {**stablelm, "backend": "vllm"})
        with pytest.raises(ConfigError, match=r"'t-seed0' .* the family stablelm"):
            finetune(config, Console(file=io.StringIO()))

    def test_a_rank_that_it_has_no_room_for(self, tmp_path: Path, store: Path) -> None:
        llama = {"name": "m", "path": str(folder_of_model(tmp_path)), "backend": "vllm"}
        assert len(planned(config_of(tmp_path, llama), store)[1]) == 2
        config = config_of(tmp_path, llama, rank=600)
        assert planned(config, store)[1] == []
        assert "its rank is 600" in facts_of(config)[1][0].message
