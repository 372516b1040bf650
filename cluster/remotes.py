"""What the scheduler hands to remote functions, and what it must know of what they return."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.commits import Commit


class StepHeader(NamedTuple):
    """What the driver must know of a step's output."""

    done: bool
    sequences: int
    tokens: int
    nbytes: int


class Written(NamedTuple):
    """What a writer made, to be committed: rows of the run, and of the store by folder."""

    commits: list[Commit]
    stored: dict[str, list[Commit]]


class Remotes(NamedTuple):
    """The remote functions, which `jobs.stages` defines.

    Attributes:
        step: (context, units, attempt, numerics, *rounds) -> header, body, lookups; body and
            lookups have an entry a unit.
        give_up: (context, unit, attempt, code, message) -> header, body, lookups.
        write: (run folder, stem, store folders, *result batches) -> Written.
    """

    step: Any
    give_up: Any
    write: Any


class PairRef(NamedTuple):
    """What the units of a pair share.

    Attributes:
        context: Reference of the context.
        store: The store folder.
        adapter: Digest of the adapter they want on, "" for none.
    """

    context: Any
    store: str
    adapter: str = ""
