"""What a lack of memory looks like, and what can be done about it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from actors.backend import BackendOutOfMemoryError

T = TypeVar("T")

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that memory ran out.

    A device raises torch.OutOfMemoryError, which is a RuntimeError, a CPU a plain RuntimeError.
    """
    return any(words in str(error).lower() for words in _WORDS)


def free_memory() -> None:
    """Give a device's cached memory back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitting(score: Callable[[], T]) -> T:
    """Return what a function returns.

    Raises:
        BackendOutOfMemoryError: It ran out of memory, which is free again.
    """
    try:
        return score()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).splitlines()[0]
    # outside the handler: its traceback would hold the tensors
    free_memory()
    raise BackendOutOfMemoryError(message)
