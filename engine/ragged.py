"""Rows of integers of different lengths, as two arrays instead of lists of lists.

Token sequences cross masking, requests and packing in this form, so that no step of it touches a
Python object an evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
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
        listed = list(rows)
        starts = _starts(np.array([len(row) for row in listed], dtype=np.int64))
        values = itertools.chain.from_iterable(listed)
        return cls(np.fromiter(values, dtype=np.int32, count=int(starts[-1])), starts)

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray) -> Ragged:
        """Return the rows of a `list<int32>` column; a null row is an empty one."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if array.null_count:
            array = array.fill_null([])
        offsets = array.offsets.to_numpy().astype(np.int64)
        flat = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
        return cls(flat.astype(np.int32, copy=False), offsets - offsets[0])

    def to_arrow(self, empty_is_null: bool = False) -> pa.ListArray:
        """Return the rows as a `list<int32>` array that shares `flat`.

        Args:
            empty_is_null: Make empty rows null.
        """
        empty = pa.array(self.lengths == 0) if empty_is_null else None
        return pa.ListArray.from_arrays(
            pa.array(self.offsets.astype(np.int32)), pa.array(self.flat, pa.int32()), mask=empty
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


class Distinct(NamedTuple):
    """Which rows are equal.

    Attributes:
        first: Where each distinct row appears first, in order [D], int64.
        which: Which of these each row equals [S], int64.
    """

    first: npt.NDArray[np.int64]
    which: npt.NDArray[np.int64]


def distinct(rows: Ragged) -> Distinct:
    """Return the distinct rows and who equals whom.

    Rows are grouped by a polynomial hash, and every row is compared with the first of its group, so
    that the outcome is exact.
    """
    _, first, group = np.unique(_hashes(rows), return_index=True, return_inverse=True)
    twin = first[group]
    repeats = np.flatnonzero(twin != np.arange(len(twin)))
    if len(repeats) and not _equal(rows.take(repeats), rows.take(twin[repeats])):
        seen: dict[bytes, int] = {}  # two rows share a hash
        for row in range(rows.n_rows):
            twin[row] = seen.setdefault(rows.row(row).tobytes(), row)
        first = np.unique(twin)
        group = np.searchsorted(first, twin)
    order = first.argsort()
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Distinct(first[order], rank[group])


def side_by_side(left: Ragged, right: Ragged) -> Ragged:
    """Return each row of `left` followed by the row of `right` at its place."""
    both = concatenate([left, right])
    pairs = np.arange(2 * left.n_rows).reshape(2, -1).T.ravel()
    taken = both.take(pairs)
    return Ragged(taken.flat, taken.offsets[::2])


def concatenate(parts: Sequence[Ragged]) -> Ragged:
    """Return the rows of all `parts`, in order."""
    if not parts:
        return Ragged.of([])
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged(np.concatenate([part.flat for part in parts]), _starts(lengths))


_BASE = 0x9E3779B97F4A7C15
"""An odd number, so that its powers have inverses modulo 2^64."""


@lru_cache(maxsize=4)
def _powers(bits: int, base: int) -> npt.NDArray[np.uint64]:
    """Return the first 2^bits powers of an odd base modulo 2^64."""
    powers = np.full(1 << bits, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _hashes(rows: Ragged) -> npt.NDArray[np.uint64]:
    """Return a hash of each row [S]: Σ v_i·b^i modulo 2^64 over its values and its length."""
    bits = max(16, len(rows.flat).bit_length())
    terms = (rows.flat.astype(np.uint64) + np.uint64(1)) * _powers(bits, _BASE)[: len(rows.flat)]
    sums = np.zeros(len(terms) + 1, dtype=np.uint64)
    np.cumsum(terms, out=sums[1:])
    of_row = sums[rows.offsets[1:]] - sums[rows.offsets[:-1]]
    # every sum has the power of its row's start as a factor
    return of_row * _powers(bits, pow(_BASE, -1, 1 << 64))[rows.offsets[:-1]]


def _equal(some: Ragged, others: Ragged) -> bool:
    return np.array_equal(some.offsets, others.offsets) and np.array_equal(some.flat, others.flat)


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
