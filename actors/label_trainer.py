"""`transformers.Trainer` for label strings: their loss, their accuracy, an order that resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from actors.backend import SequenceBatch
from actors.bucketed import score_in_buckets
from actors.checkpoints import mark_complete
from actors.label_reads import output_matrix
from actors.label_scorer import LabelScorer
from actors.self_check import make_scorer
from actors.training_rows import IGNORED, LengthGroups, RowDataset, TrainingRow, collate
from engine.labels import LabelSet
from engine.ragged import Ragged

_CPU_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 32_768

Report = Callable[[dict[str, Any]], None]


class Validation(NamedTuple):
    """What is validated on.

    Attributes:
        rows: The examples.
        labels: The label set they are scored with.
    """

    rows: Sequence[TrainingRow]
    labels: LabelSet


class LabelTrainer(Trainer):
    """Trains on the label's tokens alone and validates by the labels' log-probabilities.

    Args:
        model: A peft model.
        args: Of the library.
        rows: The training examples.
        validation: Or None.
        patience: Validations without a better accuracy until it stops, or None.
        report: Called with every entry of the log, as it is written.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: Sequence[TrainingRow],
        validation: Validation | None,
        patience: int | None,
        report: Report,
    ) -> None:
        stopping = [] if patience is None else [EarlyStoppingCallback(patience)]
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=RowDataset(rows),
            eval_dataset=None if validation is None else RowDataset(validation.rows),
            callbacks=[_Marker(), *stopping],
        )
        self.remove_callback(PrinterCallback)
        self._validation = validation
        self._report = report
        self._lengths = [len(row.ids) for row in rows]
        self._base = model.get_base_model()
        self._base.eval()
        self._scorer = make_scorer(self._base, 0)[0]
        # the loss below is a sum over label tokens divided by their number in the whole step
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._seconds_before: float | None = None
        self._started = time.monotonic()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        args = self.args
        group = args.train_batch_size * args.gradient_accumulation_steps
        return LengthGroups(self._lengths, group, args.seed)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the label tokens' cross-entropy; logits are computed where they are read only."""
        labels_BT = inputs["labels"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        row, column = (labels_BT != IGNORED).nonzero(as_tuple=True)
        with self.accelerator.autocast():
            logits = self._logits(model, rest, row, column - 1)
        total = functional.cross_entropy(logits.float(), labels_BT[row, column], reduction="sum")
        loss = total / (len(row) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _logits(
        self, model: Any, inputs: dict[str, Any], row: torch.Tensor, column: torch.Tensor
    ) -> Any:
        """Return the logits [N, V] at N places, had as the scorer has them."""
        if self._scorer.reading == "gathered":
            states = self._base.base_model(**inputs, use_cache=False).last_hidden_state
            return output_matrix(self._base)(states[row, column])
        if self._scorer.reading == "kept":
            kept, at = torch.unique(column, return_inverse=True)
            return model(**inputs, use_cache=False, logits_to_keep=kept).logits[row, at]
        return model(**inputs, use_cache=False).logits[row, column]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return accuracy and log loss on the validation examples, as scoring would read them."""
        if self._validation is None:
            raise ValueError("there is nothing to validate on")
        self._base.eval()
        started = time.monotonic()
        found = validate(self._scorer, self._validation)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log({**metrics, "eval_seconds": round(time.monotonic() - started, 2)})
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Note seconds and tokens since the training's very start with every entry."""
        history = self.state.log_history
        if self._seconds_before is None:
            self._seconds_before = history[-1]["seconds"] if history else 0.0
        seconds = self._seconds_before + time.monotonic() - self._started
        logs = {**logs, "seconds": round(seconds, 2), "tokens": self.state.num_input_tokens_seen}
        super().log(logs)
        entry = {**self.state.log_history[-1], "steps": self.state.max_steps}
        self._report(entry)


class _Marker(TrainerCallback):
    """Marks checkpoints as whole."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark_complete(Path(args.output_dir), state.global_step)


def validate(scorer: LabelScorer, validation: Validation) -> dict[str, float]:
    """Return accuracy, and the mean negative log-probability of the gold among the labels.

    Args:
        scorer: Of a causal language model in evaluation mode.
        validation: Rows and label set.

    Raises:
        ValueError: A prompt can't be scored; the message says why.
    """
    prompts = Ragged.of([row.ids[: row.prompt] for row in validation.rows])
    batch = SequenceBatch(prompts, None)
    most = _CPU_BATCH_TOKENS if scorer.device.type == "cpu" else _GPU_BATCH_TOKENS
    scores = score_in_buckets(scorer.score, batch, validation.labels.token_ids, most)
    if scores.errors:
        raise ValueError(f"validation: {next(iter(scores.errors.values()))}")
    log_probs = scores.log_probs.astype(np.float64)
    gold = np.array([row.gold for row in validation.rows])
    among = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    return {
        "accuracy": float((log_probs.argmax(axis=1) == gold).mean()),
        "loss": float(-among[np.arange(len(gold)), gold].mean()),
    }
