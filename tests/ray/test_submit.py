"""The same program by `ray job submit`, on a head with two logical GPUs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
Make = Callable[..., dict[str, Any]]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head node with two logical GPUs, blocking in its own process group; ended by its pid."""
    port, dashboard, client, agent = free_ports(4)
    # A short path: the sockets of Ray lie below it.
    folder = Path("/tmp") / f"rayxai-{os.getpid()}"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    process = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--num-gpus=2",
            "--include-dashboard=true", f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}", "--dashboard-host=127.0.0.1",
            # by default a fixed port, which the Ray of a driver that was killed may still hold
            f"--dashboard-agent-listen-port={agent}",
            "--node-ip-address=127.0.0.1", "--disable-usage-stats", f"--temp-dir={folder}",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    environment |= {"RAY_ADDRESS": address, "RAY_API_SERVER_ADDRESS": address}
    deadline = time.monotonic() + 120
    while subprocess.run(
        [RAY, "job", "list"], env=environment, capture_output=True, check=False
    ).returncode:
        assert process.poll() is None, "the head did not start"
        assert time.monotonic() < deadline, "the head does not answer"
        time.sleep(1)
    yield environment
    # `ray start --block` ends the others itself, unless they are gone before it looks
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):  # what is left of the group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def submit(environment: dict[str, str], config: Path) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", "submit", "--working-dir", ".", "--", sys.executable]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            [*command, "-m", "jobs.sweep", str(config)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        # The head answers a little before its agent takes jobs.
        if "No available agent" not in done.stderr + done.stdout:
            return done
        assert time.monotonic() < deadline, "the head takes no jobs"
        time.sleep(1)


def test_a_submitted_job_runs_a_host_on_each_gpu(
    head: dict[str, str], sweep_config: Make, tmp_path: Path
) -> None:
    raw = sweep_config()
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    done = submit(head, config)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["code"] == 0
    host = record["hosts"]["linear/fp32"]
    assert (host["hosts"], host["gpus_per_host"]) == (2, 1.0)
    assert host["gpu_ids"] == [["0"], ["1"]] or host["gpu_ids"] == [["1"], ["0"]]

    # The same sweep by `rayxai run` on a Ray of its own gives the same tables.
    raw = sweep_config(run__out=str(tmp_path / "local"), run__store=str(tmp_path / "local-store"))
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    rayxai = str(Path(sys.executable).with_name("rayxai"))
    local = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ran = subprocess.run(
        [rayxai, "run", str(config)],
        cwd=ROOT,
        env=local,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for file in (tmp_path / "local" / "tables").iterdir():
        if file.stem not in ("cost", "families"):  # they have seconds
            assert file.read_bytes() == (tmp_path / "run" / "tables" / file.name).read_bytes()


def test_a_failing_job_is_told_from_a_good_one(
    head: dict[str, str], sweep_config: Make, tmp_path: Path
) -> None:
    """Ray's client maps every failure to 1; the run's own code stands in run.json."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "good", "label": 1}\n{"text": "bad", "label": 9}\n', encoding="utf-8")
    raw = sweep_config(data={"path": str(data)}, explainers=["occlusion"])
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    done = submit(head, config)
    assert done.returncode == 1
    assert "failed" in (done.stdout + done.stderr).lower()
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["code"] == 2, done.stdout + done.stderr
