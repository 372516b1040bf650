"""The answers a unit has so far: one pool of raw label scores an (example, space).

A *space* says what a coalition's bits mean: the features and how a feature is removed. Values of
these pools are [log-probability of each label…, log Z, number of tokens].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from engine.gradients import Gradients
from engine.pool import CoalitionPool, keys, unpack
from engine.seeds import digest
from engine.types import BoolCF, Feature

LOOKUPS = pa.schema(
    [
        pa.field("example", pa.string(), nullable=False),  # digest of the example's input texts
        pa.field("space", pa.string(), nullable=False),
        pa.field("n_features", pa.int32(), nullable=False),
        pa.field("coalition", pa.binary(), nullable=False),
        pa.field("sequence", pa.int32(), nullable=False),  # row of the request
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("consumer", pa.string(), nullable=False),  # who asked first
        pa.field("fresh", pa.bool_(), nullable=False),  # it brought the sequence into the request
    ]
)
"""Which rows of a request answer which coalitions; kept by the steps, never sent to a host."""


def space_key(features: tuple[Feature, ...], operator: str) -> str:
    """Return the digest of a feature set and an operator."""
    spans = [[[s.field, s.start, s.end] for s in feature.spans] for feature in features]
    return digest([operator, spans])


@dataclass(slots=True)
class Answers:
    """Pools by (example key, space key), errors of coalitions, and the answers about gradients."""

    pools: dict[tuple[str, str], CoalitionPool] = field(default_factory=dict)
    errors: dict[tuple[str, str, bytes], str] = field(default_factory=dict)
    gradients: Gradients = field(default_factory=Gradients)

    def pool(self, example: str, space: str, n_features: int) -> CoalitionPool:
        """Return the pool of an (example, space), empty if nothing is known."""
        return self.pools.setdefault((example, space), CoalitionPool(n_features))

    def error(self, example: str, space: str, coalitions: BoolCF) -> str | None:
        """Return why the first of these coalitions that failed could not be scored, or None."""
        if not self.errors:
            return None
        found = (self.errors.get((example, space, key)) for key in keys(coalitions))
        return next((error for error in found if error is not None), None)

    def add_stored(self, rows: pa.Table, numerics: str, examples: Iterable[str]) -> None:
        """Add rows of the store that belong to these examples and were computed alike."""
        wanted = set(examples)
        for row in rows.to_pylist():
            if row["numerics"] != numerics or row["example"] not in wanted:
                continue
            n_features = row["n_features"]
            count = len(row["log_z"])
            width = (n_features + 7) // 8
            bits = np.frombuffer(row["coalitions"], np.uint8).reshape(count, width)
            log_probs = np.asarray(row["log_probs"], dtype=np.float32).reshape(count, -1)
            values = np.column_stack([log_probs, row["log_z"], row["tokens"]])
            self.pool(row["example"], row["space"], n_features).tell(
                unpack(bits, n_features), values
            )

    def add_round(self, lookups: pa.Table, reply: pa.Table) -> None:
        """Add the answers of one request."""
        errors = reply.column("error").to_pylist()
        n_labels = next((len(r) for r in reply.column("log_probs").to_pylist() if r), 0)
        scores = np.full((len(errors), n_labels + 1), np.nan)
        good = [i for i, error in enumerate(errors) if error is None]
        if good:
            taken = reply.take(good)
            flat = taken.column("log_probs").combine_chunks().flatten().to_numpy()
            scores[good, :n_labels] = flat.reshape(len(good), n_labels)
            scores[good, n_labels] = taken.column("log_z").to_numpy()
        for (example, space), rows in _by_space(lookups).items():
            self._add_rows(example, space, rows, scores, errors)

    def _add_rows(
        self, example: str, space: str, rows: pa.Table, scores: np.ndarray, errors: list[str | None]
    ) -> None:
        n_features = rows.column("n_features")[0].as_py()
        bits = np.frombuffer(b"".join(rows.column("coalition").to_pylist()), np.uint8)
        width = (n_features + 7) // 8
        coalitions = unpack(bits.reshape(rows.num_rows, width), n_features)
        sequence = rows.column("sequence").to_numpy()
        ok = np.array([errors[i] is None for i in sequence], dtype=bool)
        values = np.column_stack([scores[sequence], rows.column("tokens").to_numpy()])
        self.pool(example, space, n_features).tell(coalitions[ok], values[ok])
        for index in np.flatnonzero(~ok):
            key = keys(coalitions[index : index + 1])[0]
            self.errors[example, space, key] = str(errors[sequence[index]])


def _by_space(lookups: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """Return the lookups of every (example, space), in order."""
    pairs = list(
        zip(lookups.column("example").to_pylist(), lookups.column("space").to_pylist(), strict=True)
    )
    rows: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        rows.setdefault(pair, []).append(index)
    return {pair: lookups.take(indices) for pair, indices in rows.items()}


def evaluations_table(
    rounds: Iterable[tuple[pa.Table, pa.Table]], numerics: str, schema: pa.Schema
) -> pa.Table:
    """Return what the rounds of a unit add to the store, one row an (example, space, round)."""
    rows = []
    for lookups, reply in rounds:
        answers = Answers()
        answers.add_round(lookups, reply)
        for (example, space), pool in answers.pools.items():
            if not len(pool):
                continue
            values = pool.values
            rows.append(
                {
                    "example": example,
                    "space": space,
                    "n_features": pool.n_features,
                    "coalitions": np.packbits(pool.coalitions, axis=1).tobytes(),
                    "log_probs": values[:, :-2].astype(np.float32).ravel().tolist(),
                    "log_z": values[:, -2].astype(np.float32).tolist(),
                    "tokens": values[:, -1].astype(int).tolist(),
                    "numerics": numerics,
                }
            )
    return pa.Table.from_pylist(rows, schema=schema)
