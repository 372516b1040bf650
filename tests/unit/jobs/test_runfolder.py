from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from actors.adapter_card import CARD
from actors.trainer import PROGRESS, write_json
from engine import schema
from engine.commits import CommitLog
from engine.errors import RunFolderError
from engine.facts import UNTRAINED, AdapterFacts
from engine.plan import Plan
from engine.results import UnitResult
from engine.store import write_units
from jobs.runfolder import RunFolder
from jobs.status import print_status
from tests.unit.fake_sweep import examples_of, plan_of, sweep

TEXTS = ["good", "bad", "so so", "dull", "fun"]


def plan_with(*explainers: str, texts: list[str] = TEXTS, **changes: Any) -> Plan:
    changes = {"cluster__shard_size": 2, **changes}
    return plan_of(sweep(*(explainers or ("occlusion",)), **changes), examples_of(texts))


def commit_units(folder: Path, *units: str, failed: bool = False, failures: int = 0) -> None:
    log = CommitLog(folder)
    results = []
    for unit in units:
        rows = [{"unit": unit, "stage": "score", "code": "c", "message": "m"}] * failures
        tables: dict[str, pa.Table] = {n: s.empty_table() for n, s in schema.RESULTS.items()}
        tables["failures"] = schema.rows_to_table(rows, schema.FAILURES)
        results.append(UnitResult(unit, 1, tables, failed=failed))
    log.append(write_units(folder, f"w-{log.epoch}", results))
    log.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "test")


