"""How a program ends: exit codes, and what a user is told of an error."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from engine.errors import RayxaiError

DONE = 0
SOME_FAILED = 2
"""Some examples failed; each is a row of `failures/`."""
ABORTED = 3


def guarded(action: Callable[[], int]) -> int:
    """Run an action; print a user's error without a traceback and return the exit code."""
    try:
        return action()
    except RayxaiError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        Console(stderr=True, soft_wrap=True).print(
            f"error: {place}{error.strerror or error}", style="red", markup=False
        )
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command continues where this one ended")
    return ABORTED
