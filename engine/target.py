"""What is explained of the labels' log-probabilities: log-odds, probability, log-probability."""

from __future__ import annotations

from typing import Literal

import numpy as np

from engine.types import FloatCL, Target

LOG_FLOOR = -80.0
"""Log-probabilities are clipped so far below the likeliest label's, so that a probability of 0 or 1
keeps finite log-odds; the smallest that float32 softmax can tell from 0 is about −103. The floor is
relative because a label of many tokens is improbable by its length alone."""

_NEVER = -1e30
"""Stands for the logarithm of 0."""

Normaliser = Literal["labels", "vocab"]


def normalise(log_probs_CL: FloatCL) -> FloatCL:
    """Return log-probabilities normalised over the label set [C, L]."""
    top = log_probs_CL.max(axis=1, keepdims=True)
    return log_probs_CL - top - np.log(np.exp(log_probs_CL - top).sum(axis=1, keepdims=True))


def transform(log_probs_CL: FloatCL, target: Target, normaliser: Normaliser = "labels") -> FloatCL:
    """Return the explained value of every label [C, L].

    Args:
        log_probs_CL: Log-probabilities of the label strings under the full vocabulary.
        target: `log_odds`: log p_j − log Σ_{k≠j} p_k over the label set; `probability`: p_j;
            `logprob`: log p_j.
        normaliser: What `probability` and `logprob` sum to one over; log-odds over the label set
            don't depend on it.

    Raises:
        ValueError: `log_odds` of a single label, which has no rest.
    """
    finite = np.maximum(log_probs_CL, _NEVER)
    clipped = np.maximum(finite, finite.max(axis=1, keepdims=True) + LOG_FLOOR)
    if target == "log_odds":
        n_labels = clipped.shape[1]
        if n_labels < 2:
            raise ValueError("log_odds needs at least two labels: use target: logprob")
        if n_labels == 2:
            return clipped - clipped[:, ::-1]
        rest = np.empty_like(clipped)
        for label in range(n_labels):
            others = np.delete(clipped, label, axis=1)
            top = others.max(axis=1)
            rest[:, label] = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
        return clipped - rest
    scaled = normalise(clipped) if normaliser == "labels" else clipped
    return np.exp(scaled) if target == "probability" else scaled
