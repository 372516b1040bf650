"""Writing and reading row groups: results of a run, and the store of evaluations shared by runs.

A file holds many units, a row group each. `write_units` makes files; a commit log
(`engine.commits`) makes them visible.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine import schema
from engine.commits import Commit, CommittedPart, read_commits


@dataclass(frozen=True, slots=True, eq=False)
class UnitResult:
    """All that a unit produced.

    Attributes:
        unit: Its id.
        attempt: Which attempt this is, from 1.
        tables: Result tables by name (`engine.schema.RESULTS`).
        evaluations: New rows for the store.
        failed: The unit itself was given up; `tables` holds its failures.
    """

    unit: str
    attempt: int
    tables: Mapping[str, pa.Table]
    evaluations: pa.Table | None = None
    failed: bool = False

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        extra = self.evaluations.nbytes if self.evaluations is not None else 0
        return sum(table.nbytes for table in self.tables.values()) + extra


def write_units(folder: str | Path, stem: str, results: Sequence[UnitResult]) -> list[Commit]:
    """Write the result tables of several units, one file a table, and return what to commit.

    Args:
        folder: The run folder.
        stem: File name without ending, unique to this call: `<writer>-<seq>`.
        results: In the order of their row groups.
    """
    parts: dict[str, list[CommittedPart]] = {result.unit: [] for result in results}
    for table, arrow_schema in schema.RESULTS.items():
        chunks = [(r.unit, r.tables[table]) for r in results if r.tables[table].num_rows]
        for part in write_parts(Path(folder), table, stem, chunks, arrow_schema):
            parts[part.unit].append(part)
    return [
        Commit(r.unit, r.attempt, tuple(parts[r.unit]), result_digest(r.tables), r.failed)
        for r in results
    ]


def write_evaluations(folder: str | Path, stem: str, results: Sequence[UnitResult]) -> list[Commit]:
    """Write the new evaluations of several units to a store folder, and return what to commit."""
    chunks = [
        (r.unit, r.evaluations)
        for r in results
        if r.evaluations is not None and r.evaluations.num_rows
    ]
    parts = write_parts(Path(folder), "evaluations", stem, chunks, schema.EVALUATIONS)
    # A unit that is run again with other explainers adds to the store: its line must not replace
    # the earlier one, so the file's stem is part of the name.
    return [Commit(f"{stem}/{part.unit}", 1, (part,), "") for part in parts]


def write_parts(
    folder: Path,
    table: str,
    stem: str,
    chunks: Sequence[tuple[str, pa.Table]],
    arrow_schema: pa.Schema,
) -> list[CommittedPart]:
    """Write one Parquet file with a row group for each (unit, table), synced to disk."""
    if not chunks:
        return []
    name = f"{table}/{stem}.parquet"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    versioned = arrow_schema.with_metadata({"schema_version": str(schema.SCHEMA_VERSION)})
    parts = []
    with open(path, "wb") as file:
        with pq.ParquetWriter(file, versioned, compression="zstd") as writer:
            for index, (unit, rows) in enumerate(chunks):
                rows = rows.replace_schema_metadata(versioned.metadata)
                writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
                parts.append(CommittedPart(table, name, index, unit))
        file.flush()
        os.fsync(file.fileno())
    return parts


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


def result_digest(tables: Mapping[str, pa.Table]) -> str:
    """Return a digest of a unit's results; `timings`, which no two runs share, is left out."""
    sha = hashlib.sha256()
    for name in sorted(tables):
        if name != "timings":
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, tables[name].schema) as stream:
                stream.write_table(tables[name].combine_chunks())
            sha.update(sink.getvalue())
    return sha.hexdigest()[:16]
