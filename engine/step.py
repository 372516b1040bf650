"""One step of a unit: from the answers so far to the next request, or to the unit's results.

A step is a pure function of its arguments: it can be run again, anywhere, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import schema
from engine.answers import (
    Answers,
    Lookup,
    consumer_key,
    evaluations_table,
    lookups_table,
    read_lookups,
)
from engine.context import StepContext, Unit
from engine.continuations import continued
from engine.data import example_key
from engine.errors import ExampleError
from engine.generations import GenerationAsk, generation_request, no_generations
from engine.gradients import gradient_key, gradient_request, no_gradients
from engine.masking import MaskedInputs
from engine.pool import CoalitionPool, first_rows
from engine.ragged import Ragged, concatenate, distinct, side_by_side
from engine.results import UnitResult
from engine.rows import failure_rows
from engine.session import GENERATION, Session, sessions
from engine.store import read_parts
from engine.target import normalise
from engine.tokens import load_tokenizer
from engine.types import Example, FloatL


class Round(NamedTuple):
    """An answered request: which rows answer what, and the host's replies.

    Attributes:
        lookups: What the rows of the scores answer.
        reply: The scores.
        gradients: A table of `engine.gradients.GRADIENT_REPLY`, or None where none were asked.
        generations: A table of `engine.generations.GENERATION_REPLY`, or None the same.
    """

    lookups: pa.Table
    reply: pa.Table
    gradients: pa.Table | None = None
    generations: pa.Table | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepOutput:
    """Either a request with its lookups, or the results.

    Attributes:
        request: For a host (`engine.schema.SCORE_REQUEST`), or None if the unit is done.
        lookups: What the rows of the request answer; given back with the reply.
        result: The unit's results, or None.
        gradients: Asked in the same round (`engine.gradients.GRADIENT_REQUEST`), or None.
        generations: Asked before any score (`engine.generations.GENERATION_REQUEST`), or None.
    """

    request: pa.Table | None
    lookups: pa.Table | None
    result: UnitResult | None
    gradients: pa.Table | None = None
    generations: pa.Table | None = None


def step(
    context: StepContext, unit: Unit, attempt: int, numerics: str, rounds: Sequence[Round]
) -> StepOutput:
    """Replay a unit on all its answers.

    Args:
        context: Of the unit's pair.
        unit: The unit.
        attempt: From 1; goes into the commit.
        numerics: The host's numerics; stored evaluations of others are not used.
        rounds: The answered requests so far, in order.
    """
    if not unit.explain:
        context = replace(context, explainers=())
    tokenizer = load_tokenizer(context.tokenizer)
    answers = Answers()
    if context.generation is not None:
        for texts in (answered.generations for answered in rounds):
            if texts is not None:
                answers.generations.add(texts)
        try:
            found = continued(context, unit, tokenizer, answers.generations)
        except ExampleError as error:
            result = _result(context, unit, attempt, numerics, [], rounds, error)
            return StepOutput(None, None, result)
        if isinstance(found, GenerationAsk):
            request, lookups = _request(context, [])
            texts = generation_request([found], schema.task_of(request))
            return StepOutput(request, lookups, None, None, texts)
        context = found
    if unit.stored:
        known = {example_key(e.fields) for e in (*unit.examples, *content_free_examples(context))}
        answers.add_stored(
            read_parts(context.store, unit.stored), numerics, known, context.store_suffix
        )
    for lookups, reply, gradients, _ in rounds:
        answers.add_round(lookups, reply)
        if gradients is not None:
            answers.gradients.add(gradients)

    blanks = sessions(
        content_free_examples(context), _only_prediction(context), tokenizer, answers, None
    )
    if broken := [row for s in blanks for row in s.failures]:
        message = f"content-free text of the calibration: {broken[0]['message']}"
        return StepOutput(None, None, failed_unit(context, unit, attempt, "calibration", message))
    calibration = _calibration(blanks)
    asking = [s for s in blanks if s.asking]
    replayed: list[Session] = []
    if not asking:
        replayed = sessions(unit.examples, context, tokenizer, answers, calibration)
        asking = [s for s in replayed if s.asking]
    if asking:
        request, lookups = _request(context, asking)
        asks = [ask for session in asking for ask in session.gradient_asks]
        gradients = gradient_request(asks, schema.task_of(request)) if asks else None
        return StepOutput(request, lookups, None, gradients)
    result = _result(context, unit, attempt, numerics, replayed, rounds)
    return StepOutput(None, None, result)


def run_in_process(
    context: StepContext,
    unit: Unit,
    numerics: str,
    score: Callable[[pa.Table], pa.Table],
    gradients: Callable[[pa.Table], pa.Table] = no_gradients,
    generate: Callable[[pa.Table], pa.Table] = no_generations,
) -> UnitResult:
    """Run a unit to its results in this process.

    Args:
        context: Of the unit's pair.
        unit: The unit.
        numerics: The host's.
        score: A host's `score`.
        gradients: A host's `gradients`; without them gradient explainers fail example by example.
        generate: A host's `generate`; without it the model's own continuations fail the same.
    """
    rounds: list[Round] = []
    while True:
        output = step(context, unit, 1, numerics, rounds)
        if output.result is not None:
            return output.result
        assert output.request is not None
        assert output.lookups is not None
        slopes = None if output.gradients is None else gradients(output.gradients)
        texts = None if output.generations is None else generate(output.generations)
        rounds.append(Round(output.lookups, score(output.request), slopes, texts))


def _request(context: StepContext, asking: Sequence[Session]) -> tuple[pa.Table, pa.Table]:
    """Gather all asks into one request of distinct sequences an example."""
    lookups: list[Lookup] = []
    ids: list[Ragged] = []
    hidden: list[Ragged] = []
    n_rows = 0
    for session in asking:
        sequences, off, rows, first_ask = _gather([ask.masked for ask in session.asks])
        lookups += _lookups(session, sequences.lengths, rows, first_ask, n_rows)
        ids.append(sequences)
        hidden.append(off)
        n_rows += sequences.n_rows
    task = schema.ScoreTask(
        tuple(tuple(t) for t in context.labels.token_ids),
        context.adapter,
        context.by_example,
    )
    examples = np.repeat(np.arange(len(ids)), [sequences.n_rows for sequences in ids])
    off = concatenate(hidden)
    request = schema.score_request(examples, concatenate(ids), off if len(off.flat) else None, task)
    return request, lookups_table(lookups)


class _Gathered(NamedTuple):
    """The distinct sequences of several asks.

    Attributes:
        sequences: [D].
        hidden: Positions of each that nothing attends to [D].
        rows: For each ask, which of these belongs to each coalition [C].
        first_ask: The ask that has each sequence first [D].
    """

    sequences: Ragged
    hidden: Ragged
    rows: list[npt.NDArray[np.int64]]
    first_ask: npt.NDArray[np.int64]


def _gather(asks: Sequence[MaskedInputs]) -> _Gathered:
    sequences = concatenate([masked.sequences for masked in asks])
    counts = [masked.sequences.n_rows for masked in asks]
    starts = np.cumsum([0, *counts])
    of_ask = np.repeat(np.arange(len(asks)), counts)
    hidden = concatenate([masked.hidden or _no_rows(masked.sequences.n_rows) for masked in asks])
    if len(asks) == 1:
        return _Gathered(sequences, hidden, [asks[0].row], of_ask)
    # a hidden position is told apart from a token by its sign; none hidden is the plain sequence
    marked = hidden._replace(flat=-2 - hidden.flat)
    found = distinct(side_by_side(sequences, marked) if len(hidden.flat) else sequences)
    if len(found.first) < len(of_ask):
        sequences, hidden = sequences.take(found.first), hidden.take(found.first)
    rows = [
        found.which[start + masked.row] for start, masked in zip(starts[:-1], asks, strict=True)
    ]
    return _Gathered(sequences, hidden, rows, of_ask[found.first])


def _lookups(
    session: Session,
    lengths: npt.NDArray[np.int64],
    rows: Sequence[npt.NDArray[np.int64]],
    first_ask: npt.NDArray[np.int64],
    base: int,
) -> Iterator[Lookup]:
    """Yield the lookups of a session's asks, each coalition where it is asked for first.

    Args:
        session: Whose asks they are.
        lengths: Tokens of each of its distinct sequences [D].
        rows: For each ask, the sequence of each coalition [C].
        first_ask: The ask that brought each sequence [D].
        base: Row of its first sequence in the request.
    """
    asked: dict[str, CoalitionPool] = {}
    for number, (ask, row) in enumerate(zip(session.asks, rows, strict=True)):
        space = ask.space
        known = asked.setdefault(space.key, CoalitionPool(space.n_features))
        new = known.new_rows(ask.coalitions)
        known.tell(ask.coalitions[new], np.zeros(len(new)))
        if not len(new):
            continue
        row = row[new]
        fresh = np.zeros(len(row), dtype=bool)
        fresh[first_rows(row)] = True
        fresh &= first_ask[row] == number
        consumer = consumer_key(session.example.id, ask.consumer)
        yield Lookup(
            session.key,
            space.key,
            ask.coalitions[new],
            base + row,
            lengths[row],
            fresh,
            consumer,
        )


def _no_rows(count: int) -> Ragged:
    return Ragged(np.zeros(0, dtype=np.int32), np.zeros(count + 1, dtype=np.int64))


def _result(
    context: StepContext,
    unit: Unit,
    attempt: int,
    numerics: str,
    replayed: Sequence[Session],
    rounds: Sequence[Round],
    refused: ExampleError | None = None,
) -> UnitResult:
    rows: dict[str, list[dict[str, Any]]] = {
        name: [row for s in replayed for row in getattr(s, name)]
        for name in ("predictions", "attributions", "metrics", "failures")
    }
    for name in ("predictions", "attributions"):
        for row in rows[name]:
            row["numerics"] = numerics
    if refused is not None:
        rows["failures"] = failure_rows(context.factors, unit, "score", refused)
    rows["timings"] = _timings(context, replayed, rounds)
    for table in rows.values():
        for row in table:
            row["unit"] = unit.id
    tables = {name: schema.rows_to_table(rows[name], s) for name, s in schema.RESULTS.items()}
    scored = [(answered.lookups, answered.reply) for answered in rounds]
    suffix = context.store_suffix
    evaluations = evaluations_table(scored, numerics, schema.EVALUATIONS, suffix)
    return UnitResult(unit.id, attempt, tables, evaluations)


def _timings(
    context: StepContext, replayed: Sequence[Session], rounds: Sequence[Round]
) -> list[dict[str, Any]]:
    """Share the rounds' cost among the consumers that caused it, by their tokens."""
    new: dict[str, tuple[int, int, float]] = {}
    all_tokens, all_seconds = 0, 0.0
    for lookups, reply, *_ in rounds:
        cost = schema.cost_of(reply)
        brought = [(ask.consumer, ask.tokens[ask.fresh]) for ask in read_lookups(lookups)]
        total = max(sum(int(tokens.sum()) for _, tokens in brought), 1)
        all_tokens += total
        all_seconds += cost.seconds
        for consumer, of_ask in brought:
            count, tokens, seconds = new.get(consumer, (0, 0, 0.0))
            own = int(of_ask.sum())
            new[consumer] = (
                count + len(of_ask),
                tokens + own,
                seconds + cost.seconds * own / total,
            )
    rows = []
    charged: set[str] = set()  # answers that are no scores; equal texts share one
    for session in replayed:
        for consumer, usage in session.usage.items():
            key = consumer_key(session.example.id, consumer)
            count, tokens, seconds = new.get(key, (0, 0, 0.0))
            alone = all_seconds / all_tokens * usage.tokens if all_tokens else None
            asked = gradient_key(session.key, consumer)
            if (beside := _cost_beside(session, consumer)) is not None:
                alone = beside[2]
                if asked not in charged:
                    charged.add(asked)
                    count, tokens, seconds = beside
            rows.append(
                {
                    **context.factors,
                    "example": session.example.id,
                    "consumer": consumer,
                    "evaluations_asked": usage.evaluations,
                    "evaluations_first": usage.first,
                    "evaluations_stored": usage.stored,
                    "evaluations_new": count,
                    "tokens_asked": usage.tokens,
                    "tokens_new": tokens,
                    "host_seconds": seconds,
                    "standalone_seconds": alone,
                    "step_seconds": usage.seconds,
                }
            )
    return rows


