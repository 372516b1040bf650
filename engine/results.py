"""What units produced: of one unit, and of many in the few tables that are moved and written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from engine import schema
from engine.transport import Reduced, reduced, to_buffer


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


class FinishedUnit(NamedTuple):
    """What a commit says of a unit, besides where its rows are."""

    id: str
    attempt: int
    digest: str
    failed: bool


@dataclass(frozen=True, slots=True, eq=False)
class ResultBatch:
    """The results of several units, one after the other in tables of their own kind.

    Attributes:
        units: In order [U].
        tables: Result tables by name (`engine.schema.RESULTS`).
        counts: Rows of each unit, by table [U].
        evaluations: New rows for the store (`engine.schema.EVALUATIONS`).
        evaluation_counts: Rows of each unit [U].
        evaluation_sizes: Evaluations in these rows [U].
    """

    units: tuple[FinishedUnit, ...]
    tables: Mapping[str, pa.Table]
    counts: Mapping[str, tuple[int, ...]]
    evaluations: pa.Table
    evaluation_counts: tuple[int, ...]
    evaluation_sizes: tuple[int, ...]

    @classmethod
    def of(cls, results: Sequence[UnitResult]) -> ResultBatch:
        """Return the results of units together; a table that one lacks is empty."""
        tables = {}
        counts = {}
        for name, arrow_schema in schema.RESULTS.items():
            found = [r.tables.get(name, arrow_schema.empty_table()) for r in results]
            tables[name] = _joined(found, arrow_schema)
            counts[name] = tuple(table.num_rows for table in found)
        empty = schema.EVALUATIONS.empty_table()
        new = [empty if r.evaluations is None else r.evaluations for r in results]
        return cls(
            tuple(
                FinishedUnit(r.unit, r.attempt, result_digest(r.tables), r.failed) for r in results
            ),
            tables,
            counts,
            _joined(new, schema.EVALUATIONS),
            tuple(table.num_rows for table in new),
            tuple(pc.sum(pc.list_value_length(t.column("log_z"))).as_py() or 0 for t in new),
        )

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.evaluations.nbytes + sum(table.nbytes for table in self.tables.values())

    def __reduce__(self) -> Reduced:
        """Return how to make it again in another process."""
        numbers = (self.counts, self.evaluation_counts, self.evaluation_sizes)
        tables = (self.tables[name] for name in self.counts)
        return reduced(partial(_rebuilt, self.units, *numbers), (self.evaluations, *tables))


def _rebuilt(
    units: tuple[FinishedUnit, ...],
    counts: Mapping[str, tuple[int, ...]],
    evaluation_counts: tuple[int, ...],
    evaluation_sizes: tuple[int, ...],
    evaluations: pa.Table,
    *tables: pa.Table,
) -> ResultBatch:
    by_name = dict(zip(counts, tables, strict=True))
    return ResultBatch(units, by_name, counts, evaluations, evaluation_counts, evaluation_sizes)


def result_digest(tables: Mapping[str, pa.Table]) -> str:
    """Return a digest of a unit's results; `timings`, which no two runs share, is left out."""
    sha = hashlib.sha256()
    for name in sorted(tables):
        if name != "timings":
            sha.update(to_buffer(tables[name].combine_chunks()))
    return sha.hexdigest()[:16]


def _joined(tables: Sequence[pa.Table], arrow_schema: pa.Schema) -> pa.Table:
    """Return the rows of all tables in one chunk; metadata of their schemas is dropped."""
    bare = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables([arrow_schema.empty_table(), *bare]).combine_chunks()
