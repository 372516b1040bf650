"""Every Arrow schema that crosses a boundary, with its version.

Tables of the run folder share `FACTORS` (what was varied) and `UNIT` columns; docs/run-folder.md
describes each for readers of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.ragged import Ragged

SCHEMA_VERSION = 2
"""Raised when a column changes its meaning; readers refuse another version."""

FACTORS = ("data", "model", "precision", "adapter", "prompt")
"""The factors of a sweep: columns of every result table."""

_FACTOR_FIELDS = [pa.field(name, pa.string(), nullable=False) for name in FACTORS]
_UNIT = pa.field("unit", pa.string(), nullable=False)
_EXAMPLE = pa.field("example", pa.string(), nullable=False)
_GROUP = pa.field("group", pa.string())

GAME = ("explainer", "features", "operator", "target", "class_rule")
"""What identifies an explained game and its method; rows that differ in `features`, `operator`,
`target` or `class_rule` are never compared."""

_GAME_FIELDS = [
    pa.field("explainer", pa.string(), nullable=False),  # id of the explainer in the configuration
    pa.field("features", pa.string(), nullable=False),  # words | tokens | sentences (| word_types)
    pa.field("operator", pa.string(), nullable=False),
    pa.field("target", pa.string(), nullable=False),
    # predicted | gold | label:NAME; of continuations whole | token:N
    pa.field("class_rule", pa.string(), nullable=False),
    pa.field("class_name", pa.string(), nullable=False),  # label or continuation that is explained
]

SPANS = pa.list_(
    pa.struct(
        [
            pa.field("feature", pa.int32()),
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("field", pa.string()),
        ]
    )
)
"""Spans of the features, in order; `feature` indexes `values`."""

CONTINUATION = pa.list_(
    pa.struct(
        [
            pa.field("token", pa.int32()),
            pa.field("text", pa.string()),
            pa.field("log_prob", pa.float64()),  # given the prompt and the tokens before
        ]
    )
)
"""Tokens of a continuation, in order."""

PREDICTIONS = pa.schema(
    [
        _UNIT,
        *_FACTOR_FIELDS,
        _EXAMPLE,
        _GROUP,
        pa.field("inputs", pa.string(), nullable=False),  # JSON: input field -> text
        pa.field("labels", pa.list_(pa.string()), nullable=False),  # the label set, in order
        pa.field("gold", pa.int32()),  # index into labels, null without a gold label
        pa.field("predicted", pa.int32(), nullable=False),
        pa.field("log_probs", pa.list_(pa.float64()), nullable=False),  # raw, over the vocabulary
        pa.field(
            "probabilities", pa.list_(pa.float64()), nullable=False
        ),  # as the prompt normalises
        pa.field("log_z", pa.float64()),  # full-vocabulary log normaliser, first token; or null
        pa.field("label_mass", pa.float64(), nullable=False),  # probability on the labels, 0..1
        pa.field("calibration", pa.list_(pa.float64())),  # subtracted from log_probs, or null
        pa.field("rationale", SPANS),  # feature = index of the evidence span; null without
        pa.field("rationale_kind", pa.string()),
        pa.field("tokens", pa.int32(), nullable=False),  # length of the full prompt
        pa.field("continuation", CONTINUATION),  # what is explained in place of labels, or null
        pa.field("numerics", pa.string(), nullable=False),
    ]
)

ATTRIBUTIONS = pa.schema(
    [
        _UNIT,
        *_FACTOR_FIELDS,
        _EXAMPLE,
        _GROUP,
        *_GAME_FIELDS,
        pa.field(
            "method", pa.string(), nullable=False
        ),  # lime, kernel_shap, … or lime[compat:lime]
        pa.field("masked_on", pa.string(), nullable=False),  # text | ids
        pa.field("n_features", pa.int32(), nullable=False),
        pa.field("spans", SPANS, nullable=False),
        pa.field("values", pa.list_(pa.float64()), nullable=False),  # of class_name [F]
        # [L][F]; of a continuation [T][F], a row a token
        pa.field("values_by_label", pa.list_(pa.list_(pa.float64())), nullable=False),
        pa.field("base", pa.float64(), nullable=False),
        pa.field("full_value", pa.float64(), nullable=False),  # v(all features)
        pa.field("std_error", pa.list_(pa.float64())),
        pa.field("evaluations", pa.int32(), nullable=False),  # distinct coalitions, or passes
        pa.field("residual", pa.float64()),  # additivity: v(all) − v(none) − Σ values
        pa.field("r2", pa.float64()),  # weighted R² of the surrogate
        pa.field("diagnostics", pa.string(), nullable=False),  # JSON
        pa.field("status", pa.string(), nullable=False),  # ok | no_features | not_converged
        pa.field("numerics", pa.string(), nullable=False),
    ]
)

METRICS = pa.schema(
    [
        _UNIT,
        *_FACTOR_FIELDS,
        _EXAMPLE,
        _GROUP,
        *_GAME_FIELDS,
        pa.field("metric", pa.string(), nullable=False),
        pa.field("n_removed", pa.int32()),  # size of the set of a `*_at_k` metric, else null
        pa.field("value", pa.float64()),  # null where it isn't defined (no features)
        pa.field("random", pa.float64()),  # expected value under a random order
        pa.field("definition_version", pa.int32(), nullable=False),
    ]
)

TIMINGS = pa.schema(
    [
        _UNIT,
        *_FACTOR_FIELDS,
        _EXAMPLE,
        pa.field(
            "consumer", pa.string(), nullable=False
        ),  # explainer id, `prediction`, `metrics:ID`
        pa.field("evaluations_asked", pa.int32(), nullable=False),
        pa.field(
            "evaluations_first", pa.int32(), nullable=False
        ),  # of these, not used by a consumer before this one
        pa.field("evaluations_stored", pa.int32(), nullable=False),  # of the first, from the store
        pa.field("evaluations_new", pa.int32(), nullable=False),  # brought a prompt to a host
        pa.field("tokens_asked", pa.int64(), nullable=False),
        pa.field("tokens_new", pa.int64(), nullable=False),
        pa.field(
            "host_seconds", pa.float64(), nullable=False
        ),  # marginal: its share of the scoring
        pa.field(
            "standalone_seconds", pa.float64()
        ),  # had it paid for all; null if nothing was scored
        pa.field(
            "step_seconds", pa.float64(), nullable=False
        ),  # its ask and fit in the last replay
    ]
)

FAILURES = pa.schema(
    [
        _UNIT,
        *[pa.field(name, pa.string()) for name in FACTORS],
        pa.field("example", pa.string()),
        pa.field("explainer", pa.string()),
        pa.field("stage", pa.string(), nullable=False),  # data | model | score | explain | metric
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)

RESULTS = {
    "predictions": PREDICTIONS,
    "attributions": ATTRIBUTIONS,
    "metrics": METRICS,
    "timings": TIMINGS,
    "failures": FAILURES,
}
"""The result tables of a run folder, by folder name."""

EVALUATIONS = pa.schema(
    [
        _EXAMPLE,  # digest of the example's input texts
        pa.field("space", pa.string(), nullable=False),  # digest of features and operator
        pa.field("n_features", pa.int32(), nullable=False),
        pa.field("coalitions", pa.binary(), nullable=False),  # C packed rows of ceil(F / 8) bytes
        pa.field("log_probs", pa.list_(pa.float32()), nullable=False),  # C·L, row by row
        pa.field("log_z", pa.list_(pa.float32()), nullable=False),  # C; NaN where not known
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),  # C: length of each sequence
        pa.field("numerics", pa.string(), nullable=False),
    ]
)
"""The store: one row an (example, space, round)."""

TIDY = pa.schema(
    [
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("n", pa.int64(), nullable=False),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("direction", pa.string(), nullable=False),  # higher | lower | none
        pa.field("definition_version", pa.int32(), nullable=False),
    ]
)
"""The measure columns that end every table of `tables/`; factor columns come before them."""

SCORE_REQUEST = pa.schema(
    [
        pa.field("example", pa.int32(), nullable=False),  # index of the example in its unit
        pa.field("ids", pa.list_(pa.int32()), nullable=False),  # tokens of the whole prompt
        pa.field("hidden", pa.list_(pa.int32())),  # positions whose attention is off, or null
    ]
)
SCORE_REPLY = pa.schema(
    [
        pa.field("log_probs", pa.list_(pa.float32())),  # L, null where error
        pa.field("log_z", pa.float32()),  # null where error, and where a host can't tell
        pa.field("error", pa.string()),  # why this row could not be scored, or null
    ]
)


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What a host needs besides the sequences.

    Attributes:
        label_ids: Token ids of each label, in the order of the label set.
        adapter: Digest of the adapter to switch on, or "" for the base.
        by_example: Form batches from one example's sequences at a time, so that the result doesn't
            depend on what else is in the queue.
    """

    label_ids: tuple[tuple[int, ...], ...]
    adapter: str = ""
    by_example: bool = False


