from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commits import (
    STALE_SECONDS,
    Commit,
    CommitLog,
    CommittedPart,
    committed,
    read_commits,
)
from engine.errors import RunFolderError

ROOT = Path(__file__).resolve().parents[3]


def commit(unit: str, attempt: int = 1, digest: str = "d", failed: bool = False) -> Commit:
    part = CommittedPart("metrics", f"metrics/{unit}-{attempt}.parquet", 2, unit)
    return Commit(unit, attempt, (part,), digest, failed)


def log_of(folder: Path) -> Path:
    [log] = (folder / "commits").glob("*.log")
    return log


class Driver:
    """Another process that holds a folder's lease until it is told to write or to die."""

    CODE = """
import sys
from engine.commits import Commit, CommitLog
from engine.errors import RunFolderError
log = CommitLog(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        log.append([Commit(line.strip(), 1, (), "late")])
        print("written", flush=True)
    except RunFolderError as error:
        print(error, flush=True)
"""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self, unit: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(unit + "\n")
        self.process.stdin.flush()
        return self.line()

    def kill(self, wait: bool = True) -> None:
        self.process.send_signal(signal.SIGKILL)
        if wait:
            self.process.wait()
        else:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    found = Driver(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()
    for pipe in (found.process.stdin, found.process.stdout):
        assert pipe is not None
        pipe.close()


class TestReading:
    def test_nothing_is_committed_where_nothing_is(self, tmp_path: Path) -> None:
        assert read_commits(tmp_path / "none") == {}
        assert committed(tmp_path) == []

    def test_reads_back_what_was_appended(self, tmp_path: Path) -> None:
        made = [commit("a"), commit("b", 2, failed=True), Commit("c", 1, (), "e")]
        log = CommitLog(tmp_path)
        log.append(made[:2])
        assert list(read_commits(tmp_path).values()) == made[:2]  # before it is closed
        log.append(made[2:])
        log.close()
        assert list(read_commits(tmp_path).values()) == made
        assert committed(tmp_path) == [*made[0].parts, *made[1].parts]

    @pytest.mark.parametrize("cut", [1, 2, 20])
    def test_a_torn_last_line_does_not_count(self, tmp_path: Path, cut: int) -> None:
        log = CommitLog(tmp_path)
        log.append([commit("a"), commit("b")])
        file = log_of(tmp_path)
        file.write_bytes(file.read_bytes()[:-cut])
        assert list(read_commits(tmp_path)) == ["a"]

    def test_a_line_torn_in_the_middle_does_not_hide_the_next(self, tmp_path: Path) -> None:
        CommitLog(tmp_path).append([commit("a")])
        file = log_of(tmp_path)
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + b"\n\x00\x00\n" + whole)
        assert list(read_commits(tmp_path)) == ["a"]

    def test_later_line_and_later_epoch_win(self, tmp_path: Path) -> None:
        first = CommitLog(tmp_path)
        first.append([commit("a", 1), commit("b", 1), commit("a", 2)])
        first.close()
        assert read_commits(tmp_path)["a"].attempt == 2
        second = CommitLog(tmp_path)
        second.append([commit("a", 3)])
        second.close()
        # Whatever was touched last: the epoch decides, not the clock.
        os.utime(next(iter((tmp_path / "commits").glob("000001-*.log"))))
        assert {u: c.attempt for u, c in read_commits(tmp_path).items()} == {"a": 3, "b": 1}
        assert [p.file for p in committed(tmp_path)] == [
            "metrics/a-3.parquet",
            "metrics/b-1.parquet",
        ]


