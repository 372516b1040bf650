"""The second kind of question to a host: gradients of its answer, not scores of more texts.

A step asks for one row an (example, explainer). The row says which tokens of the prompt belong to
which feature, what is explained and how; the answer comes back under the row's key, so that no
table of lookups is needed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from engine.schema import ScoreTask, task_of
from engine.target import Normaliser
from engine.types import FloatCL, FloatL, FloatLF, Target

Method: TypeAlias = Literal["integrated_gradients", "gradient_x_input", "ig_occlusion"]
Baseline: TypeAlias = Literal["mean", "pad", "mask", "zero"]
BASELINES: tuple[Baseline, ...] = ("mean", "pad", "mask", "zero")

_BACKWARD_COST = 2
"""Tokens that a pass forward and backward counts as: with frozen weights each direction has the
same matrix products."""


@dataclass(frozen=True, slots=True)
class GradientAsk:
    """One row: the gradients that one explainer needs of one example.

    Attributes:
        key: Who asks (`gradient_key`); comes back with the answer.
        ids: Tokens of the full prompt [T].
        positions: Positions of each feature's tokens in `ids` [F]; the others stay as they are. A
            token that several features share is divided among them equally.
        method: What is computed.
        steps: Points of the quadrature, to begin with.
        max_steps: Most points; `steps` is doubled up to it until the values are complete.
        baseline: The embedding that stands for "no token".
        baseline_ids: Tokens whose mean embedding is the baseline `mask`; else empty.
        occlusion_steps: Equal parts in which `ig_occlusion` removes the features.
        target: What is explained of the labels' log-probabilities.
        normaliser: See `engine.target.transform`.
        calibration: Log-probabilities to subtract from the labels' [L], or None.
        floor: Completeness error that is always good enough, in the unit of the target.
    """

    key: str
    ids: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]
    method: Method
    steps: int
    max_steps: int
    baseline: Baseline
    target: Target
    floor: float
    normaliser: Normaliser = "labels"
    baseline_ids: tuple[int, ...] = ()
    occlusion_steps: int = 0
    calibration: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class GradientAnswer:
    """The answer to one row.

    Attributes:
        values: Attribution of each feature to each label [L, F].
        base: Value with every feature's tokens at the baseline [L].
        full: Value of the full prompt [L].
        steps: Points of the last quadrature; 1 for `gradient_x_input`.
        evaluations: Passes through the model, those that were not good enough included.
        tokens: Tokens of all these passes.
        converged: Whether the completeness error is within its bound for every label; True for
            `gradient_x_input`, which has none.
        curve: Values along the occlusion of `ig_occlusion` [L, occlusion_steps + 1], each label in
            its own order; else None.
        seconds: Time in the model.
    """

    values: FloatLF
    base: FloatL
    full: FloatL
    steps: int
    evaluations: int
    tokens: int
    converged: bool
    curve: FloatCL | None = None
    seconds: float = 0.0


class Gradients:
    """Answers by key, and why the others have none."""

    def __init__(self) -> None:
        self._answers: dict[str, GradientAnswer] = {}
        self._errors: dict[str, str] = {}

    def get(self, key: str) -> GradientAnswer | None:
        """Return the answer to a row, or None where there is none yet."""
        return self._answers.get(key)

    def error(self, key: str) -> str | None:
        """Return why a row could not be answered, or None."""
        return self._errors.get(key)

    def add(self, reply: pa.Table) -> None:
        """Add a table of `GRADIENT_REPLY`."""
        for row in reply.to_pylist():
            if row["error"] is not None:
                self._errors[row["key"]] = row["error"]
            else:
                self._answers[row["key"]] = _answer(row)


GRADIENT_REQUEST = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.int32()), nullable=False),
        pa.field("positions", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("max_steps", pa.int32(), nullable=False),
        pa.field("baseline", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("floor", pa.float64(), nullable=False),
        pa.field("normaliser", pa.string(), nullable=False),
        pa.field("baseline_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("occlusion_steps", pa.int32(), nullable=False),
        pa.field("calibration", pa.list_(pa.float64())),
    ]
)
"""Rows of `GradientAsk`, with a `ScoreTask` in the metadata."""

GRADIENT_REPLY = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.list_(pa.float64()))),  # [L][F], null where error
        pa.field("base", pa.list_(pa.float64())),
        pa.field("full", pa.list_(pa.float64())),
        pa.field("steps", pa.int32()),
        pa.field("evaluations", pa.int32()),
        pa.field("tokens", pa.int64()),
        pa.field("converged", pa.bool_()),
        pa.field("curve", pa.list_(pa.list_(pa.float64()))),
        pa.field("seconds", pa.float64()),
        pa.field("error", pa.string()),  # why this row could not be answered, or null
    ]
)
"""Rows of `GradientAnswer`, in the order of the request."""


def gradient_key(example: str, explainer: str) -> str:
    """Return the key of an explainer's row.

    Args:
        example: Digest of the example's input texts.
        explainer: The explainer's name in tables.
    """
    return f"{example}\x1f{explainer}"


def gradient_request(asks: Iterable[GradientAsk], task: ScoreTask) -> pa.Table:
    """Return a request table, the task in its metadata; of equal keys the first row stays."""
    rows: dict[str, dict[str, Any]] = {}
    for ask in asks:
        rows.setdefault(ask.key, dataclasses.asdict(ask))
    table = pa.Table.from_pylist(list(rows.values()), schema=GRADIENT_REQUEST)
    return table.replace_schema_metadata({"task": json.dumps(dataclasses.asdict(task))})


def read_gradient_request(request: pa.Table) -> tuple[list[GradientAsk], ScoreTask]:
    """Return the rows of a request and its task."""
    asks = []
    for row in request.to_pylist():
        row["positions"] = tuple(tuple(places) for places in row["positions"])
        for name in ("ids", "baseline_ids"):
            row[name] = tuple(row[name])
        if row["calibration"] is not None:
            row["calibration"] = tuple(row["calibration"])
        asks.append(GradientAsk(**row))
    return asks, task_of(request)


def gradient_reply(keys: Sequence[str], answers: Sequence[GradientAnswer | str]) -> pa.Table:
    """Return a reply table.

    Args:
        keys: Of the request's rows.
        answers: The answer to each row, or why it has none.
    """
    rows = [
        {"key": key, "error": answer} if isinstance(answer, str) else {"key": key, **_row(answer)}
        for key, answer in zip(keys, answers, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GRADIENT_REPLY)


def no_gradients(request: pa.Table) -> pa.Table:
    """Answer every row with an error: for hosts that only score."""
    keys = request.column("key").to_pylist()
    return gradient_reply(keys, ["this host only scores and gives no gradients"] * len(keys))


def even_gradients(request: pa.Table) -> pa.Table:
    """Answer every row with zeros, without a model: to count what would be asked."""
    asks, task = read_gradient_request(request)
    n_labels = len(task.label_ids)
    answers = []
    for ask in asks:
        passes = 2 + ask.steps + n_labels * ask.occlusion_steps
        answers.append(
            GradientAnswer(
                values=np.zeros((n_labels, len(ask.positions))),
                base=np.zeros(n_labels),
                full=np.zeros(n_labels),
                steps=ask.steps,
                evaluations=passes,
                tokens=passes * len(ask.ids),
                converged=True,
            )
        )
    return gradient_reply([ask.key for ask in asks], answers)


def expected_tokens(request: pa.Table) -> int:
    """Return about how many tokens a request costs if nothing has to be doubled."""
    asks, task = read_gradient_request(request)
    return sum(
        len(ask.ids) * (2 + _BACKWARD_COST * ask.steps + len(task.label_ids) * ask.occlusion_steps)
        for ask in asks
    )


def _row(answer: GradientAnswer) -> dict[str, Any]:
    row = {f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)}
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}


def _answer(row: dict[str, Any]) -> GradientAnswer:
    parts = {f.name: row[f.name] for f in dataclasses.fields(GradientAnswer)}
    n_labels = len(parts["base"])
    parts["values"] = np.asarray(parts["values"], dtype=np.float64).reshape(n_labels, -1)
    for name in ("base", "full", "curve"):
        if parts[name] is not None:
            parts[name] = np.asarray(parts[name], dtype=np.float64)
    return GradientAnswer(**parts)
