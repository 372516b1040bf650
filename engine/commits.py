"""What is done: commit logs that alone make data files visible, and the lease on writing them.

A folder that is written by this scheme holds data files and `commits/<epoch>-<driver>.log`. A row
group exists for readers only if a log names it, so torn and half-written files need no clean-up and
object stores without rename will do. One line of a log commits one unit; a line without its newline
is a torn one and doesn't count.

What exists after a crash, file by file: docs/run-folder.md.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from engine.errors import RunFolderError

STALE_SECONDS = 120.0
"""A driver on another machine counts as dead if its log was not touched for so long."""
BEAT_SECONDS = 10.0


class CommittedPart(NamedTuple):
    """One row group that a unit wrote."""

    table: str
    file: str  # relative to the folder
    row_group: int
    unit: str


class Commit(NamedTuple):
    """One unit's line in a log."""

    unit: str
    attempt: int
    parts: tuple[CommittedPart, ...]
    digest: str
    failed: bool = False


def read_commits(folder: str | Path) -> dict[str, Commit]:
    """Return the commit of every unit; of several, the last of the highest epoch."""
    commits: dict[str, Commit] = {}
    logs = Path(folder).glob("commits/*.log")
    for log in sorted(logs, key=lambda path: path.name):
        for line in log.read_bytes().split(b"\n")[:-1]:
            commit = _parse(line)
            if commit is not None:
                commits[commit.unit] = commit
    return commits


def committed(folder: str | Path) -> list[CommittedPart]:
    """Return every visible row group of a folder, in the order of units' first commits."""
    return [part for commit in read_commits(folder).values() for part in commit.parts]


def has_live_driver(folder: str | Path) -> bool:
    """Return whether a driver that lives holds the folder's lease."""
    commits = Path(folder) / "commits"
    epoch = _latest_epoch(commits)
    return bool(epoch) and _live_holder(commits, epoch) is not None


def _parse(line: bytes) -> Commit | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None  # a torn line that a later writer's newline closed
    if "unit" not in record:
        return None
    parts = tuple(CommittedPart(t, f, g, record["unit"]) for t, f, g in record["parts"])
    return Commit(
        record["unit"], record["attempt"], parts, record["digest"], record.get("failed", False)
    )


class CommitLog:
    """The one writer's end of a folder's log.

    Args:
        folder: The run or store folder.
        exclusive: Take the epoch lease: a run has one driver at a time. A store has many writers,
            whose rows are the same by their content.

    Raises:
        RunFolderError: Another driver that is alive holds the lease.
    """

    def __init__(self, folder: str | Path, *, exclusive: bool = True) -> None:
        self.folder = Path(folder)
        self.driver = uuid.uuid4().hex[:12]
        self._commits = self.folder / "commits"
        self._commits.mkdir(parents=True, exist_ok=True)
        self.epoch = _acquire(self._commits, self.driver) if exclusive else 0
        self._exclusive = exclusive
        name = f"{self.epoch:06d}-{self.driver}.log"
        self._path = self._commits / name
        self._file: IO[bytes] = open(self._path, "ab")  # noqa: SIM115 - lives with self
        self._closed = threading.Event()
        if exclusive:
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def append(self, commits: Sequence[Commit]) -> None:
        """Make units visible; durable when it returns.

        Raises:
            RunFolderError: Another driver took over; nothing was written.
        """
        if not commits:
            return
        self.check()
        lines = [
            {
                "unit": c.unit,
                "attempt": c.attempt,
                "parts": [[p.table, p.file, p.row_group] for p in c.parts],
                "digest": c.digest,
                **({"failed": True} if c.failed else {}),
            }
            for c in commits
        ]
        self._file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._sync()

    def check(self) -> None:
        """Raise RunFolderError if a later driver has taken the lease."""
        if self._exclusive and (latest := _latest_epoch(self._commits)) > self.epoch:
            raise RunFolderError(
                f"{self.folder}: another run took over as epoch {latest}; this one stops"
            )

    def is_held(self) -> bool:
        """Return whether no later driver has taken the lease."""
        return not self._exclusive or _latest_epoch(self._commits) == self.epoch

    def _beat(self) -> None:
        """Touch the log now and then, so that drivers elsewhere see this one alive."""
        while not self._closed.wait(BEAT_SECONDS):
            os.utime(self._path)

    def close(self) -> None:
        """Give the lease back."""
        if self._file.closed:
            return
        self._closed.set()
        self._file.write(json.dumps({"released": time.time()}).encode() + b"\n")
        self._sync()
        self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _latest_epoch(commits: Path) -> int:
    return max((int(p.name.split(".")[0]) for p in commits.glob("*.lease")), default=0)


def _acquire(commits: Path, driver: str) -> int:
    """Create the next epoch's lease file, which only one driver can."""
    while True:
        epoch = _latest_epoch(commits)
        if epoch and (holder := _live_holder(commits, epoch)) is not None:
            raise RunFolderError(
                f"{commits.parent}: in use by process {holder['pid']} on {holder['host']}; wait "
                "for it, stop it, or choose another folder with --out"
            )
        lease = {
            "driver": driver,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
        }
        try:
            with open(commits / f"{epoch + 1:06d}.lease", "x", encoding="utf-8") as file:
                json.dump(lease, file)
        except FileExistsError:
            continue  # another driver was faster: judge anew whether it lives
        return epoch + 1


def _live_holder(commits: Path, epoch: int) -> dict[str, Any] | None:
    lease = commits / f"{epoch:06d}.lease"
    try:
        holder: dict[str, Any] = json.loads(lease.read_text(encoding="utf-8"))
    except ValueError:
        holder = {"driver": "?", "host": "?", "pid": 0}  # cut off between create and write
    log = commits / f"{epoch:06d}-{holder['driver']}.log"
    if log.exists() and b'"released"' in log.read_bytes()[-200:].split(b"\n")[-2:][0]:
        return None
    if holder["host"] == socket.gethostname():
        return holder if _is_alive(holder["pid"], holder.get("started")) else None
    touched = max(p.stat().st_mtime for p in (lease, log) if p.exists())
    return holder if time.time() - touched < STALE_SECONDS else None


def _is_alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed child that nobody has waited for still answers to kill; and in a container that was
    # started again, the number may be another process's, even this one's.
    fields = _stat(pid)
    return fields is None or (fields[0] != "Z" and started in (None, fields[19]))


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; None where that can't be told."""
    fields = _stat(pid)
    return None if fields is None else fields[19]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat (proc(5)) from the third, `state`, on."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat.rsplit(")", 1)[-1].split()
