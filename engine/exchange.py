"""What goes to a host and comes back in one round of a step."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from engine import schema
from engine.generations import most_tokens
from engine.gradients import expected_tokens
from engine.ragged import one_chunk
from engine.transport import Reduced, reduced


@dataclass(frozen=True, slots=True, eq=False)
class HostRequest:
    """All that the steps of a unit ask at once.

    Attributes:
        scores: A table of `engine.schema.SCORE_REQUEST`; may have no rows.
        gradients: A table of `engine.gradients.GRADIENT_REQUEST`, or None.
        generations: A table of `engine.generations.GENERATION_REQUEST`, or None.
    """

    scores: pa.Table
    gradients: pa.Table | None = None
    generations: pa.Table | None = None

    def __reduce__(self) -> Reduced:
        """Return how to make it again in another process."""
        return reduced(HostRequest, (self.scores, self.gradients, self.generations))

    @property
    def tables(self) -> tuple[pa.Table, ...]:
        """The tables there are."""
        every = (self.scores, self.gradients, self.generations)
        return tuple(table for table in every if table is not None)

    @property
    def sequences(self) -> int:
        """Rows of all kinds."""
        return sum(table.num_rows for table in self.tables)

    @property
    def tokens(self) -> int:
        """Tokens that a host has to compute, before it shares any."""
        scored = len(one_chunk(self.scores.column("ids")).flatten())
        if self.gradients is not None:
            scored += expected_tokens(self.gradients)
        return scored + (0 if self.generations is None else most_tokens(self.generations))

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return sum(table.nbytes for table in self.tables)


@dataclass(frozen=True, slots=True, eq=False)
class HostReply:
    """The answers, one row a row of the request.

    Attributes:
        scores: A table of `engine.schema.SCORE_REPLY`.
        gradients: A table of `engine.gradients.GRADIENT_REPLY`, or None where none were asked.
        generations: A table of `engine.generations.GENERATION_REPLY`, or None the same.
    """

    scores: pa.Table
    gradients: pa.Table | None = None
    generations: pa.Table | None = None

    def __reduce__(self) -> Reduced:
        """Return how to make it again in another process."""
        return reduced(HostReply, (self.scores, self.gradients, self.generations))

    @property
    def seconds(self) -> float:
        """Time in the model."""
        answered = [t for t in (self.gradients, self.generations) if t is not None]
        others = [s or 0.0 for table in answered for s in table.column("seconds").to_pylist()]
        return schema.cost_of(self.scores).seconds + sum(others)
