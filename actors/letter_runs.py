"""Runs of letters in many texts at once, without a Python object an occurrence.

A run is what lies between bytes that can't be part of a word: ASCII that is neither a letter nor an
apostrophe. Words of any script lie within runs, so what is known of a text's words follows from its
runs, and few of these are distinct.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_IN_RUN = np.zeros(256, dtype=bool)
_IN_RUN[[*range(ord("a"), ord("z") + 1), *range(ord("A"), ord("Z") + 1), ord("'")]] = True
_IN_RUN[128:] = True

_SIGMA = "Σ".encode()
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SLOT_BITS = 12


class Runs(NamedTuple):
    """The runs of all texts, in order.

    Attributes:
        texts: The distinct ones.
        which: Which of these each run is [R], int64.
    """

    texts: list[bytes]
    which: npt.NDArray[np.int64]


def letter_runs(
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[Runs, npt.NDArray[np.int64]]:
    """Return the runs of texts, and the text that each is in [R].

    A text with a capital sigma is one run: its lower case depends on letters beyond full stops.

    Args:
        flat: All texts one after the other [T].
        offsets: Where each starts in `flat`, and T at the end [S + 1].
    """
    starts, ends = _bounds(flat, offsets)
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(np.searchsorted(starts, offsets)))
    return _distinct(flat, starts, ends), row


def _bounds(
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    inside = _IN_RUN[flat]
    for row in _rows_with_sigma(flat, offsets):
        inside[offsets[row] : offsets[row + 1]] = True
    first, last = inside.copy(), inside.copy()
    first[1:] &= ~inside[:-1]
    last[:-1] &= ~inside[1:]
    begins = offsets[:-1][offsets[:-1] < offsets[1:]]  # of texts that aren't empty
    first[begins] = inside[begins]
    stops = offsets[1:][offsets[:-1] < offsets[1:]] - 1
    last[stops] = inside[stops]
    return np.flatnonzero(first), np.flatnonzero(last) + 1


def _rows_with_sigma(
    flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    at = np.flatnonzero(flat[:-1] == _SIGMA[0])
    at = at[flat[at + 1] == _SIGMA[1]]
    return np.unique(np.searchsorted(offsets, at, side="right") - 1)


def _distinct(
    flat: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> Runs:
    """Tell runs apart by eight bytes at a time; equal marks mean equal bytes, so it is exact."""
    padded = np.concatenate([flat, np.zeros(8, dtype=np.uint8)])
    lengths = ends - starts
    which, bound = _number(_words_at(padded, starts, lengths))
    for shift in range(8, int(lengths.max(initial=0)), 8):
        longer = np.flatnonzero(lengths > shift)
        part, count = _number(_words_at(padded, starts[longer] + shift, lengths[longer] - shift))
        # what it was so far, and what it goes on with
        pairs = which[longer].astype(np.uint64) * np.uint64(count) + part.astype(np.uint64)
        joined, count = _number(pairs)
        which[longer] = bound + joined
        bound += count
    example = np.full(bound, -1, dtype=np.int64)
    example[which] = np.arange(len(which))
    used = example >= 0
    data = flat.tobytes()
    bounds = zip(starts[example[used]].tolist(), ends[example[used]].tolist(), strict=True)
    return Runs([data[a:b] for a, b in bounds], (np.cumsum(used) - 1)[which])


def _words_at(
    padded: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of each run as an integer, zero where it is shorter.

    Runs hold no zero byte, so that their length shows.
    """
    # a view of the integer that starts at every byte
    at_every_byte: npt.NDArray[np.uint64] = np.ndarray(
        (len(padded) - 7,), np.dtype("<u8"), padded, strides=(1,)
    )
    bits = np.uint64(8) * np.minimum(lengths, 8).astype(np.uint64)
    keep = np.where(
        lengths >= 8, ~np.uint64(0), (np.uint64(1) << (bits & np.uint64(63))) - np.uint64(1)
    )
    found: npt.NDArray[np.uint64] = at_every_byte[starts] & keep
    return found


def _number(marks: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], int]:
    """Return equal marks as equal numbers 0..N−1 [R], and N."""
    slot = ((marks * _MIX) >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
    holder = np.zeros(1 << _SLOT_BITS, dtype=np.int64)
    holder[slot] = np.arange(len(marks))
    twin = holder[slot]
    clash = np.flatnonzero(marks[twin] != marks)
    if len(clash):  # another mark has the slot
        _, place, group = np.unique(marks[clash], return_index=True, return_inverse=True)
        twin[clash] = clash[place[group]]
    taken = np.zeros(len(marks), dtype=bool)
    taken[twin] = True
    number = np.cumsum(taken) - 1
    return number[twin], int(taken.sum())
