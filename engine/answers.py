"""The answers a unit has so far: one pool of raw label scores an (example, space).

A *space* says what a coalition's bits mean: the features and how a feature is removed. Values of
these pools are [log-probability of each label…, log Z, number of tokens].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.generations import Generations
from engine.gradients import Gradients
from engine.not_a_number import no_numbers
from engine.pool import CoalitionPool, keys, pack, unpack
from engine.ragged import one_chunk
from engine.seeds import digest
from engine.types import BoolCF, Feature, FloatCL

LOOKUPS = pa.schema(
    [
        pa.field("example", pa.string(), nullable=False),  # digest of the example's input texts
        pa.field("space", pa.string(), nullable=False),
        pa.field("n_features", pa.int32(), nullable=False),
        pa.field("coalitions", pa.binary(), nullable=False),  # C packed rows of ceil(F / 8) bytes
        pa.field("sequence", pa.list_(pa.int32()), nullable=False),  # C: row of the request
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),  # C: length of each sequence
        pa.field("fresh", pa.list_(pa.bool_()), nullable=False),  # C: whether it brought the row
        pa.field("consumer", pa.string(), nullable=False),  # who asked
    ]
)
"""Which rows of a request answer which coalitions, one row an ask: a consumer's coalitions of a
space that nobody asked for before it. Kept by the steps, never sent to a host."""


class Lookup(NamedTuple):
    """One row of `LOOKUPS`.

    Attributes:
        example: Digest of the example's input texts.
        space: Key of the space.
        coalitions: [C, F].
        sequence: Row of the request that answers each [C].
        tokens: Length of that row [C].
        fresh: Whether this coalition brought the row into the request [C].
        consumer: Who asked.
    """

    example: str
    space: str
    coalitions: BoolCF
    sequence: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    fresh: npt.NDArray[np.bool_]
    consumer: str


def lookups_table(asks: Sequence[Lookup]) -> pa.Table:
    """Return `asks` as a table of `LOOKUPS`."""
    columns = [
        pa.array([ask.example for ask in asks], pa.string()),
        pa.array([ask.space for ask in asks], pa.string()),
        pa.array([ask.coalitions.shape[1] for ask in asks], pa.int32()),
        pa.array([pack(ask.coalitions).tobytes() for ask in asks], pa.binary()),
        list_column([ask.sequence for ask in asks], np.int32),
        list_column([ask.tokens for ask in asks], np.int32),
        list_column([ask.fresh for ask in asks], np.bool_),
        pa.array([ask.consumer for ask in asks], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=LOOKUPS)


def read_lookups(table: pa.Table) -> Iterator[Lookup]:
    """Yield the rows of a table of `LOOKUPS`."""
    sequence, tokens, fresh = (list_rows(table, name) for name in ("sequence", "tokens", "fresh"))
    example, space, consumer = (
        table.column(name).to_pylist() for name in ("example", "space", "consumer")
    )
    bits = coalition_rows(table, map(len, tokens))
    columns = (example, space, bits, sequence, tokens, fresh, consumer)
    yield from map(Lookup._make, zip(*columns, strict=True))


def coalition_rows(table: pa.Table, counts: Iterable[int]) -> Iterator[BoolCF]:
    """Yield the unpacked `coalitions` [C, F] of each row.

    Args:
        table: Has the columns `coalitions` and `n_features`.
        counts: C of each row.
    """
    packed, n_features = (table.column(n).to_pylist() for n in ("coalitions", "n_features"))
    for data, width, count in zip(packed, n_features, counts, strict=True):
        bits = np.frombuffer(data, np.uint8).reshape(count, (width + 7) // 8)
        yield unpack(bits, width)


def list_column(rows: Sequence[npt.NDArray[Any]], kind: npt.DTypeLike) -> pa.ListArray:
    """Return arrays as a list column, without a Python object a value."""
    offsets = np.array([0, *itertools.accumulate(map(len, rows))], dtype=np.int32)
    # most columns have one row
    joined = rows[0] if len(rows) == 1 else np.concatenate([np.zeros(0, dtype=kind), *rows])
    flat = joined.astype(kind, copy=False)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def list_rows(table: pa.Table, name: str) -> list[npt.NDArray[Any]]:
    """Return the rows of a list column without nulls as arrays."""
    column = one_chunk(table.column(name))
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy(zero_copy_only=False)
    return [values[start:end] for start, end in itertools.pairwise(offsets.tolist())]


def consumer_key(example: str, consumer: str) -> str:
    """Return how lookups name a consumer of an example."""
    return f"{example}\x1f{consumer}"


def space_key(features: tuple[Feature, ...], operator: str) -> str:
    """Return the digest of a feature set and an operator."""
    spans = [[[s.field, s.start, s.end] for s in feature.spans] for feature in features]
    return digest([operator, spans])


@dataclass(slots=True)
class Answers:
    """Pools by (example key, space key), and the errors of coalitions that could not be scored.

    Attributes:
        pools: By (example key, space key).
        errors: By (example key, space key, coalition).
        gradients: Answers about gradients.
        generations: Answers about continuations.
        lookups: Of the rounds, in order (`LOOKUPS`).
        from_store: How many of a pool's first coalitions came from the store.
    """

    pools: dict[tuple[str, str], CoalitionPool] = field(default_factory=dict)
    errors: dict[tuple[str, str, bytes], str] = field(default_factory=dict)
    lookups: list[pa.Table] = field(default_factory=list)
    gradients: Gradients = field(default_factory=Gradients)
    from_store: dict[tuple[str, str], int] = field(default_factory=dict)
    generations: Generations = field(default_factory=Generations)

    def pool(self, example: str, space: str, n_features: int) -> CoalitionPool:
        """Return the pool of an (example, space), empty if nothing is known."""
        return self.pools.setdefault((example, space), CoalitionPool(n_features))

    def error(self, example: str, space: str, coalitions: BoolCF) -> str | None:
        """Return why the first of these coalitions that failed could not be scored, or None."""
        if not self.errors:
            return None
        found = (self.errors.get((example, space, key)) for key in keys(coalitions))
        return next((error for error in found if error is not None), None)

    def add_stored(
        self, rows: pa.Table, numerics: str, examples: Iterable[str], suffix: str = ""
    ) -> None:
        """Add rows of the store that belong to these examples and were computed alike.

        What is not a number counts as not stored.

        Args:
            rows: A table of `engine.schema.EVALUATIONS`.
            numerics: Of the host.
            examples: Digests of the examples' input texts.
            suffix: End of the stored names of the spaces, see `StepContext.store_suffix`.
        """
        rows = rows.filter(pc.ends_with(rows.column("space"), suffix))
        wanted = pa.array(sorted(set(examples)), pa.string())
        alike = pc.equal(rows.column("numerics"), numerics)
        rows = rows.filter(pc.and_(alike, pc.is_in(rows.column("example"), wanted)))
        names = zip(
            rows.column("example").to_pylist(), rows.column("space").to_pylist(), strict=True
        )
        arrays = [list_rows(rows, name) for name in ("log_probs", "log_z", "tokens")]
        bits = coalition_rows(rows, map(len, arrays[-1]))
        for (example, space), coalitions, log_probs, log_z, tokens in zip(
            names, bits, *arrays, strict=True
        ):
            count, n_features = coalitions.shape
            values = np.column_stack([log_probs.reshape(count, -1), log_z, tokens])
            known = ~no_numbers(values[:, :-2], values[:, -2])
            key = (example, space.removesuffix(suffix))
            pool = self.pool(*key, n_features)
            pool.tell(coalitions[known], values[known])
            self.from_store[key] = len(pool)

    def stored(self, example: str, space: str) -> int:
        """Return how many of a pool's first coalitions came from the store."""
        return self.from_store.get((example, space), 0)

    def add_round(self, lookups: pa.Table, reply: pa.Table) -> None:
        """Add the answers of one request."""
        self.lookups.append(lookups)
        error = reply.column("error")
        some_failed = error.null_count < len(error)
        failed = error.is_valid().to_numpy() if some_failed else np.zeros(len(error), dtype=bool)
        scores = _scores(reply, failed, some_failed)
        for ask in read_lookups(lookups):
            values = scores[ask.sequence]
            values[:, -1] = ask.tokens
            bad = failed[ask.sequence]
            pool = self.pool(ask.example, ask.space, ask.coalitions.shape[1])
            if not some_failed or not bad.any():
                pool.tell(ask.coalitions, values)
                continue
            pool.tell(ask.coalitions[~bad], values[~bad])
            messages = error.take(ask.sequence[bad]).to_pylist()
            for key, message in zip(keys(ask.coalitions[bad]), messages, strict=True):
                self.errors[ask.example, ask.space, key] = message


