"""Rows of integers of different lengths, as two arrays instead of lists of lists.

Token sequences cross masking, requests and packing in this form, so that no step of it touches a
Python object an evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Ragged(NamedTuple):
    """S rows of integers.

    Attributes:
        flat: All rows one after the other [T], int32.
        offsets: Where each row starts in `flat`, and T at the end [S + 1], int64.
    """

    flat: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """Return `rows` in this form."""
        listed = [np.asarray(row, dtype=np.int32) for row in rows]
        flat = np.concatenate(listed) if listed else np.zeros(0, dtype=np.int32)
        return cls(flat, _starts(np.array([len(row) for row in listed], dtype=np.int64)))

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray) -> Ragged:
        """Return the rows of a `list<int32>` column; a null row is an empty one."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if array.null_count:
            array = array.fill_null([])
        offsets = array.offsets.to_numpy().astype(np.int64)
        flat = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
        return cls(flat.astype(np.int32, copy=False), offsets - offsets[0])

    def to_arrow(self) -> pa.ListArray:
        """Return the rows as a `list<int32>` array that shares `flat`."""
        return pa.ListArray.from_arrays(
            pa.array(self.offsets.astype(np.int32)), pa.array(self.flat, pa.int32())
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of integers of each row [S]."""
        return np.diff(self.offsets)

    @property
    def n_rows(self) -> int:
        """S."""
        return len(self.offsets) - 1

    def row(self, index: int) -> npt.NDArray[np.int32]:
        """Return one row, as a view."""
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: npt.ArrayLike) -> Ragged:
        """Return the rows at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[rows]
        starts = _starts(lengths)
        place = np.arange(starts[-1]) + np.repeat(self.offsets[rows] - starts[:-1], lengths)
        return Ragged(self.flat[place], starts)

    def to_lists(self) -> list[list[int]]:
        """Return the rows as lists."""
        values = self.flat.tolist()
        return [values[a:b] for a, b in itertools.pairwise(self.offsets.tolist())]


def concatenate(parts: Sequence[Ragged]) -> Ragged:
    """Return the rows of all `parts`, in order."""
    if not parts:
        return Ragged.of([])
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.flat for part in parts]), _starts(lengths))


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
