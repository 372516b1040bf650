"""Where examples come from, and what reading them gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.types import Example, RationaleKind


@dataclass(frozen=True, slots=True)
class DataSource:
    """A data set and what its columns mean.

    Attributes:
        path: `bundled:reviews`, a .jsonl, .json, .csv or .parquet file (also .gz), or the name or
            folder of a Hugging Face data set.
        inputs: Prompt variable -> column, or several columns of which the first that exists is
            taken.
        label: Column of the gold label, or None.
        id: Column of the ids; None makes them of the file's name and the row's number.
        group: Column of what the bootstrap resamples as one, or None.
        rationale: Column of the evidence: {field: [[start, end], …]}, or [[start, end], …] where
            there is one field; a CSV file has it as JSON. Or None.
        rationale_kind: Who marked the evidence; needed with `rationale`.
        label_names: The label set, in order; needed with `label`.
        skip_other_labels: Whether rows with a label outside `label_names` are left out, counted,
            and no failures.
        limit: Most examples taken, chosen by `seed`; None takes all.
        seed: Of the choice.
        split: Of a Hugging Face data set.
        subset: Configuration name of a Hugging Face data set.
    """

    path: str
    inputs: Mapping[str, str | Sequence[str]]
    label: str | None = None
    id: str | None = None
    group: str | None = None
    rationale: str | None = None
    rationale_kind: RationaleKind | None = None
    label_names: tuple[str, ...] = ()
    skip_other_labels: bool = False
    limit: int | None = None
    seed: int = 0
    split: str | None = None
    subset: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, without repeats."""
        inputs = [column for value in self.inputs.values() for column in _as_list(value)]
        named = (*inputs, self.label, self.id, self.group, self.rationale)
        return tuple(dict.fromkeys(column for column in named if column is not None))

    @property
    def column_of(self) -> dict[str, str]:
        """The column of each prompt variable; the first of several before `resolved`."""
        return {variable: _as_list(value)[0] for variable, value in self.inputs.items()}

    def resolved(self, known: Collection[str]) -> DataSource:
        """Return the source with one column an input, chosen among those that exist."""
        inputs = {
            variable: next((c for c in _as_list(value) if c in known), _as_list(value)[0])
            for variable, value in self.inputs.items()
        }
        return replace(self, inputs=inputs)


def _as_list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that can't be used.

    Attributes:
        place: `file:line`; rows of binary formats are counted from 1.
        id: Of its example, where it could be told.
        code: `malformed`, `missing_field`, `not_text`, `bad_label`, `bad_rationale`, `bad_id` or
            `duplicate_id`.
        message: What is wrong, with the place.
    """

    place: str
    id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class LoadedData:
    """The examples of a source.

    Attributes:
        examples: In the order of the file; those of the sample if there is a limit.
        failures: Every row that can't be used, whether or not there is a limit.
        n_total: Number of rows read.
        n_other_labels: Rows left out by `skip_other_labels`.
    """

    examples: tuple[Example, ...]
    failures: tuple[RowFailure, ...]
    n_total: int
    n_other_labels: int = 0
