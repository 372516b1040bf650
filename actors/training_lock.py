"""One process at a time trains in a folder; who it is stands in the folder's lock."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ModelError

LOCK = "lock"


class HeldError(ModelError):
    """Another process trains in the folder.

    Attributes:
        holder: The process and its machine, for people.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder}: {holder} trains this adapter")
        self.holder = holder


@contextlib.contextmanager
def alone(folder: Path, wait: bool) -> Iterator[None]:
    """Hold the folder's lock, which the system takes back from a process that is killed.

    Args:
        folder: Of a training; is there.
        wait: Wait for another that holds it.

    Raises:
        HeldError: Another holds it, and it isn't waited for.
    """
    import fcntl

    with open(folder / LOCK, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            raise HeldError(folder, lock.read().strip() or "another process") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
