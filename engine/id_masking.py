"""Removing features from a sequence of tokens, for all coalitions at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from engine.ragged import Ragged
from engine.types import BoolCF


class IdMasker:
    """Removes tokens from one sequence.

    Args:
        ids: The full prompt [T].
        positions: Positions of each feature's tokens [F].
        replacement: What takes the place of each run of a removed feature's tokens.
    """

    def __init__(
        self,
        ids: Sequence[int],
        positions: Sequence[Sequence[int]],
        replacement: Sequence[int],
    ) -> None:
        self._ids = np.array(ids, dtype=np.int32)
        self._tokens = Ragged.of([*([token] for token in ids), replacement])
        self._own = _places(positions, len(ids))
        starts = [[p for p in own if p - 1 not in own] for own in map(set, positions)]
        self._starts = _places(starts, len(ids))

    def apply(self, coalitions: BoolCF, replace: bool) -> Ragged:
        """Return what is left of the tokens for each coalition [C, F].

        Args:
            coalitions: [C, F].
            replace: Put the replacement in the place of each run that is removed.
        """
        shown = ~_removed(coalitions, self._own)
        n_tokens = len(self._ids)
        if not replace:
            row, position = np.nonzero(shown)
            return Ragged(self._ids[position], _row_starts(row, len(shown)))
        replaced = _removed(coalitions, self._starts)
        row, position = np.nonzero(shown | replaced)
        entries = self._tokens.take(np.where(replaced[row, position], n_tokens, position))
        return Ragged(entries.flat, entries.offsets[_row_starts(row, len(shown))])

    def hidden(self, coalitions: BoolCF) -> Ragged:
        """Return the positions that each coalition [C, F] hides."""
        row, position = np.nonzero(_removed(coalitions, self._own))
        return Ragged(position.astype(np.int32), _row_starts(row, len(coalitions)))

    def repeated(self, count: int) -> Ragged:
        """Return the full prompt, `count` times."""
        offsets = np.arange(count + 1, dtype=np.int64) * len(self._ids)
        return Ragged(np.tile(self._ids, count), offsets)


def _places(positions: Sequence[Iterable[int]], n_tokens: int) -> npt.NDArray[np.int64]:
    """Return the features of each token [K, T], −1 for none; K is the most that one token has."""
    owners: list[list[int]] = [[] for _ in range(n_tokens)]
    for feature, own in enumerate(positions):
        for position in own:
            owners[position].append(feature)
    table = np.full((max(map(len, owners), default=0), n_tokens), -1, dtype=np.int64)
    for position, features in enumerate(owners):
        table[: len(features), position] = features
    return table


def _removed(coalitions: BoolCF, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which tokens go with a removed feature [C, T]."""
    # a feature more that is always kept, for the tokens without one
    kept = np.column_stack([coalitions, np.ones(len(coalitions), dtype=bool)])
    removed = np.zeros((len(coalitions), places.shape[1]), dtype=bool)
    for features in places:
        removed |= ~kept[:, features]
    return removed


def _row_starts(row: npt.NDArray[np.int64], n_rows: int) -> npt.NDArray[np.int64]:
    """Return where each of `n_rows` rows starts in the sorted row numbers `row`, and their end."""
    return np.searchsorted(row, np.arange(n_rows + 1)).astype(np.int64)
