"""The run folder: opening or creating it, run.json, what is left to do."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.commits import Commit, read_commits
from engine.context import Unit
from engine.errors import RunFolderError
from engine.plan import Plan, run_record
from engine.plan_file import with_units_of, write_plan
from engine.schema import SCHEMA_VERSION

VERSIONED = ("rayxai", "ray", "torch", "transformers", "numpy", "pyarrow", "polars", "tokenizers")


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._json = path / "run.json"

    @property
    def record(self) -> dict[str, Any]:
        """run.json, empty if there is none."""
        if not self._json.exists():
            return {}
        try:
            record: dict[str, Any] = json.loads(self._json.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{self._json}: damaged ({error}); choose another --out") from None
        return record

    def update(self, **fields: Any) -> None:
        """Set fields of run.json; the file is replaced as a whole."""
        record = {**self.record, **fields}
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self._json.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(
            json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
        )
        temporary.replace(self._json)

    def check(self, plan: Plan) -> None:
        """Raise RunFolderError if the folder holds a run of another configuration."""
        record = self.record
        if not record:
            if self.path.exists() and not self._is_free():
                raise RunFolderError(
                    f"{self.path}: not empty and no run folder; choose another --out"
                )
            return
        if record.get("schema_version") != SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.path}: written as format {record.get('schema_version')}, this is "
                f"{SCHEMA_VERSION}; choose another --out"
            )
        old = record["evaluation_fingerprints"]
        swapped = [
            key
            for key, pair in plan.pairs.items()
            if old.get(key, pair.evaluation_fingerprint) != pair.evaluation_fingerprint
            and not pair.is_untrained
        ]
        if record["run_fingerprint"] != plan.fingerprint or swapped:
            changed = _changed(record["config"], run_record(plan)["config"])
            what = ", ".join(changed or [f"weights of {key}" for key in swapped] or ["the data"])
            raise RunFolderError(
                f"{self.path}: holds a run of another configuration ({what} differ); choose "
                "another folder with --out, or remove this one"
            )

    def _is_free(self) -> bool:
        """Return whether nothing is lost by writing here: empty, or a start that was cut off."""
        if not self.path.is_dir():
            return False
        names = {path.name for path in self.path.iterdir()}
        own = all(n in ("plan.parquet", "commits") or n.endswith(".tmp") for n in names)
        return own and not read_commits(self.path)

    def as_cut(self, plan: Plan) -> Plan:
        """Return the plan with the units as the run first cut them."""
        units = self.path / "plan.parquet"
        return with_units_of(plan, units) if self.record else plan

    def open(self, plan: Plan) -> Plan:
        """Create or continue the run; return the plan with the units as they were first cut.

        Pairs whose adapters are still to be trained are left out: they join when they are called
        for again, as a model does that is found later.

        Raises:
            RunFolderError: The folder can't be made, or holds something else.
        """
        self.check(plan)
        plan = plan.of_what_is_there()
        units = self.path / "plan.parquet"
        if not self.record:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunFolderError(
                    f"{self.path}: can't be made ({error.strerror}); choose another --out"
                ) from None
            write_plan(plan, units)
            self.update(
                **run_record(plan),
                started=now(),
                status="running",
                versions={name: _version(name) for name in VERSIONED},
                python=platform.python_version(),
                git_commit=_git_commit(),
                hardware=hardware(),
            )
        plan = self.as_cut(plan)
        if set(plan.pairs) - set(self.record["evaluation_fingerprints"]):
            write_plan(plan, units)
            self.update(**run_record(plan))
        return plan

    def left(self, plan: Plan) -> list[Unit]:
        """Return the units without a commit, then those that were given up."""
        commits = read_commits(self.path)
        fresh = [u for u in plan.units if u.id not in commits]
        # Last, or what killed its hosts before would do so again before the others had their turn.
        return fresh + [u for u in plan.units if u.id in commits and commits[u.id].failed]

    def commits(self) -> dict[str, Commit]:
        """Return the commits by unit."""
        return read_commits(self.path)


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def hardware() -> dict[str, Any]:
    """Return what this machine is."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _changed(old: Any, new: Any, prefix: str = "") -> Sequence[str]:
    """Return the keys that differ between two configurations."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        skip = {"cluster", "out", "store"} if not prefix or prefix == "run." else set()
        return [
            name
            for key in keys
            if key not in skip
            for name in _changed(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            name
            for i, (a, b) in enumerate(zip(old, new, strict=True))
            for name in _changed(a, b, f"{prefix}{i}.")
        ]
    return [] if old == new else [prefix.rstrip(".")]
