"""Fine-tuning of a tiny model: what is learned, what is kept, and what a kill costs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actors.adapter_files import read_adapter
from actors.checkpoints import COMPLETE, last_checkpoint
from actors.label_scorer import LabelScorer
from actors.label_trainer import LabelTrainer, Validation, validate
from actors.loader import load_model
from actors.lora import target_modules, with_adapter
from actors.precision import resolve_precision
from actors.trainer import CHECKPOINTS, PROGRESS, read_card, train_adapter, training_arguments
from actors.training_lock import HeldError
from actors.training_rows import encode
from engine.errors import ModelError
from engine.training import TrainingTask
from tests.models.tiny import build
from tests.models.trainings import LABELS, save_tiny, sweep_of, tasks_of, write_rows

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).resolve().parents[2]
LEARNS = {"batch_size": 8, "learning_rate": 0.03, "rank": 8}
Make = Callable[..., TrainingTask]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", 64)


@pytest.fixture(scope="module")
def make(model: Path, rows: Path) -> Make:
    def task(**entry: Any) -> TrainingTask:
        [made] = tasks_of(sweep_of(model, rows, **{**LEARNS, **entry}))
        return made

    return task


@pytest.fixture(scope="module")
def trained(make: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingTask, Path]:
    task = make(validation=0.25, epochs=4, save_steps=5)
    folder = tmp_path_factory.mktemp("trained")
    train_adapter(task, folder)
    return task, folder


class TestTraining:
    def test_learns_what_one_word_decides(self, trained: tuple[TrainingTask, Path]) -> None:
        card = read_card(trained[1])
        assert card is not None
        loss, checked = card["curves"]["loss"], card["curves"]["validation"]
        assert loss[-1]["loss"] < loss[0]["loss"] / 4
        assert checked[0]["accuracy"] < 1.0
        assert checked[-1]["accuracy"] == card["validation"]["accuracy"] == 1.0

    def test_leaves_an_adapter_and_its_card_and_nothing_else(
        self, trained: tuple[TrainingTask, Path], model: Path
    ) -> None:
        task, folder = trained
        names = {path.name for path in folder.iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors", "card.json", "lock"}
        files = read_adapter(str(folder))
        assert files.config["base_model_name_or_path"] == str(model)
        assert files.config["target_modules"] == sorted(files.config["target_modules"])
        card = read_card(folder)
        assert card is not None
        assert card["fingerprint"] == task.fingerprint
        assert card["data"]["trained_on"] == 48
        assert card["data"]["left_out"] == {"for_validation": 16}
        assert sum(card["data"]["by_label"].values()) == 48
        assert card["validation"]["examples"] == 16
        assert card["steps"] == card["kept_step"] == 24
        assert not card["stopped_early"]
        tensors = load_file(str(folder / "adapter_model.safetensors"))
        assert card["trained_parameters"] == sum(t.numel() for t in tensors.values())
        lengths = [len(row.ids) for row in encode(*_of(task, task.data.train))]
        assert card["tokens"] == 4 * sum(lengths)

    def test_peft_loads_it_and_it_answers_as_it_was_validated(
        self, trained: tuple[TrainingTask, Path], model: Path
    ) -> None:
        task, folder = trained
        held = encode(*_of(task, task.data.validation))
        base = AutoModelForCausalLM.from_pretrained(model)
        adapted: Any = PeftModel.from_pretrained(base, str(folder)).eval()
        scorer = LabelScorer(adapted.get_base_model(), "full", None)
        with adapted.disable_adapter():
            before = validate(scorer, Validation(held, task.labels))
        after = validate(scorer, Validation(held, task.labels))
        card = read_card(folder)
        assert card is not None
        assert after["accuracy"] == 1.0 > before["accuracy"]
        assert after["loss"] == pytest.approx(card["validation"]["loss"], rel=1e-4)

    def test_what_is_trained_is_not_trained_again(
        self, trained: tuple[TrainingTask, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        task, folder = trained
        monkeypatch.setattr("actors.trainer._train", None)  # a call would fail
        assert train_adapter(task, folder) == read_card(folder)

    def test_what_is_damaged_is_trained_again(self, make: Make, tmp_path: Path) -> None:
        task = make(epochs=0.2)
        train_adapter(task, tmp_path)
        weights = tmp_path / "adapter_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-8])
        train_adapter(task, tmp_path)
        assert weights.read_bytes() == whole

    def test_equal_seeds_give_equal_adapters(self, make: Make, tmp_path: Path) -> None:
        digests = []
        for name, seeds in (("a", [0]), ("b", [0]), ("c", [1])):
            [task] = tasks_of_seed(make, seeds)
            train_adapter(task, tmp_path / name)
            digests.append(read_adapter(str(tmp_path / name)).digest)
        assert digests[0] == digests[1] != digests[2]

    def test_too_long_prompts_are_left_out_whole_and_counted(
        self, make: Make, tmp_path: Path
    ) -> None:
        task = make(epochs=1)
        lengths = sorted(len(row.ids) for row in encode(*_of(task, task.data.train)))
        short = make(epochs=1, max_tokens=lengths[31])
        card = train_adapter(short, tmp_path / "short")
        kept = sum(1 for length in lengths if length <= lengths[31])
        assert card["data"]["trained_on"] == kept
        assert card["data"]["left_out"] == {"too_long": 64 - kept}
        with pytest.raises(ModelError, match="no example fits into 3 tokens"):
            train_adapter(make(max_tokens=3), tmp_path / "none")

    def test_labels_of_several_tokens_are_learned_whole(self, make: Make, tmp_path: Path) -> None:
        task = make(validation=0.25, epochs=3)
        assert [len(ids) for ids in task.labels.token_ids] == [4, 5]  # they are bytes
        assert LABELS == {"negative": " bad", "positive": " good"}
        assert train_adapter(task, tmp_path)["validation"]["accuracy"] == 1.0

    def test_a_training_that_diverges_makes_no_adapter(self, make: Make, tmp_path: Path) -> None:
        task = make(epochs=1, learning_rate=1e30, warmup=0, schedule="constant")
        with pytest.raises(ModelError, match="diverged"):
            train_adapter(task, tmp_path)
        assert read_card(tmp_path) is None

    def test_other_weights_than_planned_are_refused(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="other weights here"):
            train_adapter(replace(make(), weights="0" * 64), tmp_path)

    def test_fp16_needs_a_gpu(self, make: Make, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="fp16 can't be trained on a CPU"):
            train_adapter(replace(make(), precision="fp16"), tmp_path, device="cpu")

    def test_the_card_says_what_auto_was(self, make: Make, tmp_path: Path) -> None:
        task = replace(make(epochs=0.2), precision="auto")
        card = train_adapter(task, tmp_path, device="cpu")
        came_to = resolve_precision("auto", "cpu")
        assert card["model"]["precision"] == came_to
        assert card["fingerprint"] == replace(task, precision=came_to).fingerprint

    @pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"save_steps": 2}])
    def test_what_is_no_part_of_the_recipe_changes_nothing(
        self, make: Make, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        plain, other = make(epochs=1, dropout=0.1), make(epochs=1, dropout=0.1, **changes)
        assert plain.fingerprint == other.fingerprint
        train_adapter(plain, tmp_path / "plain")
        train_adapter(other, tmp_path / "other")
        assert _difference(tmp_path / "plain", tmp_path / "other") < 1e-5

    def test_bf16_and_accumulated_batches_learn_too(self, make: Make, tmp_path: Path) -> None:
        task = make(validation=0.25, epochs=6, batch_size=4, gradient_accumulation=2)
        card = train_adapter(replace(task, precision="bf16"), tmp_path)
        assert card["steps"] == 36
        assert card["validation"]["accuracy"] == 1.0


class TestLoss:
    @pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "gpt2", "falcon"])
    def test_is_that_of_the_label_s_tokens_alone(
        self, family: str, make: Make, tmp_path: Path
    ) -> None:
        """Token by token, from the plain logits of each row by itself."""
        task = make(epochs=1)
        rows = [
            row._replace(ids=tuple(3 + i % 90 for i in row.ids))
            for row in encode(*_of(task, task.data.train[:6]))
        ]
        base = build(family)
        adapted = with_adapter(base, task.entry)
        args = training_arguments(task, len(rows), False, tmp_path, base)
        trainer = LabelTrainer(adapted, args, rows, None, None, lambda _: None)
        batch = trainer.data_collator(rows)
        n_tokens = sum(len(row.ids) - row.prompt for row in rows)
        found = trainer.compute_loss(adapted.eval(), batch, num_items_in_batch=n_tokens)
        total = 0.0
        for row in rows:
            log_probs = adapted(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            for at in range(row.prompt, len(row.ids)):
                total -= float(log_probs[at - 1, row.ids[at]].detach())
        assert float(found.detach()) == pytest.approx(total / n_tokens, rel=1e-4)
        found.backward()
        trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
        assert trained
        assert all("lora_" in name for name in trained)


class TestTargets:
    def test_targets_are_those_of_the_family(self) -> None:
        for targets in ("auto", "all-linear"):
            assert target_modules(build("gpt2"), targets) == ["c_attn", "c_proj", "c_fc"]
        assert target_modules(build("gpt2"), "attention") == ["c_attn", "attn.c_proj"]
        assert target_modules(build("llama"), "query-value") == ["q_proj", "v_proj"]
        with pytest.raises(ModelError, match="mamba has no attention projections"):
            target_modules(build("mamba"), "attention")

    def test_names_are_taken_as_they_are(self, make: Make) -> None:
        adapted = with_adapter(build("llama"), make(targets=["v_proj"], rank=2).entry)
        names = {n for n, p in adapted.named_parameters() if p.requires_grad}
        assert len(names) == 2 * 3  # A and B of each of the three layers
        assert all("v_proj" in name for name in names)

    def test_all_linear_leaves_the_output_matrix_out(self, make: Make) -> None:
        adapted = with_adapter(build("llama"), make().entry)
        names = {n for n, p in adapted.named_parameters() if p.requires_grad}
        assert len(names) == 2 * 7 * 3
        assert not any("lm_head" in name for name in names)


class TestEarlyStopping:
    def test_ends_without_progress_and_keeps_the_best(self, make: Make, tmp_path: Path) -> None:
        task = make(validation=0.25, epochs=40, eval_steps=6, early_stopping=2)
        card = train_adapter(task, tmp_path)
        accuracies = [entry["accuracy"] for entry in card["curves"]["validation"]]
        best = accuracies.index(max(accuracies))
        assert card["stopped_early"]
        assert len(accuracies) == best + 1 + 2
        assert card["kept_step"] == 6 * (best + 1)
        assert card["validation"]["accuracy"] == max(accuracies) == 1.0


class TestKill:
    """SIGKILL while it trains; the same call goes on and ends where it would have ended."""

    @pytest.mark.parametrize("entry", [{}, {"gradient_accumulation": 2, "validation": 0.25}])
    def test_ends_with_the_adapter_of_a_training_without_a_kill(
        self, model: Path, rows: Path, tmp_path: Path, entry: dict[str, Any]
    ) -> None:
        # in the middle of the second pass of three: order and dropout must go on as they were
        whole = {**LEARNS, "epochs": 3, "dropout": 0.1, "batch_size": 4, "save_steps": 3, **entry}
        [task] = tasks_of(sweep_of(model, rows, **whole))
        steps_an_epoch = 16 if not entry else 6
        killed = _start(model, rows, whole, tmp_path / "killed")
        _wait_for_step(tmp_path / "killed", steps_an_epoch + 2, killed)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert read_card(tmp_path / "killed") is None
        last = last_checkpoint(tmp_path / "killed" / CHECKPOINTS)
        assert last is not None
        step = last.state["global_step"]

        card = train_adapter(task, tmp_path / "killed")
        plain = train_adapter(task, tmp_path / "whole")
        assert card["resumed_at"] == step
        assert plain["resumed_at"] is None
        assert card["tokens"] == plain["tokens"]
        losses, expected = (
            [e["loss"] for e in c["curves"]["loss"] if e["step"] > step] for c in (card, plain)
        )
        assert losses == pytest.approx(expected, rel=1e-3)
        assert _difference(tmp_path / "killed", tmp_path / "whole") < 1e-5

    def test_a_checkpoint_that_was_cut_off_is_not_taken(
        self, make: Make, trained: tuple[TrainingTask, Path], tmp_path: Path
    ) -> None:
        """Killed within the writing of the second one: files are there, but not all."""
        task = make(validation=0.25, epochs=4, save_steps=5)
        folder = tmp_path / "torn"
        process = _start(Path(task.model), Path(task.entry.data.path), _as_given(task), folder)
        _wait_for_step(folder, 11, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        checkpoints = folder / CHECKPOINTS
        last = last_checkpoint(checkpoints)
        assert last is not None
        (last.folder / COMPLETE).unlink()
        (last.folder / "optimizer.pt").unlink()
        before = last_checkpoint(checkpoints)
        card = train_adapter(task, folder)
        assert card["resumed_at"] == (before.state["global_step"] if before else None)
        assert _difference(folder, trained[1]) < 1e-5

    def test_a_second_call_waits_for_the_first(
        self, model: Path, rows: Path, tmp_path: Path
    ) -> None:
        entry = {**LEARNS, "epochs": 2}
        [task] = tasks_of(sweep_of(model, rows, **entry))
        first = _start(model, rows, entry, tmp_path)
        _wait_for_step(tmp_path, 2, first)
        with pytest.raises(HeldError) as error:
            train_adapter(task, tmp_path, wait=False)
        assert error.value.holder == f"process {first.pid} on {socket.gethostname()}"
        card = train_adapter(task, tmp_path)
        assert first.wait(timeout=60) == 0
        assert card["resumed_at"] is None
        assert card == read_card(tmp_path)


class TestQuantized:
    def test_an_adapter_learns_on_a_base_in_four_bits(self, rows: Path, tmp_path: Path) -> None:
        pytest.importorskip("bitsandbytes")
        from transformers import BitsAndBytesConfig

        folder = save_tiny(tmp_path / "wide", hidden=64)
        [task] = tasks_of(
            sweep_of(folder, rows, **{**LEARNS, "learning_rate": 0.01}, validation=0.25, epochs=6)
        )
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
        base: Any = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=torch.float32
        )
        frozen = {n: p.detach().clone() for n, p in base.named_parameters()}
        torch.manual_seed(0)
        adapted = with_adapter(base, task.entry)
        args = training_arguments(task, 48, True, tmp_path / "c", base)
        data = [encode(*_of(task, part)) for part in (task.data.train, task.data.validation)]
        trainer = LabelTrainer(
            adapted, args, data[0], Validation(data[1], task.labels), None, lambda _: None
        )
        trainer.train()
        accuracies = [e["eval_accuracy"] for e in trainer.state.log_history if "eval_accuracy" in e]
        assert accuracies[-1] == 1.0
        for name, parameter in base.named_parameters():
            if name in frozen:
                assert torch.equal(parameter, frozen[name]), name

    @pytest.mark.parametrize("double_quant", [True, False])
    def test_the_base_is_quantized_as_its_host_quantizes_it(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double_quant: bool
    ) -> None:
        pytest.importorskip("bitsandbytes")
        nested: set[bool] = set()

        def load(*args: Any) -> Any:
            made = load_model(*args)
            # now: a CPU that lays its weights out anew takes second scales apart at its first pass
            nested.update(
                m.weight.quant_state.nested for m in made.modules() if hasattr(m, "quant_state")
            )
            return made

        monkeypatch.setattr("actors.trainer.load_model", load)
        config = sweep_of(save_tiny(tmp_path / "wide", hidden=64), rows, **LEARNS, epochs=0.2)
        served = {"precision": "nf4", "double_quant": double_quant}
        model = config.models[0].model_copy(update=served)
        [task] = tasks_of(config.model_copy(update={"models": [model]}))
        card = train_adapter(task, tmp_path / "trained")
        assert nested == {double_quant}
        assert card["model"]["precision"] == "nf4"
        assert card["model"].get("double_quant", True) == double_quant

    @pytest.mark.parametrize("optimizer", ["adamw_8bit"])
    def test_moments_in_eight_bits(self, make: Make, tmp_path: Path, optimizer: str) -> None:
        pytest.importorskip("bitsandbytes")
        task = make(validation=0.25, epochs=6, learning_rate=0.01, optimizer=optimizer)
        assert train_adapter(task, tmp_path)["validation"]["accuracy"] == 1.0


def tasks_of_seed(make: Make, seeds: list[int]) -> list[TrainingTask]:
    return [replace(make(epochs=1), seed=seed) for seed in seeds]


def _of(task: TrainingTask, examples: Any) -> tuple[Any, ...]:
    return examples, task.template, task.labels, task.tokenizer, task.max_tokens


def _as_given(task: TrainingTask) -> dict[str, Any]:
    return task.entry.model_dump(mode="json", exclude={"name", "data"}, exclude_defaults=True)


def _difference(one: Path, other: Path) -> float:
    """The largest difference of a weight."""
    a, b = (load_file(str(folder / "adapter_model.safetensors")) for folder in (one, other))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _start(model: Path, rows: Path, entry: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """Train in a process of its own."""
    program = (
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from actors.trainer import train_adapter\n"
        "from tests.models.trainings import sweep_of, tasks_of\n"
        "torch.set_num_threads(1)\n"
        "model, rows, folder = map(Path, sys.argv[1:4])\n"
        "[task] = tasks_of(sweep_of(model, rows, **json.loads(sys.argv[4])))\n"
        "train_adapter(task, folder)\n"
    )
    arguments = [str(model), str(rows), str(folder), json.dumps(entry)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while True:
        try:
            if json.loads((folder / PROGRESS).read_text())["step"] >= step:
                return
        except (FileNotFoundError, ValueError):
            pass
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)