def _cost_beside(session: Session, consumer: str) -> tuple[int, int, float] | None:
    """Return evaluations, tokens and seconds of a consumer whose answer is no score."""
    if consumer == GENERATION:
        text = session.answers.generations.get(session.key)
        return None if text is None else (1, text.tokens, text.seconds)
    found = session.answers.gradients.get(gradient_key(session.key, consumer))
    return None if found is None else (found.evaluations, found.tokens, found.seconds)


def content_free_examples(context: StepContext) -> tuple[Example, ...]:
    """Return the calibration's texts as examples, every input replaced."""
    return tuple(
        Example(f"content_free:{text}", dict.fromkeys(context.template.variables, text))
        for text in context.content_free
    )


def _only_prediction(context: StepContext) -> StepContext:
    return replace(context, explainers=(), content_free=())


def _calibration(blanks: Sequence[Session]) -> FloatL | None:
    """Return the log of the labels' mean probabilities given content-free text [L].

    Zhao et al. 2021, "Calibrate Before Use", section 5: W = diag(p_cf)^−1, b = 0.
    """
    scored = [s.predictions[0]["log_probs"] for s in blanks if s.predictions]
    if not scored:
        return None
    return np.log(np.exp(normalise(np.asarray(scored))).mean(axis=0))


def failed_unit(
    context: StepContext, unit: Unit, attempt: int, code: str, message: str
) -> UnitResult:
    """Return the results of a unit that was given up: a failure row for each of its examples."""
    rows = failure_rows(context.factors, unit, "unit", ExampleError(code, message))
    tables = {name: s.empty_table() for name, s in schema.RESULTS.items()}
    tables["failures"] = schema.rows_to_table(rows, schema.FAILURES)
    return UnitResult(unit.id, attempt, tables, None, failed=True)
