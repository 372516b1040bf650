from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.load import RunTables
from engine.commits import Commit, CommitLog, CommittedPart
from engine.errors import RunFolderError
from engine.schema import RESULTS
from tests.unit.analysis.frames import arrow, attribution, prediction, run_of, timing


def write(folder: Path, file: str, *tables: pa.Table) -> None:
    """Write each table as one row group."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)


def commit(folder: Path, *parts: CommittedPart) -> None:
    log = CommitLog(folder)
    for attempt, part in enumerate(parts):
        log.append([Commit(part.unit, attempt, (part,), "digest")])
    log.close()


def predictions(*examples: str, unit: str = "unit1") -> pa.Table:
    rows = [prediction(e, [0.2, 0.8], 1, unit=unit) for e in examples]
    return arrow(predictions=rows)["predictions"]


def test_only_committed_units_are_read_and_the_last_attempt_counts(tmp_path: Path) -> None:
    first, second = "predictions/a-0.parquet", "predictions/b-0.parquet"
    shared = pa.concat_tables([predictions("b", unit="unit2"), predictions("torn", unit="unit3")])
    write(tmp_path, first, predictions("old"), shared, predictions("torn", unit="unit4"))
    write(tmp_path, second, predictions("new", "c"))
    (tmp_path / "predictions/c-0.parquet").write_bytes(b"half a file")
    commit(
        tmp_path,
        CommittedPart("predictions", first, 0, "unit1"),
        CommittedPart("predictions", first, 1, "unit2"),
        CommittedPart("predictions", second, 0, "unit1"),
    )
    run = RunTables.load(tmp_path)
    assert run.predictions["example"].to_list() == ["b", "c", "new"]
    assert run.attributions.is_empty()
    assert run.attributions.columns == RESULTS["attributions"].names


def test_rows_are_sorted_by_factors_example_and_explainer() -> None:
    run = run_of(
        attributions=[
            attribution("b", [1.0], explainer="lime"),
            attribution("a", [1.0], explainer="occlusion"),
            attribution("a", [1.0], explainer="lime", unit="z"),
            attribution("z", [1.0], model="another"),
        ],
        timings=[timing("b", "lime"), timing("a", "lime")],
    )
    found = run.attributions.select("model", "example", "explainer").rows()
    assert found == [
        ("another", "z", "lime"),
        ("tiny", "a", "lime"),
        ("tiny", "a", "occlusion"),
        ("tiny", "b", "lime"),
    ]
    assert run.timings["example"].to_list() == ["a", "b"]


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    table = predictions("a").replace_schema_metadata({"schema_version": "999"})
    write(tmp_path, "predictions/a-0.parquet", table)
    commit(tmp_path, CommittedPart("predictions", "predictions/a-0.parquet", 0, "unit1"))
    with pytest.raises(RunFolderError, match=r"a-0.parquet: schema version 999"):
        RunTables.load(tmp_path)


def test_a_committed_file_that_is_gone_is_named(tmp_path: Path) -> None:
    commit(tmp_path, CommittedPart("predictions", "predictions/gone.parquet", 0, "unit1"))
    with pytest.raises(RunFolderError, match=r"gone.parquet: committed but can't be read"):
        RunTables.load(tmp_path)


def test_a_row_group_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "predictions/a-0.parquet", predictions("a"))
    commit(tmp_path, CommittedPart("predictions", "predictions/a-0.parquet", 7, "unit1"))
    with pytest.raises(RunFolderError, match=r"a-0.parquet"):
        RunTables.load(tmp_path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        RunTables.load(tmp_path / "nowhere")


def test_a_table_of_other_columns_is_refused() -> None:
    with pytest.raises(RunFolderError, match="predictions"):
        RunTables.from_arrow({"predictions": predictions("a").drop_columns(["gold"])})
