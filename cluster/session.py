"""Starting or joining Ray, and leaving it as it was found."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray

from engine.errors import RayxaiError


class ClusterError(RayxaiError):
    """Ray can't be reached, or has not the resources that were asked for."""


class Resources(NamedTuple):
    """What the cluster offers."""

    cpus: float
    gpus: float
    nodes: int


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[Resources]:
    """Join the Ray at `address`, or start one on this machine for the length of the block.

    Inside `ray job submit` and where RAY_ADDRESS is set, the running cluster is joined. A Ray that
    this process is connected to already is used and left running.

    Args:
        address: `auto`, `host:port`, or None.
        num_cpus: Logical CPUs of a Ray started here.

    Raises:
        ClusterError: No Ray answers at `address`.
    """
    if ray.is_initialized():
        yield _resources()
        return
    address = _address(address)
    # Tokenizers would start a thread a core in every step and take the hosts' cores from them.
    variables = {"TOKENIZERS_PARALLELISM": "false", **_python_path()}
    runtime_env: dict[str, Any] = {"env_vars": variables}
    with _private_files():
        if address:
            _join(address, runtime_env)
        else:
            # Ray ends idle workers beyond one a CPU after a second, and steps come in bursts: each
            # new worker costs seconds of importing
            os.environ.setdefault("RAY_num_workers_soft_limit", str(WORKERS_KEPT))
            # workers that Ray starts before it is asked have not the environment of this project's:
            # they would never be used, and wake up a hundred times a second each
            os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
            os.environ.setdefault("RAY_enable_worker_prestart", "0")
            ray.init(
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=runtime_env,
            )
    try:
        yield _resources()
    finally:
        ray.shutdown()


def joins_a_cluster(address: str | None) -> bool:
    """Return whether `ray_session(address)` joins a Ray, of whatever machines, and starts none."""
    return ray.is_initialized() or _address(address) is not None


def _address(given: str | None) -> str | None:
    return given or os.environ.get("RAY_ADDRESS") or None


WORKERS_KEPT = 8
"""Idle workers that the Ray of this machine keeps."""


def _join(address: str, runtime_env: dict[str, Any]) -> None:
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=runtime_env,
        )
    except ConnectionError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address!r}: {error}; start one with `ray start --head`, "
            "or leave cluster.address out to start Ray on this machine"
        ) from None


def _python_path() -> dict[str, str]:
    """Return where workers find this project's packages when it isn't installed.

    A submitted job's working directory is on its workers' path already.
    """
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return {}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join([root, *path.split(os.pathsep)] if path else [root])}


@contextmanager
def _private_files() -> Iterator[None]:
    """Keep Ray's access token, which it writes at start, readable by its owner alone."""
    token = Path.home() / ".ray" / "auth_token"
    # A closed folder, not a umask: workers would inherit that, and nobody else read the results.
    token.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        if token.exists() and token.stat().st_uid == os.getuid():
            token.chmod(0o600)


def _resources() -> Resources:
    offered = ray.cluster_resources()
    nodes = sum(1 for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0)
    return Resources(offered.get("CPU", 0.0), offered.get("GPU", 0.0), nodes)


def in_submitted_job() -> bool:
    """Return whether this process is the driver of a `ray job submit`."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


def output_base() -> Path:
    """Return the folder that relative output folders are below.

    A submitted job runs in a copy of its working directory that Ray deletes some time: its outputs
    go to `~/rayxai` instead.
    """
    return Path.home() / "rayxai" if in_submitted_job() else Path.cwd()
