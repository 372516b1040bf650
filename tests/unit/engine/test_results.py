from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa

from engine import schema
from engine.results import FinishedUnit, ResultBatch, UnitResult, result_digest
from tests.unit.engine.unit_results import evaluations, failures


class TestBatch:
    def test_has_the_rows_of_each_unit_in_order(self) -> None:
        one, two = failures("u1", "a", "b"), failures("u2", "c")
        results = [
            UnitResult("u1", 1, one, evaluations("x")),
            UnitResult("u2", 3, two, None, failed=True),
            UnitResult("u3", 1, {}, evaluations("y", "z")),
        ]
        batch = ResultBatch.of(results)
        assert batch.units == (
            FinishedUnit("u1", 1, result_digest(one), False),
            FinishedUnit("u2", 3, result_digest(two), True),
            FinishedUnit("u3", 1, result_digest({}), False),
        )
        assert batch.counts == {**dict.fromkeys(schema.RESULTS, (0, 0, 0)), "failures": (2, 1, 0)}
        assert batch.tables["failures"].column("code").to_pylist() == ["a", "b", "c"]
        assert batch.evaluation_counts == (1, 0, 2)
        assert batch.evaluation_sizes == (2, 0, 4)
        assert batch.evaluations.column("example").to_pylist() == ["x", "y", "z"]
        assert batch.nbytes > 0

    def test_is_the_same_elsewhere(self) -> None:
        batch = ResultBatch.of([UnitResult("u", 1, failures("u", "a"), evaluations("x"))])
        moved = pickle.loads(pickle.dumps(batch, 5))
        for name in ("units", "counts", "evaluation_counts", "evaluation_sizes", "nbytes"):
            assert getattr(moved, name) == getattr(batch, name)
        assert moved.evaluations.equals(batch.evaluations)
        assert moved.tables == batch.tables


class TestDigest:
    def test_ignores_timings_and_nothing_else(self) -> None:
        tables = failures("u", "a")
        timing: dict[str, Any] = {
            "unit": "u",
            **dict.fromkeys(schema.FACTORS, "x"),
            "example": "e",
            "consumer": "lime",
            **dict.fromkeys(schema.TIMINGS.names[-7:], 1),
        }
        slower = schema.rows_to_table([timing], schema.TIMINGS)
        assert result_digest({**tables, "timings": slower}) == result_digest(tables)
        assert result_digest(failures("u", "b")) != result_digest(tables)
        assert result_digest(failures("u", "a", "a")) != result_digest(tables)

    def test_ignores_how_a_table_is_cut_into_chunks(self) -> None:
        tables = failures("u", "a", "b")
        whole = tables["failures"]
        cut = {**tables, "failures": pa.concat_tables([whole[:1], whole[1:]])}
        assert result_digest(cut) == result_digest(tables)
