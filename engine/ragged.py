"""Rows of integers of different lengths, as two arrays instead of lists of lists.

Token sequences cross masking, requests and packing in this form, so that no step of it touches a
Python object an evaluation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
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
        array = one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
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
        moves = self.offsets[rows] - starts[:-1]
        flat = np.empty(starts[-1], dtype=self.flat.dtype)
        for some in _blocks(starts):
            a, b = starts[some.start], starts[some.stop]
            place = np.repeat(moves[some], lengths[some])
            place += np.arange(a, b)
            self.flat.take(place, out=flat[a:b], mode="clip")
        return Ragged(flat, starts)

    def to_lists(self) -> list[list[int]]:
        """Return the rows as lists."""
        values = self.flat.tolist()
        return [values[a:b] for a, b in itertools.pairwise(self.offsets.tolist())]


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; `combine_chunks` would copy even a single one."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


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


_INVERSE = pow(_BASE, -1, 1 << 64)
_BLOCK = 1 << 15
"""Values that are worked on at a time: what lies between stays in a core's cache, where arrays of
millions of values would be paged in anew each time."""

_powers_of: dict[int, npt.NDArray[np.uint64]] = {}  # by base; a longer table replaces a shorter one


def _powers(base: int, count: int) -> npt.NDArray[np.uint64]:
    """Return the first `count` powers of an odd base modulo 2^64."""
    powers = _powers_of.get(base)
    if powers is None or len(powers) < count:
        powers = np.full(max(2 * _BLOCK, 1 << count.bit_length()), base, dtype=np.uint64)
        powers[0] = 1
        np.multiply.accumulate(powers, out=powers)
        _powers_of[base] = powers
    return powers[:count]


def _hashes(rows: Ragged) -> npt.NDArray[np.uint64]:
    """Return a hash of each row [S]: Σ v_i·b^i modulo 2^64 over its values and its length."""
    found = np.empty(rows.n_rows, dtype=np.uint64)
    for some in _blocks(rows.offsets):
        a, b = rows.offsets[some.start], rows.offsets[some.stop]
        count = int(b - a)
        sums = np.zeros(count + 1, dtype=np.uint64)
        terms = rows.flat[a:b].astype(np.uint64)
        terms += np.uint64(1)
        terms *= _powers(_BASE, count)
        np.cumsum(terms, out=sums[1:])
        starts = rows.offsets[some.start : some.stop + 1] - a
        at = sums[starts]
        # every sum has the power of its row's start as a factor
        found[some] = (at[1:] - at[:-1]) * _powers(_INVERSE, count + 1)[starts[:-1]]
    return found


def _blocks(starts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Yield runs of rows of about `_BLOCK` values each, a longer row alone.

    Args:
        starts: Where each row starts, and their end [S + 1].
    """
    bounds = np.searchsorted(starts, np.arange(_BLOCK, starts[-1], _BLOCK))
    for a, b in itertools.pairwise([0, *dict.fromkeys(bounds.tolist()), len(starts) - 1]):
        if a < b:
            yield slice(a, b)


def _equal(some: Ragged, others: Ragged) -> bool:
    return np.array_equal(some.offsets, others.offsets) and np.array_equal(some.flat, others.flat)


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
