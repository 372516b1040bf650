from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import engine.store
from engine import schema
from engine.commits import CommitLog, committed, read_commits
from engine.plan import with_stored
from engine.results import UnitResult, result_digest
from engine.store import (
    index_store,
    read_parts,
    read_results,
    write_evaluations,
    write_units,
)
from tests.unit.engine.unit_results import evaluations, failures
from tests.unit.fake_sweep import CountingHost, examples_of, plan_of, sweep

TEXTS = ["a good film", "a dull film", "awful", ""]


class TestWriteUnits:
    def test_a_file_a_table_and_units_in_one_row_group(self, tmp_path: Path) -> None:
        results = [
            UnitResult("u1", 1, failures("u1", "a", "b")),
            UnitResult("u2", 2, failures("u2"), failed=True),
            UnitResult("u3", 1, failures("u3", "c")),
        ]
        commits = write_units(tmp_path, "w-1", results)
        assert [f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*.parquet")] == [
            "failures/w-1.parquet"
        ]
        file = pq.ParquetFile(tmp_path / "failures/w-1.parquet")
        assert file.num_row_groups == 1
        assert [(c.unit, c.attempt, c.failed, len(c.parts)) for c in commits] == [
            ("u1", 1, False, 1),
            ("u2", 2, True, 0),
            ("u3", 1, False, 1),
        ]
        for made in (commits[0], commits[2]):
            rows = read_results(file, made.parts)
            assert set(rows.column("unit").to_pylist()) == {made.unit}
            assert read_results(file, made.parts, ["unit"]).num_rows == rows.num_rows
        both = read_results(file, [*commits[2].parts, *commits[0].parts], ["unit", "code"])
        assert both.column("code").to_pylist() == ["a", "b", "c"]

    def test_a_full_row_group_is_followed_by_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine.store, "GROUP_ROWS", 4)
        sizes = [0, 1, 3, 0, 1, 9, 0, 2]
        results = [
            UnitResult(f"u{i}", 1, failures(f"u{i}", *["x"] * n)) for i, n in enumerate(sizes)
        ]
        commits = write_units(tmp_path, "w-1", results)
        file = pq.ParquetFile(tmp_path / "failures/w-1.parquet")
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == [4, 1, 9, 2]
        for size, commit in zip(sizes, commits, strict=True):
            assert len(commit.parts) == min(size, 1)
            if size:
                units = read_results(file, commit.parts).column("unit").to_pylist()
                assert units == [commit.unit] * size

    def test_files_say_their_version(self, tmp_path: Path) -> None:
        write_units(tmp_path, "w-1", [UnitResult("u", 1, failures("u", "a"))])
        written = pq.read_schema(tmp_path / "failures/w-1.parquet")
        assert written.metadata[b"schema_version"] == str(schema.SCHEMA_VERSION).encode()
        assert written.remove_metadata().equals(schema.FAILURES)

    def test_only_what_a_log_names_is_visible(self, tmp_path: Path) -> None:
        log = CommitLog(tmp_path)
        results = [UnitResult(u, 1, failures(u, u)) for u in ("u1", "u2")]
        commits = write_units(tmp_path, "w-1", results)
        write_units(tmp_path, "w-2", results)  # a writer that died before its commit
        assert committed(tmp_path) == []
        log.append(commits[1:])
        [part] = committed(tmp_path)
        assert (part.unit, part.file) == ("u2", "failures/w-1.parquet")
        rows = read_results(pq.ParquetFile(tmp_path / part.file), [part])
        assert rows.column("code").to_pylist() == ["u2"]

    def test_nothing_to_write_makes_no_file(self, tmp_path: Path) -> None:
        assert write_units(tmp_path, "w-1", []) == []
        assert write_evaluations(tmp_path, "w-1", [UnitResult("u", 1, failures("u"))]) == []
        assert list(tmp_path.iterdir()) == []

    def test_a_large_unit_is_one_row_group(self, tmp_path: Path) -> None:
        results = [UnitResult("u", 1, failures("u", *["x"] * 5000))]
        write_units(tmp_path, "w-1", results)
        assert pq.ParquetFile(tmp_path / "failures/w-1.parquet").num_row_groups == 1


