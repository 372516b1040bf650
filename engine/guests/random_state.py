"""The generators that all code of a process shares, as a guest sees them.

lime takes a seed of its own; shap and captum draw from the global generators. These are set for a
guest's turn and given back to the process after it.
"""

from __future__ import annotations

import random
import sys
from typing import Any, NamedTuple

import numpy as np


class GlobalRandom(NamedTuple):
    """States of the global generators of `random`, numpy and, where it is loaded, torch."""

    python: Any
    numpy: Any
    torch: Any

    @classmethod
    def capture(cls) -> GlobalRandom:
        """Return the present states."""
        torch: Any = sys.modules.get("torch")
        state = None if torch is None else torch.get_rng_state()
        return cls(random.getstate(), np.random.get_state(), state)

    def restore(self) -> None:
        """Put the generators back into these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.torch is not None:
            sys.modules["torch"].set_rng_state(self.torch)


def seed_all(seed: int) -> None:
    """Seed the global generators; the low 32 bits count."""
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
