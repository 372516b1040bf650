"""The shell scripts: shellcheck, what they do about failures, what they hand to Slurm and Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
RUN, BATCH = SCRIPTS / "run_multi_families.sh", SCRIPTS / "run_multi_families.sbatch"


def stub(folder: Path, name: str, body: str) -> Path:
    """Make a command that notes its arguments in calls.txt, one a line, and does `body`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        f'#!/usr/bin/env bash\n{{ printf "{name}"; printf " %q" "$@"; echo; }} '
        f'>> "{folder}/calls.txt"\n{body}\n'
    )
    path.chmod(0o755)
    return path


PYTHON = """
if [[ $2 == jobs.each_model ]]; then
    printf 'good\\tmodels=[1]\\nbad\\tmodels=[2]\\n'
elif [[ $4 == */broken.yaml || "$*" == *'[2]'* ]]; then
    echo "this one fails"; exit "${CODE:-3}"
else
    echo "this one works"
fi
"""


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().splitlines()


def run(
    script: Path, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    # nothing of a Slurm job that the tests themselves may run in
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    return subprocess.run(
        [str(script), *arguments],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck isn't installed")
@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    command = ["shellcheck", "--external-sources", str(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


class TestLoop:
    def test_a_failing_model_is_logged_and_the_loop_goes_on(self, tmp_path: Path) -> None:
        python = stub(tmp_path / "bin", "python", PYTHON)
        done = run(
            RUN, "some.yaml", "out", "--set", "data.limit=3", cwd=tmp_path, PYTHON=str(python)
        )
        assert done.returncode == 2, done.stderr
        assert "bad failed (exit code 3), see out/bad.log; going on" in done.stderr
        assert "1 of 2 models done" in done.stdout
        assert "failed: bad" in done.stdout
        assert "rayxai run some.yaml --out out/all" in done.stdout
        assert (tmp_path / "out" / "bad.log").read_text() == "this one fails\n"
        assert (tmp_path / "out" / "good.log").read_text() == "this one works\n"
        listed, good, bad = calls(tmp_path / "bin")
        assert listed == "python -m jobs.each_model some.yaml data.limit=3"
        assert good == (
            "python -m jobs.cli run some.yaml --out out/good --set data.limit=3 "
            r"--set models=\[1\]"
        )
        assert bad.endswith(r"--out out/bad --set data.limit=3 --set models=\[2\]")

    def test_failed_examples_are_not_a_failed_model(self, tmp_path: Path) -> None:
        python = stub(tmp_path / "bin", "python", PYTHON)
        done = run(RUN, "some.yaml", "out", cwd=tmp_path, PYTHON=str(python), CODE="2")
        assert done.returncode == 2
        assert "some examples failed: bad" in done.stdout
        assert "going on" not in done.stderr

    def test_nothing_that_runs_is_an_abort(self, tmp_path: Path) -> None:
        python = stub(tmp_path / "bin", "python", PYTHON)
        done = run(RUN, f"{tmp_path}/broken.yaml", "out", cwd=tmp_path, PYTHON=str(python))
        assert done.returncode == 3

    def test_defaults(self, tmp_path: Path) -> None:
        python = stub(tmp_path / "bin", "python", PYTHON)
        run(RUN, cwd=tmp_path, PYTHON=str(python))
        assert calls(tmp_path / "bin")[0].endswith(f"each_model {ROOT}/configs/families.yaml")
        assert (tmp_path / "runs" / "families" / "good.log").is_file()


class TestBatch:
    """Under stubs of sbatch, srun, scontrol and ray; never tried on a Slurm cluster here."""

    SBATCH = """
    # as Slurm does: a copy elsewhere, in the folder of submission, with variables of the job
    while [[ $1 == --* ]]; do shift; done
    script=$(mktemp); cp "$1" "$script"; chmod +x "$script"; shift
    SLURM_JOB_ID=4711 SLURM_SUBMIT_DIR=$PWD SLURM_JOB_NUM_NODES=${N:-1} SLURM_CPUS_PER_TASK=6 \\
        SLURM_JOB_NODELIST='n[1-2]' "$script" "$@"
    """

    def test_values_of_the_header_are_variables(self, tmp_path: Path) -> None:
        folder = tmp_path / "bin"
        python = stub(folder, "python", PYTHON)
        stub(folder, "sbatch", self.SBATCH)
        path = f"{folder}:{os.environ['PATH']}"
        values = {"PARTITION": "gpu", "GRES": "gpu:a100:1", "TIME": "3:00:00", "CPUS": "6"}
        done = run(
            BATCH, "some.yaml", "out", "--set", "data.limit=3",
            cwd=tmp_path, PATH=path, PYTHON=str(python), **values,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "1 of 2 models done" in done.stdout
        submitted, *_ = calls(folder)
        for option in (
            "--partition=gpu", "--gres=gpu:a100:1", "--time=3:00:00", "--cpus-per-task=6",
            "--mem=48G", "--nodes=1", "--job-name=rayxai-families", "--open-mode=append",
            "--output=logs/%x_%j.out",
        ):  # fmt: skip
            assert f" {option}" in submitted
        assert "--qos" not in submitted
        assert "--account" not in submitted
        assert submitted.endswith("run_multi_families.sbatch some.yaml out --set data.limit=3")
        assert (tmp_path / "logs").is_dir()
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.log", "bad.log"}
        assert not any(call.startswith("ray") for call in calls(folder))

    def test_the_jobs_environment_is_set_up_first(self, tmp_path: Path) -> None:
        folder = tmp_path / "bin"
        python = stub(folder, "python", PYTHON)
        stub(folder, "sbatch", self.SBATCH)
        setup = tmp_path / "setup.sh"
        setup.write_text(f"echo $NOT_SET; PYTHON={python}\n")
        path = f"{folder}:{os.environ['PATH']}"
        done = run(BATCH, "some.yaml", "out", cwd=tmp_path, PATH=path, SETUP=str(setup))
        assert "1 of 2 models done" in done.stdout, done.stderr

    def test_several_nodes_share_one_ray(self, tmp_path: Path) -> None:
        folder = tmp_path / "bin"
        python = stub(folder, "python", PYTHON + '\necho "joins $RAY_ADDRESS"')
        stub(folder, "sbatch", self.SBATCH)
        stub(folder, "scontrol", "printf 'n1\\nn2\\n'")
        stub(folder, "srun", 'echo "srun $RAY_AUTH_MODE"; exec sleep 60')
        stub(folder, "ray", "")
        path = f"{folder}:{os.environ['PATH']}"
        done = run(BATCH, "some.yaml", "out", cwd=tmp_path, PATH=path, PYTHON=str(python), N="2")
        assert done.returncode == 2, done.stderr
        assert "joins n1:24711" in done.stdout
        made = calls(folder)
        assert "scontrol show hostnames n\\[1-2\\]" in made
        head, worker = sorted((c for c in made if c.startswith("srun")), key=lambda c: "n2" in c)
        assert f"--nodelist=n1 {folder}/ray start --head --block" in head
        assert "--node-ip-address=n1 --port=24711 --num-cpus=6" in head
        assert f"--nodelist=n2 {folder}/ray start --block --address=n1:24711" in worker
        assert "ray status --address=n1:24711" in made
        assert "ray get-auth-token --generate" in made
        assert done.stdout.count("srun token") == 2
