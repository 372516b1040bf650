"""The coalition pool: every coalition of one example that has been valued, each paid for once.

Explainers and metrics ask from the pool and are answered by it; what one of them had valued, the
next one finds. A pool belongs to one (example, features, operator).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine.types import BoolCF, FloatCL


def pack(coalitions: BoolCF) -> npt.NDArray[np.uint8]:
    """Return coalitions [C, F] as bits [C, ceil(F / 8)], most significant bit first."""
    return np.packbits(coalitions, axis=1)


def unpack(bits: npt.NDArray[np.uint8], n_features: int) -> BoolCF:
    """Return the coalitions [C, F] of `bits` [C, ceil(F / 8)]."""
    return np.unpackbits(bits, axis=1, count=n_features).astype(bool)


def keys(coalitions: BoolCF) -> list[bytes]:
    """Return one hashable key a coalition."""
    width = (coalitions.shape[1] + 7) // 8
    data = pack(coalitions).tobytes()
    return [data[i * width : (i + 1) * width] for i in range(len(coalitions))]


class CoalitionPool:
    """Coalitions of one example with their values, in order of arrival, without repeats.

    Args:
        n_features: Number of features F of the example; may be 0.

    Attributes:
        coalitions: The valued coalitions [C, F].
        values: Their values [C, L]; log-probabilities in a sweep, any game's values elsewhere.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self._index: dict[bytes, int] = {}
        self._coalitions: list[BoolCF] = []
        self._values: list[FloatCL] = []

    def __len__(self) -> int:
        return len(self._index)

    @property
    def coalitions(self) -> BoolCF:
        """The valued coalitions [C, F]."""
        if not self._coalitions:
            return np.zeros((0, self.n_features), dtype=bool)
        if len(self._coalitions) > 1:
            self._coalitions = [np.concatenate(self._coalitions)]
        return self._coalitions[0]

    @property
    def values(self) -> FloatCL:
        """The values [C, L] of `coalitions`."""
        if not self._values:
            return np.zeros((0, 0))
        if len(self._values) > 1:
            self._values = [np.concatenate(self._values)]
        return self._values[0]

    def missing(self, coalitions: BoolCF) -> BoolCF:
        """Return the distinct rows of `coalitions` the pool has no value for, in their order."""
        fresh: dict[bytes, int] = {}
        for row, key in enumerate(keys(coalitions)):
            if key not in self._index:
                fresh.setdefault(key, row)
        return coalitions[list(fresh.values())]

    def tell(self, coalitions: BoolCF, values: npt.ArrayLike) -> None:
        """Add values; a coalition the pool has already keeps its first value.

        Args:
            coalitions: [C, F].
            values: [C] or [C, L].
        """
        values_CL = np.asarray(values, dtype=np.float64)
        values_CL = values_CL[:, None] if values_CL.ndim == 1 else values_CL
        if len(values_CL) != len(coalitions):
            raise ValueError(f"{len(coalitions)} coalitions but {len(values_CL)} values")
        rows = []
        for row, key in enumerate(keys(coalitions)):
            if key not in self._index:
                self._index[key] = len(self._index)
                rows.append(row)
        if rows:
            self._coalitions.append(np.asarray(coalitions[rows], dtype=bool))
            self._values.append(values_CL[rows])

    def lookup(self, coalitions: BoolCF) -> FloatCL:
        """Return the values [C, L] of coalitions that are all in the pool.

        Raises:
            KeyError: One of them has not been valued.
        """
        return self.values[[self._index[key] for key in keys(coalitions)]]

    def map(self, transform: Callable[[FloatCL], FloatCL]) -> CoalitionPool:
        """Return a pool of the same coalitions with transformed values [C, L] -> [C, L']."""
        mapped = CoalitionPool(self.n_features)
        mapped._index = dict(self._index)
        if self._coalitions:
            mapped._coalitions = [self.coalitions]
            mapped._values = [transform(self.values)]
        return mapped
