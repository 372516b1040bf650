"""From a raw row to an example: every value checked, nothing guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.data.source import DataSource
from engine.errors import ExampleError
from engine.types import Example, Span


def parse_row(values: Mapping[str, Any], source: DataSource, default_id: str) -> Example:
    """Return the example of a row.

    Raises:
        ExampleError: `missing_field`, `not_text`, `bad_label` or `bad_rationale`.
    """
    fields = {variable: _text(values, column) for variable, column in source.column_of.items()}
    rationale = _rationale(values, source, fields)
    return Example(
        id=row_id(values, source, default_id),
        fields=fields,
        label=_label(values, source),
        group=_group(values, source),
        rationale=rationale,
        rationale_kind=None if rationale is None else source.rationale_kind,
    )


def row_id(values: Mapping[str, Any], source: DataSource, default_id: str) -> str:
    """Return the id of a row.

    Raises:
        ExampleError: `bad_id`: the column is missing, empty, or neither text nor a whole number.
    """
    if source.id is None:
        return default_id
    value = values.get(source.id)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ExampleError("bad_id", f"the id in {source.id!r} is {value!r}: give text or a number")
    return str(value)


def _text(values: Mapping[str, Any], column: str) -> str:
    value = values.get(column)
    if value is None:
        raise ExampleError("missing_field", f"the field {column!r} is missing")
    if not isinstance(value, str):
        raise ExampleError("not_text", f"the field {column!r} is {value!r}, which is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ExampleError(
            "not_text", f"the field {column!r} is not valid UTF-8 at character {error.start}"
        ) from None
    return value


def _group(values: Mapping[str, Any], source: DataSource) -> str | None:
    if source.group is None:
        return None
    value = values.get(source.group)
    if value is None:
        raise ExampleError("missing_field", f"the group {source.group!r} is missing")
    return str(value)


def _label(values: Mapping[str, Any], source: DataSource) -> int | None:
    if source.label is None:
        return None
    if source.label not in values:
        raise ExampleError("missing_field", f"the label {source.label!r} is missing")
    value = values[source.label]
    if value is None or value == "" or value != value:
        return None
    index = _label_index(value, source.label_names)
    if index is None:
        raise ExampleError(
            "bad_label", f"the label {value!r} is not one of {list(source.label_names)}"
        )
    return index


def _label_index(value: Any, names: tuple[str, ...]) -> int | None:
    """Return the index that a name, a number or a truth value stands for; names come first."""
    if isinstance(value, str):
        value = value.strip()
        if value in names:
            return names.index(value)
        folded = [i for i, name in enumerate(names) if name.casefold() == value.casefold()]
        if len(folded) == 1:
            return folded[0]
        if not value.isdecimal():
            return None
        value = int(value)
    elif isinstance(value, bool):
        if len(names) != 2:
            return None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        return None
    if not isinstance(value, bool) and str(value) in names:
        return names.index(str(value))
    if all(name.isdecimal() for name in names):
        return None  # of labels 0 and 2 the number 1 is none, and not the second
    return int(value) if 0 <= value < len(names) else None


def _rationale(
    values: Mapping[str, Any], source: DataSource, fields: Mapping[str, str]
) -> tuple[Span, ...] | None:
    if source.rationale is None:
        return None
    marked = values.get(source.rationale)
    if isinstance(marked, str):
        marked = _from_json(marked)
    if marked is None:
        return None
    if isinstance(marked, list):
        if len(fields) != 1:
            raise ExampleError(
                "bad_rationale", f"a plain list of spans can't say which of {list(fields)} it marks"
            )
        marked = {next(iter(fields)): marked}
    if not isinstance(marked, dict):
        raise ExampleError("bad_rationale", f"the rationale is {marked!r}: give lists of spans")
    variable_of = {column: variable for variable, column in source.column_of.items()}
    spans: list[Span] = []
    for key, pairs in marked.items():
        name = variable_of.get(key, key)
        if name not in fields:
            raise ExampleError(
                "bad_rationale", f"the rationale marks {key!r}; the inputs are {list(fields)}"
            )
        # a data frame fills the fields a row does not mark with null
        spans += [_span(pair, name, fields[name]) for pair in (pairs if pairs is not None else ())]
    order = list(fields)
    return tuple(sorted(set(spans), key=lambda s: (order.index(s.field), s.start, s.end)))


def _from_json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ExampleError("bad_rationale", f"the rationale is no JSON: {error}") from None


def _span(pair: Any, name: str, text: str) -> Span:
    whole = isinstance(pair, list | tuple) and len(pair) == 2
    if not whole or not all(type(end) is int for end in pair):
        raise ExampleError("bad_rationale", f"{pair!r} in {name!r} is no span [start, end]")
    start, end = pair
    if not 0 <= start < end <= len(text):
        raise ExampleError(
            "bad_rationale",
            f"the span [{start}, {end}] is not inside {name!r}, which has {len(text)} characters",
        )
    return Span(start, end, name)
