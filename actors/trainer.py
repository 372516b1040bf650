"""Fine-tuning: LoRA adapters of one base by peft and `transformers.Trainer`, resumed after a kill.

A training has a folder of its own. While it runs there are `checkpoints/` and `progress.json`; at
its end `adapter_config.json`, `adapter_model.safetensors` and, written last, `card.json`. A folder
with a card is an adapter that is done; nothing else says so. One that is damaged is trained again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.adapter_card import CARD, make_card
from actors.adapter_files import CONFIG, WEIGHTS, AdapterFiles, read_adapter
from actors.checkpoints import Checkpoint, folder_of, is_finished, last_checkpoint, remove_torn
from actors.loader import choose_device, load_model, resolve_model
from actors.lora import CHECKPOINTING, with_adapter
from actors.out_of_memory import is_out_of_memory
from actors.precision import resolve_precision
from actors.training_lock import alone
from actors.training_rows import TrainingRow, encode
from actors.waiting import wait_briefly
from engine.errors import ModelError
from engine.finetune_section import SAVE_STEPS, FinetuneConfig
from engine.training import TrainingTask

CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"

_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
_LOGS = 50
"""Entries of the loss curve that a training is wanted to have at least."""


def train_adapter(
    task: TrainingTask,
    folder: Path,
    threads: int = 0,
    device: str = "auto",
    wait: bool = True,
) -> dict[str, Any]:
    """Train an adapter, or go on where an earlier call was cut off; return its card.

    Args:
        task: What to train.
        folder: Of this training alone, named by its fingerprint.
        threads: Of torch on a CPU; 0 leaves its own choice.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        wait: Wait for another call for the same folder, in any process, and take what it trained.

    Raises:
        ModelError: The model can't be found, loaded or trained; the message says what to do.
        HeldError: Another call trains it, and isn't waited for.
    """
    if task.precision == "auto":
        task = replace(task, precision=resolve_precision("auto", choose_device(device)))
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, wait):
        if (card := read_card(folder)) is not None:
            if trained(folder) is not None:
                return card
            (folder / CARD).unlink()
        wait_briefly()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch

        if threads:
            torch.set_num_threads(threads)
        try:
            return _train(task, folder, device)
        except (RuntimeError, ValueError, ImportError, NotImplementedError) as error:
            if is_out_of_memory(error):
                raise ModelError(
                    f"training {task.model} doesn't fit into memory ({error}): use a smaller "
                    "batch_size with more gradient_accumulation, gradient_checkpointing, or a base "
                    "in 4 bits"
                ) from error
            raise ModelError(f"{task.model} can't be trained: {error}") from error


def read_card(folder: Path) -> dict[str, Any] | None:
    """Return the card of a finished training, or None where it isn't finished."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return card


