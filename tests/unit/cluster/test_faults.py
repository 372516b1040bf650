from __future__ import annotations

import pytest
from ray import exceptions as ray_errors

from cluster.faults import FaultKind, classify
from engine.errors import ConfigError, ExampleError, ModelError


def task_error(cause: Exception) -> ray_errors.RayTaskError:
    trace = f"ray::step_task()\n  File x\n{type(cause).__name__}: {cause}"
    return ray_errors.RayTaskError("step_task", trace, cause)


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.ActorDiedError(),
        ray_errors.ActorUnavailableError("gone", b"0" * 16),
        ray_errors.NodeDiedError("node"),
        ray_errors.ObjectLostError("0" * 56, "owner", "site"),
        ray_errors.OwnerDiedError("0" * 56, "owner", "site"),
        ray_errors.WorkerCrashedError(),
        ray_errors.LocalRayletDiedError(),
        ray_errors.OutOfMemoryError("killed for memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_dies_with_a_process_runs_again(error: Exception) -> None:
    fault = classify(error)
    assert fault.kind is FaultKind.LOST
    assert fault.message
    assert "\n" not in fault.message
    # A task that read a lost object fails with it as the cause.
    assert classify(task_error(error)).kind is FaultKind.LOST


@pytest.mark.parametrize("dual", [False, True], ids=["plain", "instance of its cause"])
class TestTaskErrors:
    @staticmethod
    def classified(cause: Exception, dual: bool) -> tuple[FaultKind, str]:
        error: BaseException = task_error(cause)
        if dual:
            error = task_error(cause).as_instanceof_cause()
            assert isinstance(error, type(cause))
        kind, message = classify(error)
        return kind, message

    def test_a_bug_is_named(self, dual: bool) -> None:
        kind, message = self.classified(ZeroDivisionError("division by zero"), dual)
        assert (kind, message) == (FaultKind.UNIT, "ZeroDivisionError: division by zero")

    @pytest.mark.parametrize("error", [ModelError, ConfigError])
    def test_a_message_for_the_user_stands_alone(self, error: type[Exception], dual: bool) -> None:
        kind, message = self.classified(error("put it into\nthe folder"), dual)
        assert (kind, message) == (FaultKind.UNIT, "put it into\nthe folder")

    def test_an_error_without_text(self, dual: bool) -> None:
        assert self.classified(KeyError(), dual) == (FaultKind.UNIT, "KeyError: KeyError")


def test_an_error_of_two_arguments_survives() -> None:
    assert classify(task_error(ExampleError("too_long", "9 tokens"))).message == "9 tokens"


def test_an_actor_that_can_not_start_has_a_bad_model() -> None:
    error = ray_errors.ActorDiedError(task_error(ModelError("no such folder")))
    fault = classify(error)
    assert fault.kind is FaultKind.MODEL
    assert fault.message == "ModelError: no such folder"


@pytest.mark.parametrize(
    "error",
    [
        ray_errors.RuntimeEnvSetupError("pip failed"),
        ray_errors.AuthenticationError("wrong token"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_fails_everywhere_aborts(error: Exception) -> None:
    fault = classify(error)
    assert fault.kind is FaultKind.ABORT
    assert fault.message


def test_anything_else_fails_its_unit() -> None:
    assert classify(OSError("disk full")) == (FaultKind.UNIT, "OSError: disk full")