@dataclass(frozen=True, slots=True)
class ScoreCost:
    """What a request cost its host.

    Attributes:
        seconds: Its share of the model's time.
        tokens_computed: Tokens that went through the model for it, padding included.
        numerics: Digest of everything that makes results differ in the last bits.
    """

    seconds: float
    tokens_computed: int
    numerics: str


def score_request(
    examples: npt.ArrayLike,
    ids: Ragged | Sequence[Sequence[int]],
    hidden: Ragged | Sequence[Sequence[int] | None] | None,
    task: ScoreTask,
) -> pa.Table:
    """Return a request table of distinct sequences, the task in its metadata.

    Args:
        examples: Index of each sequence's example in its unit.
        ids: Tokens of each prompt.
        hidden: Positions of each that nothing attends to; None if all have all.
        task: What else a host needs.
    """
    sequences = ids if isinstance(ids, Ragged) else Ragged.of(ids)
    if hidden is None:
        off: pa.Array = pa.nulls(sequences.n_rows, SCORE_REQUEST.field("hidden").type)
    else:
        rows = hidden if isinstance(hidden, Ragged) else Ragged.of(row or () for row in hidden)
        off = rows.to_arrow(empty_is_null=True)
    columns = [pa.array(np.asarray(examples, dtype=np.int32)), sequences.to_arrow(), off]
    table = pa.Table.from_arrays(columns, schema=SCORE_REQUEST)
    return table.replace_schema_metadata({"task": _dump(task)})