def trained(folder: Path) -> AdapterFiles | None:
    """Return the adapter of a finished training; None if it isn't finished, or can't be read."""
    if read_card(folder) is None:
        return None
    with contextlib.suppress(ModelError):  # damaged since: it is trained again
        return read_adapter(str(folder))
    return None


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return the last entry of a running training's log, or None where there is none."""
    try:
        entry: dict[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return entry


def _train(task: TrainingTask, folder: Path, device: str) -> dict[str, Any]:
    entry, data = task.entry, task.data
    args = (task.template, task.labels, task.tokenizer, task.max_tokens)
    rows, held = encode(data.train, *args), encode(data.validation, *args)
    if not rows or (data.validation and not held):
        raise ModelError(
            f"no example fits into {task.max_tokens} tokens with its label: raise "
            "finetune.max_tokens or shorten the template"
        )
    checkpoints = folder / CHECKPOINTS
    remove_torn(checkpoints)
    last = last_checkpoint(checkpoints)
    resumed = None if last is None else int(last.state["global_step"])
    if last is None or not is_finished(last.state, entry.early_stopping):
        _run(task, rows, held, folder, last, device)
        last = last_checkpoint(checkpoints)
    assert last is not None, "the last step is always saved"
    chosen = _chosen(last, checkpoints, entry)
    card = make_card(task, last.state, chosen, rows, held, resumed)
    _publish(task, chosen, folder, card)
    return card


def _chosen(last: Checkpoint, checkpoints: Path, entry: FinetuneConfig) -> Path:
    """Return the checkpoint whose adapter is kept: the best with early stopping, else the last."""
    if entry.early_stopping is None:
        return last.folder
    best = folder_of(checkpoints, int(last.state["best_global_step"]))
    if not best.is_dir():
        raise ModelError(f"the best checkpoint {best} is gone: remove {checkpoints}, train again")
    return best


def _run(
    task: TrainingTask,
    rows: list[TrainingRow],
    held: list[TrainingRow],
    folder: Path,
    last: Checkpoint | None,
    device: str,
) -> None:
    """Train until the last checkpoint is written."""
    from transformers import set_seed
    from transformers.utils import logging as library

    from actors.label_trainer import LabelTrainer, Validation

    logging: Any = library
    logging.set_verbosity_error()
    source = resolve_model(task.model, task.options)
    if source.digest != task.weights:
        raise ModelError(
            f"{task.model} has other weights here ({source.digest}) than where the sweep was "
            f"planned ({task.weights}); give a local folder that all nodes have, or a revision"
        )
    precision = "auto" if task.as_stored else task.precision
    model = load_model(source, precision, device, task.double_quant)
    set_seed(task.seed)  # of the adapter's first weights
    adapted = with_adapter(model, task.entry)
    trainer = LabelTrainer(
        adapted,
        training_arguments(task, len(rows), bool(held), folder / CHECKPOINTS, model),
        rows,
        Validation(held, task.labels) if held else None,
        task.entry.early_stopping,
        lambda entry: write_json(folder / PROGRESS, entry),
    )
    trainer.train(resume_from_checkpoint=None if last is None else str(last.folder))


def training_arguments(
    task: TrainingTask, n_rows: int, validates: bool, checkpoints: Path, model: Any
) -> Any:
    """Return the library's arguments of a training.

    Raises:
        ModelError: The precision can't be trained in on this device.
    """
    import torch
    from transformers import TrainingArguments

    entry = task.entry
    device, dtype = model.device.type, model.dtype
    if dtype == torch.float16 and device == "cpu":
        raise ModelError("fp16 can't be trained on a CPU: use precision fp32 or bf16")
    step = entry.batch_size * entry.gradient_accumulation
    steps_an_epoch = max(1, -(-n_rows // step))
    eval_steps = entry.eval_steps or steps_an_epoch
    save_steps = entry.save_steps or SAVE_STEPS
    if entry.early_stopping is not None:
        save_steps = eval_steps
    warmed = "constant_with_warmup" if entry.schedule == "constant" else entry.schedule
    args = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=entry.epochs,
        per_device_train_batch_size=entry.batch_size,
        gradient_accumulation_steps=entry.gradient_accumulation,
        learning_rate=entry.learning_rate,
        lr_scheduler_type=warmed,
        warmup_steps=entry.warmup,
        optim=_OPTIMIZERS[entry.optimizer],
        weight_decay=entry.weight_decay,
        max_grad_norm=entry.max_grad_norm,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        gradient_checkpointing=entry.gradient_checkpointing,
        gradient_checkpointing_kwargs=CHECKPOINTING if entry.gradient_checkpointing else None,
        logging_steps=max(1, int(steps_an_epoch * entry.epochs) // _LOGS),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=eval_steps if validates else None,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        metric_for_best_model="accuracy" if validates else None,
        greater_is_better=True if validates else None,
        load_best_model_at_end=False,
        restore_callback_states_from_checkpoint=True,
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        seed=task.seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )
    if args.n_gpu > 1:
        args._n_gpu = 1  # the model is on one device; the library would copy it to all it sees
    return args


def _publish(task: TrainingTask, chosen: Path, folder: Path, card: Mapping[str, Any]) -> None:
    """Make the adapter's files; the card, which says that they are there, last."""
    config = json.loads((chosen / CONFIG).read_text(encoding="utf-8"))
    # peft writes sets in no order, and where this machine has the base
    config = {k: sorted(v) if _is_names(v) else v for k, v in config.items()}
    config["base_model_name_or_path"] = task.model.partition("@")[0]
    part = folder / f"{WEIGHTS}.part"
    shutil.copyfile(chosen / WEIGHTS, part)
    part.replace(folder / WEIGHTS)
    write_json(folder / CONFIG, config)
    write_json(folder / CARD, card)
    (folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file as a whole: readers see the old or the new one."""
    part = path.with_name(f"{path.name}.part")
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    with open(part, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