class TestLease:
    def test_refused_while_the_holder_lives(self, tmp_path: Path, driver: Driver) -> None:
        with pytest.raises(RunFolderError, match=f"in use by process {driver.process.pid}"):
            CommitLog(tmp_path)
        assert driver.write("a") == "written"
        assert list(read_commits(tmp_path)) == ["a"]

    @pytest.mark.parametrize("wait", [True, False], ids=["reaped", "zombie"])
    def test_taken_over_after_a_kill(self, tmp_path: Path, driver: Driver, wait: bool) -> None:
        assert driver.write("a") == "written"
        driver.kill(wait)
        log = CommitLog(tmp_path)
        assert log.epoch == 2
        log.append([commit("b")])
        log.close()
        assert list(read_commits(tmp_path)) == ["a", "b"]

    def test_a_superseded_driver_writes_nothing(self, tmp_path: Path, driver: Driver) -> None:
        """As where its machine was cut off for so long that it counted as dead."""
        later = {"driver": "later", "host": "elsewhere", "pid": 1}
        (tmp_path / "commits" / "000002.lease").write_text(json.dumps(later))
        assert "took over as epoch 2" in driver.write("a")
        assert read_commits(tmp_path) == {}

    def test_a_released_lease_can_be_taken_at_once(self, tmp_path: Path) -> None:
        for epoch in (1, 2, 3):
            log = CommitLog(tmp_path)
            assert log.epoch == epoch
            log.append([commit("a")])
            log.close()
            log.close()

    def test_this_process_holds_it_but_once(self, tmp_path: Path) -> None:
        log = CommitLog(tmp_path)
        with pytest.raises(RunFolderError, match=str(os.getpid())):
            CommitLog(tmp_path)
        log.close()
        CommitLog(tmp_path).close()

    def test_a_number_that_another_process_got_holds_nothing(self, tmp_path: Path) -> None:
        """In a container that was started again the driver has its predecessor's number."""
        CommitLog(tmp_path)
        lease = tmp_path / "commits" / "000001.lease"
        holder = json.loads(lease.read_text())
        lease.write_text(json.dumps({**holder, "started": "1"}))
        assert CommitLog(tmp_path).epoch == 2

    @pytest.mark.parametrize(
        ("age", "free"), [(STALE_SECONDS / 2, False), (STALE_SECONDS * 2, True)]
    )
    def test_a_driver_elsewhere_lives_as_long_as_it_beats(
        self, tmp_path: Path, age: float, free: bool
    ) -> None:
        log = CommitLog(tmp_path)
        lease = tmp_path / "commits" / "000001.lease"
        holder = json.loads(lease.read_text())
        lease.write_text(json.dumps({**holder, "host": "not-" + socket.gethostname()}))
        then = lease.stat().st_mtime - age
        os.utime(lease, (then, then))
        os.utime(log_of(tmp_path), (then, then))
        if free:
            assert CommitLog(tmp_path).epoch == 2
            with pytest.raises(RunFolderError):
                log.append([commit("a")])
        else:
            with pytest.raises(RunFolderError, match="not-"):
                CommitLog(tmp_path)

    def test_the_log_is_touched_while_it_is_held(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("engine.commits.BEAT_SECONDS", 0.001)
        log = CommitLog(tmp_path)
        os.utime(log_of(tmp_path), (0, 0))
        deadline = time.monotonic() + 60
        while log_of(tmp_path).stat().st_mtime < 1e9:
            assert time.monotonic() < deadline, "no heartbeat"
        log.close()

    def test_a_lease_cut_off_while_written_is_waited_for(self, tmp_path: Path) -> None:
        (tmp_path / "commits").mkdir()
        lease = tmp_path / "commits" / "000001.lease"
        lease.write_text('{"driver": "ab')
        with pytest.raises(RunFolderError, match="in use"):
            CommitLog(tmp_path)
        os.utime(lease, (0, 0))
        assert CommitLog(tmp_path).epoch == 2


def test_a_store_has_several_writers(tmp_path: Path) -> None:
    one, other = CommitLog(tmp_path, exclusive=False), CommitLog(tmp_path, exclusive=False)
    one.append([commit("a")])
    other.append([commit("b")])
    one.append([commit("c")])
    for log in (one, other):
        log.check()
        log.close()
    assert set(read_commits(tmp_path)) == {"a", "b", "c"}
    assert not list((tmp_path / "commits").glob("*.lease"))


def test_nothing_to_append_touches_nothing(tmp_path: Path) -> None:
    log = CommitLog(tmp_path)
    log.append([])
    assert log_of(tmp_path).read_bytes() == b""