def task_of(request: pa.Table) -> ScoreTask:
    """Return the task in a request's metadata."""
    fields = json.loads(request.schema.metadata[b"task"])
    fields["label_ids"] = tuple(tuple(ids) for ids in fields["label_ids"])
    return ScoreTask(**fields)


def score_reply(
    log_probs: npt.NDArray[np.float32],
    log_z: npt.NDArray[np.float32],
    errors: Mapping[int, str],
    cost: ScoreCost,
) -> pa.Table:
    """Return a reply table, one row a row of the request, the cost in its metadata.

    Args:
        log_probs: [S, L].
        log_z: [S]; NaN where it isn't known.
        errors: Row -> why it could not be scored; such a row has nulls for scores.
        cost: Of the whole request.
    """
    n_rows, n_labels = log_probs.shape
    failed = np.zeros(n_rows, dtype=bool)
    failed[list(errors)] = True
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(n_rows + 1) * n_labels, pa.int32()),
        pa.array(np.ascontiguousarray(log_probs).ravel(), pa.float32()),
        mask=pa.array(failed) if n_rows else None,
    )
    messages = pa.array([errors.get(i) for i in range(n_rows)], pa.string()) if errors else None
    columns = [
        lists,
        pa.array(log_z, pa.float32(), mask=failed | np.isnan(log_z)),
        pa.nulls(n_rows, pa.string()) if messages is None else messages,
    ]
    table = pa.Table.from_arrays(columns, schema=SCORE_REPLY)
    return table.replace_schema_metadata({"cost": _dump(cost)})


def cost_of(reply: pa.Table) -> ScoreCost:
    """Return the cost in a reply's metadata."""
    return ScoreCost(**json.loads(reply.schema.metadata[b"cost"]))


def rows_to_table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return `rows` as a table of exactly `schema`, its version in the metadata.

    Raises:
        ValueError: A row has a column that the schema has not.
    """
    names = set(schema.names)
    for row in rows:
        if unknown := set(row) - names:
            raise ValueError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    # the longer way takes as long for no row as for one
    table = pa.Table.from_pylist(list(rows), schema=schema) if rows else schema.empty_table()
    return table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})


def _dump(value: ScoreTask | ScoreCost) -> str:
    return json.dumps({name: getattr(value, name) for name in value.__slots__})
