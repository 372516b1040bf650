"""The result tables of a run folder, in an order that no shard or worker count can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from engine.commits import CommittedPart, committed
from engine.errors import RunFolderError
from engine.schema import FACTORS, GAME, RESULTS, SCHEMA_VERSION
from engine.store import read_results

_SORT = {
    "predictions": (*FACTORS, "example"),
    "attributions": (*FACTORS, "example", *GAME, "class_name"),
    "metrics": (*FACTORS, "example", *GAME, "class_name", "metric", "n_removed"),
    "timings": (*FACTORS, "example", "consumer"),
    "failures": (*FACTORS, "example", "explainer", "stage", "code", "message"),
}


@dataclass(frozen=True, slots=True, eq=False)
class RunTables:
    """The committed rows of a run, as in `engine.schema.RESULTS`.

    Sorted by factors, example, explainer and what else tells rows apart; never by unit.
    """

    predictions: pl.DataFrame
    attributions: pl.DataFrame
    metrics: pl.DataFrame
    timings: pl.DataFrame
    failures: pl.DataFrame

    @classmethod
    def load(cls, run_dir: str | Path) -> RunTables:
        """Read the rows of the units that the commit log of a run folder names, and no others.

        Raises:
            RunFolderError: A committed file is missing, can't be read, or has another schema
                version.
        """
        run_dir = Path(run_dir)
        if not run_dir.is_dir():
            raise RunFolderError(f"{run_dir}: no such run folder; give the folder of a run")
        parts = committed(run_dir)
        return cls.from_arrow({name: _read_table(run_dir, name, parts) for name in RESULTS})

    @classmethod
    def from_arrow(cls, tables: Mapping[str, pa.Table]) -> RunTables:
        """Make the tables from Arrow tables by name; one that is left out is empty.

        Raises:
            RunFolderError: A table hasn't the columns of its schema.
        """
        frames = {}
        for name, schema in RESULTS.items():
            table = tables.get(name, schema.empty_table())
            if not table.schema.equals(schema):
                raise RunFolderError(
                    f"{name}: columns differ from the schema of this version of rayxai; "
                    "run the sweep again into another folder"
                )
            frame = pl.DataFrame(pl.from_arrow(table))
            frames[name] = frame.sort(_SORT[name], nulls_last=False, maintain_order=True)
        return cls(**frames)


def _read_table(run_dir: Path, name: str, parts: Sequence[CommittedPart]) -> pa.Table:
    by_file: dict[str, list[CommittedPart]] = {}
    for part in parts:
        if part.table == name:
            by_file.setdefault(part.file, []).append(part)
    tables = [_read_file(run_dir / file, by_file[file]) for file in sorted(by_file)]
    return pa.concat_tables([RESULTS[name].empty_table(), *tables])


def _read_file(path: Path, parts: Sequence[CommittedPart]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(b"schema_version", b"none").decode()
            if version != str(SCHEMA_VERSION):
                raise RunFolderError(
                    f"{path}: schema version {version}, but this rayxai reads version "
                    f"{SCHEMA_VERSION}; use the rayxai that wrote it, or run the sweep again"
                )
            return read_results(file, parts)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{path}: committed but can't be read ({error}); delete the run folder and run again"
        ) from error
