"""Writing and reading row groups: results of a run, and the store of evaluations shared by runs.

A file holds many units, a row group several small ones. `write_batches` and `write_stored` make
files; a commit log (`engine.commits`) makes units visible.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine import schema
from engine.commits import Commit, CommittedPart, read_commits
from engine.results import ResultBatch, UnitResult

GROUP_ROWS = 8192
"""Rows of a row group of results: a row group takes as long to write as hundreds of rows."""
GROUP_EVALUATIONS = 2048
"""Evaluations of a row group of the store, about 100 KB: a unit reads all of it to find its own."""


def write_units(folder: str | Path, stem: str, results: Sequence[UnitResult]) -> list[Commit]:
    """Write the result tables of several units; see `write_batches`."""
    return write_batches(folder, stem, [ResultBatch.of(results)]) if results else []


def write_batches(folder: str | Path, stem: str, batches: Sequence[ResultBatch]) -> list[Commit]:
    """Write the result tables of units, one file a table, and return what to commit.

    Args:
        folder: The run folder.
        stem: File name without ending, unique to this call: `<writer>-<seq>`.
        batches: In the order of their rows.
    """
    units = [unit for batch in batches for unit in batch.units]
    parts: list[list[CommittedPart]] = [[] for _ in units]
    for name, arrow_schema in schema.RESULTS.items():
        counts = [count for batch in batches for count in batch.counts[name]]
        groups = list(_groups(counts, GROUP_ROWS))
        rows = pa.concat_tables([arrow_schema.empty_table(), *(b.tables[name] for b in batches)])
        file = f"{name}/{stem}.parquet"
        _write(Path(folder) / file, rows, [sum(counts[some]) for some in groups], arrow_schema)
        for index, some in enumerate(groups):
            for number in range(some.start, some.stop):
                if counts[number]:
                    parts[number].append(CommittedPart(name, file, index, units[number].id))
    return [
        Commit(unit.id, unit.attempt, tuple(of_unit), unit.digest, unit.failed)
        for unit, of_unit in zip(units, parts, strict=True)
    ]


def write_evaluations(folder: str | Path, stem: str, results: Sequence[UnitResult]) -> list[Commit]:
    """Write the new evaluations of several units to a store folder; see `write_stored`."""
    return write_stored(folder, stem, [ResultBatch.of(results)]) if results else []


def write_stored(folder: str | Path, stem: str, batches: Sequence[ResultBatch]) -> list[Commit]:
    """Write the new evaluations of units to a store folder, and return what to commit.

    Args:
        folder: The store folder.
        stem: As of `write_batches`.
        batches: In the order of their rows.
    """
    rows = pa.concat_tables([schema.EVALUATIONS.empty_table(), *(b.evaluations for b in batches)])
    counts = [count for batch in batches for count in batch.evaluation_counts]
    sizes = [size for batch in batches for size in batch.evaluation_sizes]
    groups = list(_groups(sizes, GROUP_EVALUATIONS))
    file = f"evaluations/{stem}.parquet"
    _write(Path(folder) / file, rows, [sum(counts[some]) for some in groups], schema.EVALUATIONS)
    # A unit that is run again with other explainers adds to the store: what is committed is named
    # by its file, so that no line replaces an earlier one.
    names = [f"{stem}/{index}" for index in range(len(groups))]
    return [
        Commit(name, 1, (CommittedPart("evaluations", file, index, name),), "")
        for index, name in enumerate(names)
    ]


def _groups(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Yield runs of neighbours of about `most` together; what is larger stands alone."""
    start = total = 0
    for number, size in enumerate(sizes):
        if total and total + size > most:
            yield slice(start, number)
            start, total = number, 0
        total += size
    if total:
        yield slice(start, len(sizes))


def _write(path: Path, rows: pa.Table, groups: Sequence[int], arrow_schema: pa.Schema) -> None:
    """Write one Parquet file with row groups of these numbers of rows, synced to disk."""
    if not groups:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    versioned = arrow_schema.with_metadata({"schema_version": str(schema.SCHEMA_VERSION)})
    rows = rows.replace_schema_metadata(versioned.metadata)
    with open(path, "wb") as file:
        with pq.ParquetWriter(file, versioned, compression="zstd") as writer:
            start = 0
            for count in groups:
                writer.write_table(rows.slice(start, count), row_group_size=count)
                start += count
        file.flush()
        os.fsync(file.fileno())


def read_results(
    file: pq.ParquetFile, parts: Sequence[CommittedPart], columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of the units that parts of a file of results name, in the file's order.

    Args:
        file: The file of all `parts`.
        parts: At least one; other units' rows in their row groups are left out.
        columns: With `unit` among them; None for all.
    """
    chosen = None if columns is None else list(columns)
    rows = file.read_row_groups(sorted({part.row_group for part in parts}), columns=chosen)
    named = pa.array(sorted({part.unit for part in parts}), pa.string())
    return rows.filter(pc.is_in(rows.column("unit"), named))


def read_parts(folder: str | Path, parts: Iterable[CommittedPart]) -> pa.Table:
    """Return the rows of evaluation row groups, in their order."""
    tables = []
    files: dict[str, pq.ParquetFile] = {}
    for part in parts:
        if part.file not in files:
            files[part.file] = pq.ParquetFile(Path(folder) / part.file)
        tables.append(files[part.file].read_row_group(part.row_group))
    return pa.concat_tables(tables) if tables else schema.EVALUATIONS.empty_table()


def index_store(folder: str | Path) -> dict[str, tuple[CommittedPart, ...]]:
    """Return, for every example in a store folder, the row groups that hold its evaluations."""
    index: dict[str, dict[CommittedPart, None]] = {}
    files: dict[str, pq.ParquetFile] = {}
    for commit in read_commits(folder).values():
        for part in commit.parts:
            if not (Path(folder) / part.file).exists():
                continue  # removed, or on another node's disk: its evaluations are paid for again
            if part.file not in files:
                files[part.file] = pq.ParquetFile(Path(folder) / part.file)
            rows = files[part.file].read_row_group(part.row_group, columns=["example"])
            for key in rows.column("example").unique().to_pylist():
                index.setdefault(key, {})[part] = None
    return {key: tuple(parts) for key, parts in index.items()}
