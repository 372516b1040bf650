"""scripts/run_multi_families.*: real runs of two models, one that can't be had, and resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import yaml

ROOT = Path(__file__).resolve().parents[2]
RUN, BATCH = (ROOT / "scripts" / f"run_multi_families.{kind}" for kind in ("sh", "sbatch"))
Make = Callable[..., dict[str, Any]]
MODELS = [
    {"name": "linear", "path": "fake:linear"},
    {"name": "gone", "path": "/no/such/model"},
    {"name": "planted", "path": "fake:planted", "options": {"weights": {"good": 1.5}}},
]


def run(script: Path, config: Path, out: Path, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RAY_ADDRESS"))}
    return subprocess.run(
        [str(script), str(config), str(out), "--set", "cluster.num_cpus=2"],
        env={**kept, "PYTHON": sys.executable, **more},
        cwd=out.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_a_model_and_the_same_command_again(tmp_path: Path, sweep_config: Make) -> None:
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    sweep = sweep_config(models=MODELS, data__limit=4, explainers=["occlusion", "random"])
    config.write_text(yaml.safe_dump(sweep))
    first = run(RUN, config, out)
    assert first.returncode == 2, first.stdout + first.stderr
    assert "2 of 3 models done" in first.stdout
    assert "gone failed (exit code 3)" in first.stderr
    assert "can't be found" in (out / "gone.log").read_text()
    for model in ("linear", "planted"):
        assert (out / model / "report.html").is_file()
        assert json.loads((out / model / "run.json").read_text())["status"] == "finished"
        table = pl.read_parquet(out / model / "tables" / "performance.parquet")
        assert table["model"].unique().to_list() == [model]

    sweep["models"] = [MODELS[0], MODELS[2]]  # the model that can't be had is given up
    config.write_text(yaml.safe_dump(sweep))
    again = run(RUN, config, out)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("Finished already") == 2


def test_the_batch_script_does_the_same_in_a_job(tmp_path: Path, sweep_config: Make) -> None:
    sweep = sweep_config(models=MODELS[:1], data__limit=4, explainers=["occlusion"])
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(sweep))
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        "#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\n"
        'SLURM_JOB_ID=1 SLURM_SUBMIT_DIR=$PWD SLURM_JOB_NUM_NODES=1 exec bash "$@"\n'
    )
    sbatch.chmod(0o755)
    done = run(BATCH, config, out, PATH=f"{sbatch.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "linear" / "report.html").is_file()
    assert "1 of 1 models done" in done.stdout
