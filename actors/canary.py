"""What a model says to a fixed prompt, compact: two readings tell whether it is the same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Reading = npt.NDArray[np.float32]
"""Log-probabilities of some next tokens at every place of the prompt [T·K]."""

SAME = 1e-6
"""Largest difference of two readings of one model; those of the same batch shape are equal to the
last bit wherever it was tried."""

_TOKENS = 8
_COLUMNS = 64


class Canary:
    """Reads a model at a fixed prompt.

    Eight tokens and 64 columns, both spread over the vocabulary: a pass costs little more than
    reading the weights once, and a change of any layer shows in hundreds of numbers.

    Args:
        model: A causal language model in evaluation mode.
        vocabulary: Number of token ids it takes.
    """

    def __init__(self, model: Any, vocabulary: int) -> None:
        self._model = model
        self._ids = [(7919 * i + 13) % vocabulary for i in range(_TOKENS)]
        self._columns = sorted({(104_729 * i + 7) % vocabulary for i in range(_COLUMNS)})

    def read(self, n_rows: int = 1) -> npt.NDArray[np.float32]:
        """Return the reading of each of so many equal rows of one batch [n_rows, T·K]."""
        import torch

        device = self._model.device
        with torch.inference_mode():
            rows = torch.tensor([self._ids] * n_rows, device=device)
            logits = self._model(input_ids=rows, use_cache=False).logits.float()
            picked = logits.log_softmax(dim=-1)[..., torch.tensor(self._columns, device=device)]
        found: npt.NDArray[np.float32] = picked.reshape(n_rows, -1).cpu().numpy()
        return found


def gap(a: Reading, b: Reading) -> float:
    """Return the largest difference of two readings, infinite where one is no number."""
    apart = np.abs(np.where(a == b, np.float32(0), a - b))
    return float(apart.max()) if not np.isnan(apart).any() else float("inf")