def _scores(reply: pa.Table, failed: npt.NDArray[np.bool_], some_failed: bool) -> FloatCL:
    """Return log-probabilities and log Z of a reply's rows [S, L + 2], NaN where one failed.

    The last column is left for the numbers of tokens.
    """
    column = one_chunk(reply.column("log_probs"))
    good = np.flatnonzero(~failed) if some_failed else slice(None)
    flat = (column.filter(pa.array(~failed)) if some_failed else column).flatten().to_numpy()
    n_good = len(good) if isinstance(good, np.ndarray) else len(failed)
    n_labels = len(flat) // max(n_good, 1)
    scores = np.full((len(failed), n_labels + 2), np.nan)
    scores[good, :n_labels] = flat.reshape(n_good, n_labels)
    scores[:, n_labels] = reply.column("log_z").to_numpy()
    return scores


def evaluations_table(
    rounds: Iterable[tuple[pa.Table, pa.Table]], numerics: str, schema: pa.Schema, suffix: str = ""
) -> pa.Table:
    """Return what the rounds of a unit add to the store, one row an (example, space, round).

    Args:
        rounds: Lookups and replies.
        numerics: Of the host.
        schema: `engine.schema.EVALUATIONS`.
        suffix: See `Answers.add_stored`.
    """
    found: list[tuple[tuple[str, str], CoalitionPool]] = []
    for lookups, reply in rounds:
        answers = Answers()
        answers.add_round(lookups, reply)
        found += [(name, pool) for name, pool in answers.pools.items() if len(pool)]
    pools = [pool for _, pool in found]
    columns = {
        "example": pa.array([example for (example, _), _ in found], pa.string()),
        "space": pa.array([space + suffix for (_, space), _ in found], pa.string()),
        "n_features": pa.array([pool.n_features for pool in pools], pa.int32()),
        "coalitions": pa.array([pack(pool.coalitions).tobytes() for pool in pools], pa.binary()),
        "log_probs": list_column([pool.values[:, :-2].ravel() for pool in pools], np.float32),
        "log_z": list_column([pool.values[:, -2] for pool in pools], np.float32),
        "tokens": list_column([pool.values[:, -1] for pool in pools], np.int32),
        "numerics": pa.array([numerics] * len(found), pa.string()),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
