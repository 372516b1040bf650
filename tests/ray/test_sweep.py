"""The sweep end to end on a real Ray with the analytic host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from actors.analytic import analytic_model, closed_form
from analysis.load import RunTables
from engine.commits import read_commits
from engine.config import parse_config
from engine.errors import ModelError, RunFolderError
from jobs.sweep import Outcome, run_sweep

Make = Callable[..., dict[str, Any]]
QUIET = Console(quiet=True)
NOT_COMPARED = {"cost", "families"}  # they have seconds


def run(raw: dict[str, Any]) -> Outcome:
    return run_sweep(parse_config(raw), QUIET)


def table_bytes(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "tables").iterdir())
    assert files
    return {f.name: f.read_bytes() for f in files if f.stem not in NOT_COMPARED}


def rows(folder: Path) -> dict[str, pl.DataFrame]:
    """All committed rows, sorted by key, without what no two runs share."""
    loaded = RunTables.load(folder)
    frames = {
        "predictions": loaded.predictions,
        "attributions": loaded.attributions,
        "metrics": loaded.metrics,
        "failures": loaded.failures,
    }
    return {name: frame.drop("unit") for name, frame in frames.items()}


@pytest.mark.usefixtures("local_ray")
class TestSweep:
    def test_writes_every_table_and_the_report(self, sweep_config: Make) -> None:
        outcome = run(sweep_config())
        assert outcome.code == 0
        loaded = RunTables.load(outcome.folder)
        assert len(loaded.predictions) == 12
        assert len(loaded.attributions) == 12 * 4
        names = {path.stem for path in (outcome.folder / "tables").glob("*.parquet")}
        assert names >= {
            "performance",
            "faithfulness",
            "complexity",
            "agreement",
            "plausibility",
            "cost",
        }
        report = (outcome.folder / "report.html").read_text(encoding="utf-8")
        for row in loaded.predictions.to_dicts():
            assert f"{row['example']}" in report

    def test_attributions_are_the_models_weights(self, sweep_config: Make) -> None:
        """The log-odds of the linear model are additive: every word's value is its weight."""
        outcome = run(sweep_config(explainers=[{"name": "kernel_shap", "num_samples": 256}]))
        loaded = RunTables.load(outcome.folder)
        inputs = dict(loaded.predictions.select("example", "inputs").iter_rows())
        for row in loaded.attributions.to_dicts():
            text = pl.Series([inputs[row["example"]]]).str.json_decode(
                pl.Struct({"text": pl.String})
            )[0]["text"]
            words = [text[s["start"] : s["end"]] for s in row["spans"]]
            expected = np.array(closed_form(analytic_model("fake:linear"), words))
            sign = 1.0 if row["class_name"] == "positive" else -1.0
            np.testing.assert_allclose(row["values"], sign * expected, atol=2e-5)

    def test_same_command_again_does_nothing(self, sweep_config: Make) -> None:
        first = run(sweep_config())
        before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.parquet")}
        lines: list[str] = []
        console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
        again = run_sweep(parse_config(sweep_config()), console)
        lines = console.export_text().splitlines()
        assert any("nothing to do" in line for line in lines)
        assert again.evaluations == 0
        assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*.parquet")} == before

    def test_another_configuration_is_refused(self, sweep_config: Make) -> None:
        run(sweep_config())
        with pytest.raises(RunFolderError, match=r"run\.seed"):
            run(sweep_config(run__seed=5))

    def test_shards_and_hosts_change_no_byte_of_the_tables(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        found = []
        coalitions = []
        for name, hosts, shard in (("a", 1, 1), ("b", 2, 1), ("c", 1, 50), ("d", 2, 50)):
            raw = sweep_config(
                cluster={"hosts": hosts, "shard_size": shard},
                run__out=str(tmp_path / name),
                run__store=str(tmp_path / f"store-{name}"),
            )
            outcome = run(raw)
            found.append(table_bytes(outcome.folder))
            coalitions.append(stored_coalitions(tmp_path / f"store-{name}"))
        assert all(tables == found[0] for tables in found[1:])
        assert all(c == coalitions[0] for c in coalitions[1:])

    def test_noise_of_batches_moves_values_but_no_coalition(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        """With results that depend on the batch, coalitions and row keys must stay as they are;
        values may move, by no more than the noise allows."""
        noise = 1e-4
        model = [{"name": "linear", "path": "fake:linear", "options": {"noise": noise}}]
        results = []
        for name, shard in (("one", 1), ("many", 50)):
            # Metrics rank words by the noisy values, so which words they remove may differ.
            raw = sweep_config(
                models=model,
                metrics={"faithfulness": False},
                cluster={"shard_size": shard},
                run__out=str(tmp_path / name),
                run__store=str(tmp_path / f"store-{name}"),
            )
            outcome = run(raw)
            results.append(
                (
                    rows(outcome.folder)["attributions"],
                    stored_coalitions(tmp_path / f"store-{name}"),
                )
            )
        (one, coalitions_one), (many, coalitions_many) = results
        assert coalitions_one == coalitions_many
        keys = ["example", "explainer", "class_rule", "n_features", "evaluations"]
        assert one.select(keys).equals(many.select(keys))
        values_one = one.filter(pl.col("explainer") == "occlusion")["values"].explode().to_numpy()
        values_many = many.filter(pl.col("explainer") == "occlusion")["values"].explode().to_numpy()
        difference = np.abs(values_one - values_many).max()
        assert 0 < difference <= 8 * noise

    def test_by_example_batches_are_bit_equal_under_noise(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        model = [{"name": "linear", "path": "fake:linear", "options": {"noise": 1e-3}}]
        found = []
        for name, hosts, shard in (("one", 1, 1), ("many", 2, 50)):
            raw = sweep_config(
                models=model,
                cluster={"hosts": hosts, "shard_size": shard},
                run={
                    "name": "test",
                    "deterministic": "example",
                    "out": str(tmp_path / name),
                    "store": str(tmp_path / f"store-{name}"),
                },
            )
            found.append(rows(run(raw).folder))
        for name, frame in found[0].items():
            assert frame.equals(found[1][name]), name

    def test_another_run_reuses_the_store(self, sweep_config: Make, tmp_path: Path) -> None:
        first = run(sweep_config(explainers=[{"name": "kernel_shap", "num_samples": 96}]))
        raw = sweep_config(
            explainers=[{"name": "kernel_shap", "num_samples": 96}, "occlusion"],
            run__out=str(tmp_path / "second"),
        )
        second = run(raw)
        assert first.evaluations > 0
        timings = RunTables.load(second.folder).timings
        of_shap = timings.filter(pl.col("consumer").is_in(["kernel_shap", "metrics:kernel_shap"]))
        assert of_shap["evaluations_asked"].sum() > 0
        assert of_shap["evaluations_new"].sum() == 0
        kept = rows(first.folder)["attributions"]
        again = rows(second.folder)["attributions"].filter(pl.col("explainer") == "kernel_shap")
        assert again.equals(kept)

    def test_bad_examples_become_failures_and_the_sweep_goes_on(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        data = tmp_path / "data.jsonl"
        data.write_text(
            '{"text": "a good film", "label": 1}\n'
            '{"text": "a bad film", "label": 7}\n'
            "{broken\n"
            '{"text": "' + "word " * 50 + '", "label": 0}\n'
            '{"text": "dreadful poison here", "label": 0}\n'
            '{"text": "", "label": 0}\n'
            '{"text": "great", "label": "positive"}\n',
            encoding="utf-8",
        )
        raw = sweep_config(
            data={"path": str(data)},
            models=[
                {"path": "fake:linear", "options": {"max_tokens": 120, "fail_on": "poison"}},
            ],
        )
        outcome = run(raw)
        assert outcome.code == 2
        loaded = RunTables.load(outcome.folder)
        failures = loaded.failures.to_dicts()
        messages = {row["code"]: row["message"] for row in failures}
        assert f"{data}:2" in messages["bad_label"]
        assert f"{data}:3" in messages["malformed"]
        assert "limit is 112" in messages["too_long"]  # a window of 120 with room for the label
        assert "poison" in messages["not_scored"]
        # The empty text and the one-word text have defined results.
        statuses = dict(
            loaded.attributions.filter(pl.col("explainer") == "kernel_shap")
            .select("n_features", "status")
            .iter_rows()
        )
        assert statuses == {3: "ok", 0: "no_features", 1: "ok"}

    def test_one_missing_model_leaves_the_others(self, sweep_config: Make) -> None:
        models = [{"path": "/nowhere/model"}, {"name": "linear", "path": "fake:linear"}]
        outcome = run(sweep_config(models=models, explainers=["occlusion"]))
        assert outcome.code == 2
        loaded = RunTables.load(outcome.folder)
        assert loaded.predictions["model"].unique().to_list() == ["linear"]
        assert loaded.failures["stage"].to_list() == ["model"]
        assert "/nowhere/model" in loaded.failures["message"][0]

    def test_no_model_at_all_aborts(self, sweep_config: Make) -> None:
        with pytest.raises(ModelError, match="/nowhere/model"):
            run(sweep_config(models=[{"path": "/nowhere/model"}]))

    def test_a_unit_that_kills_its_host_is_given_up_alone(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        data = tmp_path / "data.jsonl"
        texts = ["a good film", "a bad film", "deadly words", "a fine film"]
        data.write_text(
            "".join(f'{{"text": "{t}", "label": 0}}\n' for t in texts), encoding="utf-8"
        )
        raw = sweep_config(
            data={"path": str(data)},
            models=[{"path": "fake:linear", "options": {"crash_on": "deadly"}}],
            explainers=["occlusion"],
            cluster={"shard_size": 1, "attempts": 2},
        )
        outcome = run(raw)
        loaded = RunTables.load(outcome.folder)
        assert outcome.code == 2
        assert len(loaded.predictions) == 3
        assert loaded.failures["code"].to_list() == ["host_lost"]

    def test_two_units_that_kill_their_hosts_take_no_other_with_them(
        self, sweep_config: Make, tmp_path: Path
    ) -> None:
        data = tmp_path / "data.jsonl"
        texts = [f"a good film {i}" for i in range(8)] + ["deadly words", "deadly sins"]
        data.write_text(
            "".join(f'{{"text": "{t}", "label": 0}}\n' for t in texts), encoding="utf-8"
        )
        raw = sweep_config(
            data={"path": str(data)},
            models=[{"path": "fake:linear", "options": {"crash_on": "deadly"}}],
            explainers=["occlusion"],
            cluster={"shard_size": 1, "attempts": 2},
        )
        loaded = RunTables.load(run(raw).folder)
        assert len(loaded.predictions) == 8
        assert loaded.failures["code"].to_list() == ["host_lost"] * 2


def stored_coalitions(store: Path) -> set[tuple[str, str, bytes]]:
    """All coalitions a store holds, by example and space."""
    import pyarrow.parquet as pq

    found = set()
    for folder in store.iterdir():
        for commit in read_commits(folder).values():
            for part in commit.parts:
                table = pq.ParquetFile(folder / part.file).read_row_group(part.row_group)
                for row in table.to_pylist():
                    width = (row["n_features"] + 7) // 8
                    for i in range(len(row["log_z"])):
                        bits = row["coalitions"][i * width : (i + 1) * width]
                        found.add((row["example"], row["space"], bits))
    return found
