"""What one consumer's error may cost: its own rows of one example, never those of the others."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ExampleError

_LOG = logging.getLogger(__name__)

_SEEN: set[tuple[str, str, str]] = set()
"""Bugs whose traceback is in this process' log: every step replays them, on every example."""


class Guard:
    """Turns an error in its block into a failure row.

    An `ExampleError` always; any other exception only where an explainer is at work, as
    `internal_error`: a bug, which is logged with its traceback. Lack of memory is the process' and
    goes through, as whatever else fails without an explainer.

    Args:
        failures: Gets the row.
        about: Columns of the row that say of what it is.
        stage: See `engine.schema.FAILURES`.
        explainer: Its name in tables, or None where it is no explainer's block.
    """

    def __init__(
        self,
        failures: list[dict[str, Any]],
        about: Mapping[str, Any],
        stage: str,
        explainer: str | None,
    ) -> None:
        self._failures = failures
        self._about = about
        self._stage = stage
        self._explainer = explainer

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ExampleError):
            self._note(error.code, str(error))
            return True
        bug = isinstance(error, Exception) and not isinstance(error, MemoryError)
        if error is None or not bug or self._explainer is None:
            return False
        self._note("internal_error", _described(error, self._explainer))
        return True

    def _note(self, code: str, message: str) -> None:
        row = {"explainer": self._explainer, "stage": self._stage, "code": code, "message": message}
        self._failures.append({**self._about, **row})


def _described(error: BaseException, explainer: str) -> str:
    """Return type, place and message of a bug, logged where it is seen for the first time."""
    kind, last = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    if (explainer, kind, place) not in _SEEN:
        _SEEN.add((explainer, kind, place))
        _LOG.error("%s failed by a bug, which fails its rows alone", explainer, exc_info=error)
    return f"{kind} at {place}: {error}; this is a bug, the log of the workers has its traceback"
