"""Answers that are not a number, as of fp16 where it overflows: no results, and never stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CODE = "not_a_number"
"""Of the failures that they give."""

MESSAGE = (
    "the model's answer is not a number: use bf16 or fp32, since fp16 overflows; if it is none "
    "there either, the weights are broken"
)


def no_numbers(
    log_probs: npt.NDArray[np.floating[Any]], log_z: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.bool_]:
    """Return which of S answers are not a number [S].

    A probability of 0 is one. A sum of exponentiated logits that is infinite is none, even if the
    labels' tokens are not those that overflowed.

    Args:
        log_probs: [S, L].
        log_z: [S]; NaN where it isn't known.
    """
    return np.isnan(log_probs).any(axis=1) | np.isposinf(log_z)


def failure_code(message: str, otherwise: str) -> str:
    """Return the code of a failure by what a host said."""
    return CODE if message == MESSAGE else otherwise
