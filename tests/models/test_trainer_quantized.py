"""Adapters trained on a base in 4 bits: saving, resuming and reloading leave the base as it is.

On CPUs with AVX512-BF16 the library would lay packed weights back whenever a checkpoint asks for
the model's state, into another model than before (`actors.quantized.keep_packed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import actors.trainer
from actors.adapter_files import WEIGHTS
from actors.checkpoints import folder_of
from actors.label_trainer import LabelTrainer, Validation
from actors.loader import load_model, resolve_model
from actors.lora import with_adapter
from actors.trainer import PROGRESS, train_adapter, training_arguments
from actors.training_rows import encode
from engine.config import parse_config
from engine.training import TrainingTask
from tests.models.trainings import raw_sweep, save_tiny, sweep_of, tasks_of, write_rows

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]
pytest.importorskip("bitsandbytes")

RECIPE = {"batch_size": 8, "learning_rate": 0.01, "rank": 8, "epochs": 2, "dropout": 0.1}
SAVE = 5
"""Steps between two checkpoints; 48 examples are 12 steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("wide"), hidden=64)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", 64)


@pytest.fixture(params=[True, False], ids=["nested scales", "plain scales"])
def task(request: pytest.FixtureRequest, model: Path, rows: Path) -> TrainingTask:
    [made] = tasks_of(sweep_of(model, rows, **RECIPE, validation=0.25, save_steps=SAVE))
    return replace(made, precision="nf4", double_quant=request.param)


def base_of(task: TrainingTask) -> Any:
    return load_model(resolve_model(task.model), task.precision, "cpu", task.double_quant)


def logits(model: Any) -> torch.Tensor:
    """The logits of some prompts; the first call lays 4-bit weights out for the CPU's kernel."""
    ids = torch.randint(0, 256, (4, 12), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(ids).logits
    return found


def trainer_of(task: TrainingTask, base: Any, checkpoints: Path) -> LabelTrainer:
    """As `train_adapter` makes it."""
    given = (task.template, task.labels, task.tokenizer, task.max_tokens)
    train, held = (encode(part, *given) for part in (task.data.train, task.data.validation))
    torch.manual_seed(task.seed)
    return LabelTrainer(
        with_adapter(base, task.entry),
        training_arguments(task, len(train), True, checkpoints, base),
        train,
        Validation(held, task.labels),
        None,
        lambda _: None,
    )


def tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    return load_file(str(folder / WEIGHTS))


def test_checkpoints_leave_the_base_and_keep_the_adapter(
    task: TrainingTask, tmp_path: Path
) -> None:
    base = base_of(task)
    untouched = logits(base)
    trainer = trainer_of(task, base, tmp_path / "c")
    trainer.train()
    adapted: Any = trainer.model
    trained = logits(adapted)
    assert (trained - untouched).abs().max() > 1
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted), untouched, atol=1e-6, rtol=0)
    adapted.save_pretrained(str(tmp_path / "saved"))
    trainer.save_model(str(tmp_path / "again"))
    torch.testing.assert_close(logits(adapted), trained, atol=1e-6, rtol=0)
    for folder in (tmp_path / "saved", tmp_path / "again", folder_of(tmp_path / "c", 12)):
        fresh = PeftModel.from_pretrained(base_of(task), folder)
        torch.testing.assert_close(logits(fresh), trained, atol=1e-4, rtol=0)

    other = base_of(task)
    logits(other)
    resumed = trainer_of(task, other, tmp_path / "c")
    resumed.train(resume_from_checkpoint=str(folder_of(tmp_path / "c", 2 * SAVE)))
    assert resumed.state.global_step == 12
    adapted = resumed.model
    torch.testing.assert_close(logits(adapted), trained, atol=1e-4, rtol=0)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted), untouched, atol=1e-6, rtol=0)


def test_a_training_that_was_cut_off_ends_as_a_whole_one(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(BaseException):
        pass

    write = actors.trainer.write_json

    def until_step_8(path: Path, value: Mapping[str, Any]) -> None:
        write(path, value)
        if path.name == PROGRESS and value.get("step", 0) >= 8:
            raise CutOff

    with monkeypatch.context() as patch:
        patch.setattr(actors.trainer, "write_json", until_step_8)
        with pytest.raises(CutOff):
            train_adapter(task, tmp_path / "cut", device="cpu")
    assert train_adapter(task, tmp_path / "cut", device="cpu")["resumed_at"] == SAVE
    assert train_adapter(task, tmp_path / "whole", device="cpu")["resumed_at"] is None
    whole = tensors(tmp_path / "whole")
    for name, tensor in tensors(tmp_path / "cut").items():
        torch.testing.assert_close(tensor, whole[name], atol=1e-5, rtol=0)
    loaded = [
        logits(PeftModel.from_pretrained(base_of(task), tmp_path / name))
        for name in ("cut", "whole")
    ]
    torch.testing.assert_close(*loaded, atol=1e-4, rtol=0)


def test_the_base_is_the_one_that_is_served(model: Path, rows: Path, tmp_path: Path) -> None:
    """Scales of 4-bit weights are quantized while training where they are for scoring."""
    tasks = {}
    for double_quant in (True, False):
        raw = raw_sweep(model, rows, {**RECIPE, "epochs": 0.5})
        raw["models"][0] |= {"precision": "nf4", "double_quant": double_quant}
        [tasks[double_quant]] = tasks_of(parse_config(raw))
        train_adapter(tasks[double_quant], tmp_path / str(double_quant), device="cpu")
    assert tasks[True].fingerprint != tasks[False].fingerprint
    nested, plain = (tensors(tmp_path / str(each)) for each in (True, False))
    assert any(not torch.equal(nested[name], plain[name]) for name in nested)
    unquantized = [replace(each, precision="fp32").fingerprint for each in tasks.values()]
    assert len(set(unquantized)) == 1