class TestOpen:
    def test_creates_the_folder_with_its_record(self, folder: RunFolder) -> None:
        plan = plan_with()
        assert folder.open(plan) == plan
        record = json.loads((folder.path / "run.json").read_text(encoding="utf-8"))
        assert record["run_fingerprint"] == plan.fingerprint
        assert record["schema_version"] == schema.SCHEMA_VERSION
        assert record["status"] == "running"
        assert set(record["versions"]) >= {"ray", "torch", "numpy"}
        assert record["hardware"]["cores"] >= 1
        assert record["started"].endswith("Z")
        assert (folder.path / "plan.parquet").exists()

    def test_opening_again_keeps_the_record(self, folder: RunFolder) -> None:
        folder.open(plan_with())
        folder.update(started="then", status="finished")
        folder.open(plan_with())
        assert (folder.record["started"], folder.record["status"]) == ("then", "finished")

    def test_units_stay_as_they_were_first_cut(self, folder: RunFolder) -> None:
        first = folder.open(plan_with())
        again = folder.open(plan_with(cluster__shard_size=5))
        assert again.units == first.units
        assert len(again.units) == 3
        assert folder.as_cut(plan_with(cluster__shard_size=1)).units == first.units

    def test_a_plan_of_no_run_is_as_it_is(self, folder: RunFolder) -> None:
        plan = plan_with()
        assert folder.as_cut(plan) is plan
        assert not folder.path.exists()

    def test_scheduling_may_change(self, folder: RunFolder) -> None:
        folder.open(plan_with())
        folder.open(plan_with(cluster__attempts=1, run__store="elsewhere"))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"run__seed": 5}, "run.seed"),
            ({"prompt__template": "{text} ="}, "prompts.0.template"),
            ({"models": [{"name": "linear", "path": "fake:and_or"}]}, "models.0.path"),
            ({"texts": ["good", "bad"]}, "the data differ"),
        ],
    )
    def test_another_configuration_names_what_differs(
        self, folder: RunFolder, changes: dict[str, Any], said: str
    ) -> None:
        folder.open(plan_with())
        with pytest.raises(RunFolderError) as error:
            folder.check(plan_with(**changes))
        assert said in str(error.value)
        assert "--out" in str(error.value)
        assert "cluster" not in str(error.value)

    def test_another_explainer(self, folder: RunFolder) -> None:
        folder.open(plan_with("occlusion"))
        with pytest.raises(RunFolderError, match=r"explainers\.0\.name"):
            folder.open(plan_with("exact"))
        with pytest.raises(RunFolderError, match="explainers"):
            folder.open(plan_with("occlusion", "exact"))

    def test_other_weights_of_the_same_model(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        [key] = plan.pairs
        folder.update(evaluation_fingerprints={key: "0" * 16})
        with pytest.raises(RunFolderError, match=r"weights of linear\|fp32"):
            folder.check(plan)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(RunFolderError, match="not empty and no run folder"):
            RunFolder(tmp_path).open(plan_with())
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(RunFolderError, match="--out"):
                RunFolder(path).open(plan_with())

    def test_a_start_that_was_cut_off_leaves_nothing_in_the_way(self, folder: RunFolder) -> None:
        folder.open(plan_with())
        (folder.path / "run.json").rename(folder.path / "run.12.tmp")
        plan = folder.open(plan_with(cluster__shard_size=5))
        assert len(plan.units) == 1
        assert folder.record["status"] == "running"

    def test_another_format(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        folder.update(schema_version=schema.SCHEMA_VERSION + 1)
        with pytest.raises(RunFolderError, match=f"format {schema.SCHEMA_VERSION + 1}"):
            folder.check(plan)

    def test_a_damaged_record(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        (folder.path / "run.json").write_text('{"status":')
        with pytest.raises(RunFolderError, match="damaged"):
            folder.open(plan)


class TestLeft:
    def test_what_has_no_commit_or_was_given_up(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        first, second, third = (unit.id for unit in plan.units)
        assert [u.id for u in folder.left(plan)] == [first, second, third]
        commit_units(folder.path, second)
        assert [u.id for u in folder.left(plan)] == [first, third]
        commit_units(folder.path, first, failed=True)
        # What was given up comes last: it may kill its hosts again.
        assert [u.id for u in folder.left(plan)] == [third, first]
        commit_units(folder.path, first, third)
        assert folder.left(plan) == []


def test_a_model_found_later_joins_the_run(folder: RunFolder) -> None:
    changes = {"models": ["fake:linear", "fake:and_or"]}
    both = plan_with(**changes)
    only = Plan(
        both.config,
        both.fingerprint,
        {key: pair for key, pair in both.pairs.items() if "linear" in key},
        tuple(unit for unit in both.units if "linear" in unit.pair),
        both.examples,
        both.explained,
    )
    folder.open(only)
    assert folder.open(both).units == both.units
    assert set(folder.record["evaluation_fingerprints"]) == set(both.pairs)
    assert folder.open(both).units == both.units


class TestTraining:
    """A run is there, and says what it does, while its adapters are trained."""

    @staticmethod
    def plan(digest: str) -> Plan:
        """Two pairs, the second by an adapter."""
        plan = plan_with(models=["fake:linear", "fake:and_or"])
        base, tuned = plan.pairs
        adapter = AdapterFacts(digest, "folder")
        of_adapter = replace(plan.pairs[tuned], adapter=adapter, evaluation_fingerprint=digest)
        return replace(plan, pairs={base: plan.pairs[base], tuned: of_adapter})

    def test_what_is_trained_joins_the_run(self, folder: RunFolder) -> None:
        before, after = self.plan(f"{UNTRAINED}t"), self.plan("0" * 64)
        base, tuned = before.pairs
        opened = folder.open(before)
        assert list(opened.pairs) == [base]
        assert {unit.pair for unit in opened.units} == {base}
        assert set(folder.record["evaluation_fingerprints"]) == {base}
        opened = folder.open(after)
        assert list(opened.pairs) == [base, tuned]
        assert opened.units == after.units
        assert folder.record["evaluation_fingerprints"][tuned] == "0" * 64

    def test_what_is_to_be_trained_again_is_no_other_configuration(self, folder: RunFolder) -> None:
        folder.open(self.plan("0" * 64))
        folder.check(self.plan(f"{UNTRAINED}t"))
        with pytest.raises(RunFolderError, match="weights of"):
            folder.check(self.plan("1" * 64))

    def test_status_tells_of_every_training(self, folder: RunFolder, tmp_path: Path) -> None:
        folder.open(self.plan(f"{UNTRAINED}t"))
        folders = [tmp_path / name for name in "abc"]
        for each in folders:
            each.mkdir()
        trainings = [
            {"place": f"m/fp32 with {each.name}", "steps": 40, "folder": str(each)}
            for each in folders
        ]
        folder.update(status="training", trainings=trainings)
        write_json(folders[0] / CARD, {})
        entry = {"step": 30, "steps": 40, "loss": 0.25, "tokens": 9000, "seconds": 10.0}
        write_json(folders[1] / PROGRESS, entry)
        log = CommitLog(folder.path)
        _, said = TestStatus.told(folder.path)
        assert f"{folder.path}: training (started " in said
        assert "adapter m/fp32 with a: trained\n" in said
        assert "adapter m/fp32 with b: step 30 of 40, loss 0.250, 900 tokens/s\n" in said
        assert "adapter m/fp32 with c: not trained yet (40 steps)\n" in said
        assert "continues it" in said
        log.close()
        assert ": stopped: its process is gone" in TestStatus.told(folder.path)[1]


class TestStatus:
    @staticmethod
    def told(path: Path) -> tuple[int, str]:
        out = io.StringIO()
        return print_status(path, Console(file=out, width=200)), out.getvalue()

    def test_of_a_run_half_way(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        commit_units(folder.path, plan.units[0].id)
        code, said = self.told(folder.path)
        assert code == 0
        assert "linear|fp32|none|review: 1 of 3 units (5 examples)" in said
        assert "continues it" in said

    def test_failures_are_counted(self, folder: RunFolder) -> None:
        plan = folder.open(plan_with())
        commit_units(folder.path, *(unit.id for unit in plan.units), failures=2)
        code, said = self.told(folder.path)
        assert code == 2
        assert "6 failures" in said
        assert "continues it" not in said

    def test_brackets_in_a_path_are_shown(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path / "a[bold]b")
        folder.open(plan_with())
        assert "a[bold]b: stopped" in self.told(folder.path)[1]

    def test_running_means_that_a_driver_lives(self, folder: RunFolder) -> None:
        folder.open(plan_with())
        log = CommitLog(folder.path)
        assert ": running" in self.told(folder.path)[1]
        log.close()
        assert ": stopped" in self.told(folder.path)[1]

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match=r"no run\.json"):
            print_status(tmp_path, Console())
