"""What goes to a host and comes back in one round of a step."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from engine import schema
from engine.gradients import expected_tokens


@dataclass(frozen=True, slots=True, eq=False)
class HostRequest:
    """All that the steps of a unit ask at once.

    Attributes:
        scores: A table of `engine.schema.SCORE_REQUEST`; may have no rows.
        gradients: A table of `engine.gradients.GRADIENT_REQUEST`, or None.
    """

    scores: pa.Table
    gradients: pa.Table | None = None

    @property
    def sequences(self) -> int:
        """Rows of both kinds."""
        return self.scores.num_rows + (0 if self.gradients is None else self.gradients.num_rows)

    @property
    def tokens(self) -> int:
        """Tokens that a host has to compute, before it shares any."""
        scored = len(self.scores.column("ids").combine_chunks().flatten())
        return scored + (0 if self.gradients is None else expected_tokens(self.gradients))

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return self.scores.nbytes + (0 if self.gradients is None else self.gradients.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class HostReply:
    """The answers, one row a row of the request.

    Attributes:
        scores: A table of `engine.schema.SCORE_REPLY`.
        gradients: A table of `engine.gradients.GRADIENT_REPLY`, or None where none were asked.
    """

    scores: pa.Table
    gradients: pa.Table | None = None

    @property
    def seconds(self) -> float:
        """Time in the model."""
        scored = schema.cost_of(self.scores).seconds
        if self.gradients is None:
            return scored
        return scored + sum(s or 0.0 for s in self.gradients.column("seconds").to_pylist())
