"""Which examples an adapter is trained and validated on: none that is evaluated, all else counted.

Two texts are one here if they differ in white space and case alone: SST-2's sentences end with a
space in some copies and not in others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.config import DataConfig, FinetuneConfig, SweepConfig
from engine.data import load_examples, sample_examples
from engine.errors import DataError
from engine.plan import data_source, with_gold
from engine.seeds import derive
from engine.types import Example

Text = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The examples of a training, all with a gold label.

    Attributes:
        train: In the order of the file.
        validation: Likewise; none of their texts is trained on.
        rows: Rows that the training data has.
        left_out: Reason -> number of its rows that are not in `train`: `unusable`, `other_label`,
            `no_label`, `evaluated`, `in_validation`, `short`, `over_limit`, `for_validation`.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    rows: int
    left_out: Mapping[str, int]


def load_training_data(
    config: SweepConfig, entry: FinetuneConfig, evaluated: Sequence[Example]
) -> TrainingData:
    """Read and choose the examples of one entry of `finetune`; its seeds all train on the same.

    Args:
        config: The sweep.
        entry: Of its `finetune`.
        evaluated: The examples of the sweep.

    Raises:
        DataError: The data can't be read, or nothing is left to train or to validate on.
    """
    place, seed = f"finetune.{entry.name}", config.run.seed
    names = sorted(entry.data.inputs)
    seen = {_text(example, names) for example in evaluated}
    validation: tuple[Example, ...] = ()
    if isinstance(entry.validation, DataConfig):
        own = _Rows(config, entry.validation)
        own.drop("evaluated", lambda example: _text(example, names) in seen)
        own.sample(entry.validation.limit, seed)
        validation = own.checked(f"{place}.validation")
    rows = _Rows(config, entry.data)
    held = {_text(example, names) for example in validation}
    rows.drop("evaluated", lambda example: _text(example, names) in seen)
    rows.drop("in_validation", lambda example: _text(example, names) in held)
    rows.drop("short", lambda example: words(example) < entry.min_words)
    rows.sample(entry.data.limit, seed)
    if isinstance(entry.validation, float):
        wanted = max(1, round(entry.validation * len(rows.kept)))
        validation = sample_examples(rows.kept, wanted, derive("validation", seed))
        held = {_text(example, names) for example in validation}
        rows.drop("for_validation", lambda example: _text(example, names) in held)
    train = rows.checked(f"{place}.data")
    return TrainingData(train, validation, rows.total, rows.left_out)


def words(example: Example) -> int:
    """Return the number of words, between white space, of all inputs."""
    return sum(len(text.split()) for text in example.fields.values())


def _text(example: Example, names: Sequence[str]) -> Text:
    return tuple(" ".join(example.fields.get(name, "").split()).casefold() for name in names)


class _Rows:
    """The rows of some data that are still in, and how many aren't for which reason."""

    def __init__(self, config: SweepConfig, data: DataConfig) -> None:
        # the limit samples what is left at last, not what is there at first
        source = replace(data_source(config, data), limit=None)
        loaded = load_examples(source)
        self.path = data.path
        self.total = loaded.n_total
        counts = {"unusable": len(loaded.failures), "other_label": loaded.n_other_labels}
        self.left_out = {reason: count for reason, count in counts.items() if count}
        self.kept = with_gold(config, data, loaded.examples)
        self.drop("no_label", lambda example: example.label is None)

    def drop(self, reason: str, is_out: Callable[[Example], bool]) -> None:
        self._keep(reason, [example for example in self.kept if not is_out(example)])

    def sample(self, limit: int | None, seed: int) -> None:
        self._keep("over_limit", sample_examples(self.kept, limit, seed))

    def _keep(self, reason: str, rows: Sequence[Example]) -> None:
        if len(rows) < len(self.kept):
            self.left_out[reason] = len(self.kept) - len(rows)
        self.kept = rows

    def checked(self, place: str) -> tuple[Example, ...]:
        if not self.kept:
            why = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            raise DataError(f"{place}: none of {self.total} rows of {self.path} is left ({why})")
        return tuple(self.kept)