class TestStore:
    def test_index_names_the_row_groups_of_each_example(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine.store, "GROUP_EVALUATIONS", 4)
        log = CommitLog(tmp_path, exclusive=False)
        results = [
            UnitResult("u1", 1, {}, evaluations("a", "b")),
            UnitResult("u2", 1, {}, None),
            UnitResult("u3", 1, {}, evaluations("b", "c", value=-9.0)),
        ]
        log.append(write_evaluations(tmp_path, "w-1", results))
        index = index_store(tmp_path)
        assert {key: [p.row_group for p in parts] for key, parts in index.items()} == {
            "a": [0],
            "b": [0, 1],
            "c": [1],
        }
        rows = read_parts(tmp_path, index["c"])
        assert rows.column("example").to_pylist() == ["b", "c"]
        assert rows.schema.remove_metadata().equals(schema.EVALUATIONS)

    def test_small_units_share_a_row_group(self, tmp_path: Path) -> None:
        log = CommitLog(tmp_path, exclusive=False)
        results = [UnitResult(f"u{i}", 1, {}, evaluations(f"e{i}")) for i in range(3)]
        log.append(write_evaluations(tmp_path, "w-1", results))
        index = index_store(tmp_path)
        assert sorted(index) == ["e0", "e1", "e2"]
        [parts] = set(index.values())
        assert read_parts(tmp_path, parts).column("example").to_pylist() == ["e0", "e1", "e2"]

    def test_a_unit_that_is_run_again_adds_to_the_store(self, tmp_path: Path) -> None:
        for stem, value in (("w-1", -1.0), ("w-2", -2.0)):
            log = CommitLog(tmp_path, exclusive=False)
            result = UnitResult("u", 1, {}, evaluations("a", value=value))
            log.append(write_evaluations(tmp_path, stem, [result]))
            log.close()
        assert len(read_commits(tmp_path)) == 2
        rows = read_parts(tmp_path, index_store(tmp_path)["a"])
        assert sorted(row[0] for row in rows.column("log_probs").to_pylist()) == [-2.0, -1.0]

    def test_no_store_yet(self, tmp_path: Path) -> None:
        assert index_store(tmp_path / "none") == {}
        assert read_parts(tmp_path, []).schema.equals(schema.EVALUATIONS)


@pytest.mark.parametrize("stored", ["nothing", "all", "half"])
def test_a_unit_gives_the_same_results_alone_and_with_a_store(tmp_path: Path, stored: str) -> None:
    """Bit for bit, whatever part of its evaluations it finds."""
    explainers: list[Any] = [{"name": "lime", "num_samples": 24}, "occlusion"]
    config = sweep(*explainers, metrics={"faithfulness": True})
    plan = plan_of(config, examples_of(TEXTS), tmp_path)
    [pair] = plan.pairs.values()
    folder = Path(pair.context.store)
    [unit] = plan.units
    with CountingHost(pair) as host:
        alone = host.run(pair, unit)
        asked = len(host.sequences)
        if stored != "nothing":
            earlier = [alone]
            if stored == "half":
                part = plan_of(sweep("occlusion"), examples_of(TEXTS[:2]), tmp_path)
                earlier = [host.run(pair=part.pairs[unit.pair], unit=part.units[0])]
            log = CommitLog(folder, exclusive=False)
            log.append(write_evaluations(folder, "w-1", earlier))
            log.close()
        before = len(host.sequences)
        again = host.run(pair, with_stored(unit, index_store(folder), []))
        new = len(host.sequences) - before
    assert {"nothing": new == asked, "all": new == 0, "half": 0 < new < asked}[stored]
    assert result_digest(again.tables) == result_digest(alone.tables)
    for name in ("predictions", "attributions", "metrics", "failures"):
        assert again.tables[name].equals(alone.tables[name]), name
    new_rows = again.tables["timings"].column("evaluations_new").to_pylist()
    assert sum(new_rows) == new
