"""What the consumers of one example ask about, and what they used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.guests.texts import TextSpace
from engine.masking import MaskedInputs, Masker
from engine.types import BoolCF, Feature


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """The coalitions of one example under one feature set and operator."""

    key: str
    features: tuple[Feature, ...]
    masker: Masker

    @property
    def n_features(self) -> int:
        """F."""
        return len(self.features)

    @property
    def full(self) -> BoolCF:
        """The coalition [1, F] that keeps everything."""
        return np.ones((1, self.n_features), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """Coalitions of a space that a consumer needs values for, and what the model is shown."""

    consumer: str
    space: Space | TextSpace
    coalitions: BoolCF
    masked: MaskedInputs


@dataclass(slots=True)
class Usage:
    """What one consumer used of an example's evaluations.

    Attributes:
        evaluations: What it used.
        first: Of these, what no consumer before it had used.
        stored: Of the first, what the store had.
        tokens: Tokens of what it used.
        seconds: Its own time.
    """

    evaluations: int = 0
    first: int = 0
    stored: int = 0
    tokens: int = 0
    seconds: float = 0.0
