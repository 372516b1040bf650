"""The dense rate: the most tokens a second that a model's layers do, the bound on packing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DENSE = (
    (16, 32),
    (8, 128),
    (32, 64),
    (16, 128),
    (8, 256),
    (64, 64),
    (32, 128),
    (16, 256),
)
"""Shapes (rows, tokens): 512 to 4,096 tokens a batch, 32 to 256 a row."""

FASTEST = 2
"""Shapes that are measured again after the first time."""

REPEATS = 2
"""Of each shape; the better one counts, since the first of a shape also pays for its plans."""


class DenseRate:
    """Measures the best tokens/s of a model's backbone over `DENSE`, without its output matrix.

    The first measurement goes through all shapes; those after it, which follow the machine's drift,
    through the ones that were fastest then.

    Args:
        model: A causal language model of transformers.

    Attributes:
        shapes: Of the next measurement.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.shapes: tuple[tuple[int, int], ...] = DENSE

    def __call__(self) -> float:
        """Return the tokens a second of the fastest shape."""
        rates = {shape: max(self._rate(*shape) for _ in range(REPEATS)) for shape in self.shapes}
        self.shapes = tuple(sorted(rates, key=rates.__getitem__, reverse=True)[:FASTEST])
        return max(rates.values())

    def _rate(self, rows: int, tokens: int) -> float:
        import torch

        device = self._model.device
        with torch.inference_mode():
            ids = (torch.arange(rows * tokens) % 997 + 3).view(rows, tokens).to(device)
            mask = torch.ones_like(ids)
            synchronise(device)
            started = time.perf_counter()
            self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            synchronise(device)
            return rows * tokens / (time.perf_counter() - started)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
