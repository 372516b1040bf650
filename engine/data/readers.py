"""From files and Hugging Face data sets to raw rows, each with its place."""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import importlib
import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.source import DataSource
from engine.errors import DataError

BUNDLED = {"bundled:reviews": Path(__file__).with_name("reviews.jsonl")}
FORMATS = (".jsonl", ".json", ".csv", ".parquet")

_LARGEST_CSV_FIELD = 2**31 - 1


class RawRow(NamedTuple):
    """A row before anything is checked.

    Attributes:
        place: `file:line`, or row from 1.
        values: Column -> value; None if the row can't be read.
        error: Why not, else "".
    """

    place: str
    values: Mapping[str, Any] | None
    error: str = ""


def read_rows(source: DataSource) -> Iterator[RawRow]:
    """Yield the rows of a source, in order.

    Raises:
        DataError: It can't be found or read.
    """
    path = BUNDLED.get(source.path, Path(source.path).expanduser())
    if source.path.startswith("bundled:") and source.path not in BUNDLED:
        raise DataError(f"there is no data set {source.path!r}; bundled are {sorted(BUNDLED)}")
    if path.is_file():
        try:
            yield from _file(path, source)
        except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
            raise DataError(
                f"{path}: can't be read to the end ({error}): is it complete?"
            ) from error
    elif _looks_like_file(source.path) and not path.is_dir():
        raise DataError(_missing(path))
    else:
        yield from _hugging_face(source)


def stem(source: DataSource) -> str:
    """Return the short name of a source, from which ids are made."""
    name = source.path.split(":")[-1].rstrip("/").split("/")[-1]
    for ending in (".gz", *FORMATS):
        name = name.removesuffix(ending)
    return name if source.split is None else f"{name}-{source.split}"


def _file(path: Path, source: DataSource) -> Iterator[RawRow]:
    ending = path.name.removesuffix(".gz")
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as opened:
        stream = cast("IO[bytes]", opened)
        if ending.endswith(".jsonl"):
            yield from _json_lines(stream, path)
        elif ending.endswith(".json"):
            yield from _json(stream, path)
        elif ending.endswith(".csv"):
            yield from _csv(stream, path)
        elif ending.endswith(".parquet"):
            yield from _parquet(stream, path, source)
        else:
            raise DataError(f"{path}: unknown format; known are {', '.join(FORMATS)}, also .gz")


def _json_lines(lines: Iterable[bytes], path: Path) -> Iterator[RawRow]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _object(line, f"{path}:{number}")


def _object(line: bytes, place: str) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return RawRow(place, None, f"this is no JSON: {error}")
    if not isinstance(value, dict):
        return RawRow(place, None, f"this is a JSON {type(value).__name__}, not an object")
    return RawRow(place, value)


def _json(stream: IO[bytes], path: Path) -> Iterator[RawRow]:
    """One array of objects, or one object a line."""
    content = stream.read()
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _json_lines(content.splitlines(), path)
        return
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is no JSON: {error}") from None
    for number, value in enumerate(values, 1):
        place = f"{path}:{number}"
        if isinstance(value, dict):
            yield RawRow(place, value)
        else:
            yield RawRow(place, None, f"this is a JSON {type(value).__name__}, not an object")


def _csv(stream: IO[bytes], path: Path) -> Iterator[RawRow]:
    # bytes that are no UTF-8 come through as surrogates, so that their row alone fails
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    previous = csv.field_size_limit(_LARGEST_CSV_FIELD)
    try:
        reader = csv.reader(text)
        header = next(reader, [])
        line = reader.line_num
        for cells in reader:
            place, line = f"{path}:{line + 1}", reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                yield RawRow(place, None, f"{len(cells)} cells under {len(header)} column names")
            else:
                yield RawRow(place, dict(zip(header, cells, strict=True)))
    finally:
        csv.field_size_limit(previous)


def _parquet(stream: IO[bytes], path: Path, source: DataSource) -> Iterator[RawRow]:
    file = pq.ParquetFile(pa.BufferReader(stream.read()) if path.suffix == ".gz" else str(path))
    known = file.schema_arrow.names
    source = source.resolved(known)
    if file.metadata.num_rows:
        check_columns(source, known)
    wanted = [column for column in source.columns if column in known]
    number = itertools.count(1)
    for batch in file.iter_batches(columns=wanted):
        for values in batch.to_pylist():
            yield RawRow(f"{path}:{next(number)}", values)


def _hugging_face(source: DataSource) -> Iterator[RawRow]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{source.path!r} is no file, and Hugging Face data sets need the package `datasets`: "
            "install it, or give a .jsonl, .csv or .parquet file"
        ) from error
    try:
        rows = datasets.load_dataset(source.path, source.subset, split=source.split)
    except Exception as error:  # the hub's libraries raise errors of many kinds
        raise DataError(
            f"can't load the Hugging Face set {source.path!r}: {type(error).__name__}: {error}\n"
            "Check its name, data.subset and data.split. Without a network give a .jsonl, .csv or "
            ".parquet file, or bundled:reviews"
        ) from error
    if isinstance(rows, dict):
        raise DataError(f"{source.path!r} has the splits {sorted(rows)}: set data.split to one")
    source = source.resolved(rows.column_names)
    check_columns(source, rows.column_names)
    rows = rows.select_columns([c for c in source.columns if c in rows.column_names])
    for number, values in enumerate(rows, 1):
        yield RawRow(f"{stem(source)}:{number}", values)


def check_columns(source: DataSource, known: Iterable[str]) -> None:
    """Refuse a source that names a column that is nowhere.

    Raises:
        DataError: Naming the column, the nearest one and all that exist.
    """
    columns = sorted(known)
    for column in source.columns:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            if column not in source.column_of.values():
                hint += "Set its key in the data section to null if there is none. "
            raise DataError(
                f"{source.path} has no column {column!r}; {hint}The columns are {columns}"
            )


def _looks_like_file(path: str) -> bool:
    return path.endswith((*FORMATS, ".gz")) or path.startswith(("/", "./", "../", "~"))


def _missing(path: Path) -> str:
    message = f"there is no file {path} (looked in {path.resolve().parent})"
    with contextlib.suppress(OSError):
        names = [p.name for p in path.parent.iterdir()]
        if near := difflib.get_close_matches(path.name, names, n=1):
            message += f"; did you mean {path.with_name(near[0])}?"
    return message
