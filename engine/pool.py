"""The coalition pool: every coalition of one example that has been valued, each paid for once.

Explainers and metrics ask from the pool and are answered by it; what one of them had valued, the
next one finds. A pool belongs to one (example, features, operator).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.types import BoolCF, FloatCL

Marks: TypeAlias = npt.NDArray[Any]
"""One number or byte string a coalition [C], equal exactly where the coalitions are."""


def pack(coalitions: BoolCF) -> npt.NDArray[np.uint8]:
    """Return coalitions [C, F] as bits [C, ceil(F / 8)], most significant bit first."""
    return np.packbits(coalitions, axis=1)


def unpack(bits: npt.NDArray[np.uint8], n_features: int) -> BoolCF:
    """Return the coalitions [C, F] of `bits` [C, ceil(F / 8)]."""
    return np.unpackbits(bits, axis=1, count=n_features).view(bool)


def keys(coalitions: BoolCF) -> list[bytes]:
    """Return one hashable key a coalition."""
    width = (coalitions.shape[1] + 7) // 8
    data = pack(coalitions).tobytes()
    return [data[i * width : (i + 1) * width] for i in range(len(coalitions))]


def marks(coalitions: BoolCF) -> Marks:
    """Return one sortable mark a coalition [C, F]: an integer up to 64 features, else bytes."""
    bits = pack(coalitions)
    count, width = bits.shape
    if width > 8:
        # numpy leaves zeros at the end of a byte string out of comparisons; in strings of one
        # width that changes no outcome
        return bits.view(f"S{width}").ravel()
    padded = np.zeros((count, 8), dtype=np.uint8)
    padded[:, :width] = bits
    return padded.view(np.uint64).ravel()


def first_rows(found: Marks) -> npt.NDArray[np.int64]:
    """Return the places of the distinct marks' first appearances, in order."""
    order = found.argsort(kind="stable")
    ascending = found[order]
    is_first = np.ones(len(found), dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=is_first[1:])
    first = order[is_first]
    first.sort()
    return first


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
        # marks in sorted order, and the row of each; replaced, never written to, so that pools
        # made by `map` can share them
        self._marks = marks(np.zeros((0, n_features), dtype=bool))
        self._rows = np.zeros(0, dtype=np.int64)
        self._coalitions: list[BoolCF] = []
        self._values: list[FloatCL] = []

    def __len__(self) -> int:
        return len(self._rows)

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
        return coalitions[self.new_rows(coalitions)]

    def new_rows(self, coalitions: BoolCF) -> npt.NDArray[np.int64]:
        """Return the rows of `coalitions` that `missing` returns, in order."""
        return self._new_rows(marks(coalitions))

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
        found = marks(coalitions)
        new = self._new_rows(found)
        if not len(new):
            return
        together = np.concatenate([self._marks, found[new]])
        order = together.argsort(kind="stable")
        numbers = np.arange(len(together), dtype=np.int64)
        numbers[: len(self._rows)] = self._rows
        self._marks, self._rows = together[order], numbers[order]
        self._coalitions.append(np.asarray(coalitions[new], dtype=bool))
        self._values.append(values_CL[new])

    def lookup(self, coalitions: BoolCF) -> FloatCL:
        """Return the values [C, L] of coalitions that are all in the pool.

        Raises:
            KeyError: One of them has not been valued.
        """
        rows = self._find(marks(coalitions))
        if len(rows) and rows.min() < 0:
            unknown = np.flatnonzero(coalitions[int(rows.argmin())]).tolist()
            raise KeyError(f"the coalition of the features {unknown} has no value yet")
        return self.values[rows]

    def rows(self, coalitions: BoolCF) -> npt.NDArray[np.int64]:
        """Return where each coalition stands in the order of arrival [C], −1 where it does not."""
        return self._find(marks(coalitions))

    def map(self, transform: Callable[[FloatCL], FloatCL]) -> CoalitionPool:
        """Return a pool of the same coalitions with transformed values [C, L] -> [C, L']."""
        mapped = CoalitionPool(self.n_features)
        mapped._marks, mapped._rows = self._marks, self._rows
        if self._coalitions:
            mapped._coalitions = [self.coalitions]
            mapped._values = [transform(self.values)]
        return mapped

    def _find(self, found: Marks) -> npt.NDArray[np.int64]:
        """Return the row of each mark, −1 where the pool doesn't have it."""
        if not len(self._marks):
            return np.full(len(found), -1, dtype=np.int64)
        at = np.searchsorted(self._marks, found)
        at[at == len(self._marks)] = 0
        return np.where(self._marks[at] == found, self._rows[at], -1)

    def _new_rows(self, found: Marks) -> npt.NDArray[np.int64]:
        """Return where marks that the pool doesn't have appear first, in order."""
        unknown = np.flatnonzero(self._find(found) < 0)
        return unknown[first_rows(found[unknown])]
