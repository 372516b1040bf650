"""Counter-based seeds and content digests.

Random numbers depend on what they are for, never on who draws them when.

The key names the example, the explainer and the replicate, never the model: the same coalitions
across models make paired comparisons possible.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

Key = str | int


def derive(*key: Key) -> int:
    """Return a seed of 63 bits for `key`, the same on every machine and in every process.

    Args:
        *key: Strings and integers; their order and types count (`1` and `"1"` differ).
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*key: Key) -> np.random.Generator:
    """Return a fresh Philox generator for `key`."""
    return np.random.Generator(np.random.Philox(derive(*key)))


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
