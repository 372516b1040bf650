"""From a source to its examples: every row is an example or a failure, none is skipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from engine.data.readers import RawRow, check_columns, read_rows, stem
from engine.data.rows import parse_row, row_id
from engine.data.source import DataSource, LoadedData, RowFailure
from engine.errors import DataError, ExampleError
from engine.seeds import derive, digest
from engine.types import Example


def load_examples(source: DataSource) -> LoadedData:
    """Return the examples of a source, and the rows that can't be used.

    Raises:
        DataError: The source can't be found or read, a column is nowhere in it, or it has no row
            that is usable.
    """
    _check(source)
    examples: dict[str, Example] = {}
    failures: list[RowFailure] = []
    columns: set[str] = set()
    n_total = left_out = 0
    for n_total, row in enumerate(read_rows(source), 1):
        if row.values is not None and not columns:
            source = source.resolved(row.values.keys())
        columns.update(row.values or ())
        default_id = f"{stem(source)}-{n_total}"
        try:
            example = _example(row, source, default_id)
            if example.id in examples:
                raise ExampleError("duplicate_id", f"the id {example.id!r} is used by a row before")
            examples[example.id] = example
        except ExampleError as error:
            if error.code == "bad_label" and source.skip_other_labels:
                left_out += 1
                continue
            name = _name(row, source, default_id)
            failures.append(RowFailure(row.place, name, error.code, f"{row.place}: {error}"))
    if columns:
        check_columns(source, columns)
    if not examples:
        reason = f"the first is {failures[0].message}" if failures else "the file is empty"
        if left_out == n_total > 0:
            reason = f"all have labels that are none of {list(source.label_names)}"
        raise DataError(f"{source.path} has no usable row of {n_total}: {reason}")
    chosen = sample_examples(list(examples.values()), source.limit, source.seed)
    return LoadedData(chosen, tuple(failures), n_total, left_out)


def example_key(fields: Mapping[str, str]) -> str:
    """Return the digest of an example's input texts, whatever its id and label."""
    return digest(dict(fields))


def shown_key(fields: Mapping[str, str], shown: Collection[str]) -> str:
    """Return the digest of those input texts that a prompt shows.

    Coalitions are drawn by it: neither a given continuation nor a column that nothing reads draws
    others.

    Args:
        fields: Input texts of an example.
        shown: The prompt's variables.
    """
    return example_key({name: text for name, text in fields.items() if name in shown})


def sample_examples(
    examples: Sequence[Example], limit: int | None, seed: int
) -> tuple[Example, ...]:
    """Return `limit` examples in their order; which ones depends on their ids, not their order."""
    if limit is None or limit >= len(examples):
        return tuple(examples)
    ranked = sorted(examples, key=lambda example: derive("sample", seed, example.id))
    chosen = {example.id for example in ranked[:limit]}
    return tuple(example for example in examples if example.id in chosen)


def _check(source: DataSource) -> None:
    if not source.inputs:
        raise DataError("data.inputs is empty: name the column of each field, as text: sentence")
    if source.label is not None and not source.label_names:
        raise DataError(f"the labels in {source.label!r} need label names to be checked against")
    if source.rationale is not None and source.rationale_kind is None:
        raise DataError(
            f"the rationales in {source.rationale!r} need data.rationale_kind: human or "
            "author_marked"
        )


def _example(row: RawRow, source: DataSource, default_id: str) -> Example:
    if row.values is None:
        raise ExampleError("malformed", row.error)
    return parse_row(row.values, source, default_id)


def _name(row: RawRow, source: DataSource, default_id: str) -> str | None:
    if row.values is None:
        return None
    try:
        return row_id(row.values, source, default_id)
    except ExampleError:
        return None
