"""Which of Ray's exceptions mean what: the one table of failure modes."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ray import exceptions as ray_errors

from engine.errors import RayxaiError


class FaultKind(Enum):
    """What to do about a failure."""

    LOST = "lost"  # a process or node died: run it again elsewhere
    UNIT = "unit"  # this work fails wherever it runs: record it and go on
    MODEL = "model"  # the model can't be loaded: give its units up
    ABORT = "abort"  # nothing will work: stop


class Fault(NamedTuple):
    """A classified failure; the message is for the user."""

    kind: FaultKind
    message: str


_LOST = (
    ray_errors.ActorDiedError,
    ray_errors.ActorUnavailableError,
    ray_errors.NodeDiedError,
    ray_errors.ObjectLostError,
    ray_errors.OwnerDiedError,
    ray_errors.WorkerCrashedError,
    ray_errors.LocalRayletDiedError,
    ray_errors.OutOfMemoryError,
)
_ABORT = (ray_errors.RuntimeEnvSetupError, ray_errors.AuthenticationError)


def classify(error: BaseException) -> Fault:
    """Return what an exception out of `ray.get` means."""
    if isinstance(error, ray_errors.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, _LOST):
            return Fault(FaultKind.LOST, _line(cause))
        message = (
            str(cause) if isinstance(cause, RayxaiError) else f"{_name(cause)}: {_line(cause)}"
        )
        return Fault(FaultKind.UNIT, message)
    if isinstance(error, ray_errors.ActorDiedError) and getattr(error, "actor_init_failed", False):
        return Fault(FaultKind.MODEL, _line(error))
    if isinstance(error, _LOST):
        return Fault(FaultKind.LOST, _line(error))
    if isinstance(error, _ABORT):
        return Fault(FaultKind.ABORT, _line(error))
    return Fault(FaultKind.UNIT, f"{_name(error)}: {_line(error)}")


def _name(error: BaseException) -> str:
    return type(error).__name__


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else _name(error)
