"""One example of a unit, replayed: what it still has to ask, or all its result rows.

A session holds no state of its own between steps. Each step builds it anew and lets the prediction
and the explainers ask from the pools of known answers. Once none of a unit's misses anything, they
are fitted, and their metrics ask or finish: so an explainer is fitted in the last two steps of its
unit, however many calls another one takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.answers import Answers, space_key
from engine.context import Continuation, ExplainerTask, StepContext
from engine.continuations import token_probabilities, token_values
from engine.data import example_key, shown_key
from engine.errors import ExampleError
from engine.explainers import GradientMethod, build, build_method
from engine.features import LIME_SPLIT, split_features
from engine.gradient_session import explain_by_gradients
from engine.gradients import GradientAsk
from engine.guard import Guard
from engine.guests.names import is_guest
from engine.guests.run import explain_guest
from engine.guests.texts import TextSpace
from engine.masking import MaskedOn, Masker, Operator, masked_on
from engine.metrics.faithfulness import Baseline, Faithfulness
from engine.not_a_number import failure_code
from engine.perturbation_session import explain_by_coalitions
from engine.pool import CoalitionPool
from engine.rows import attribution_row, continuation_row, prediction_row
from engine.seeds import derive
from engine.spaces import Ask, Space, Usage
from engine.target import normalise, transform
from engine.tokens import Tokenizer
from engine.types import Attribution, BoolCF, Example, Feature, FloatCL

PREDICTION = "prediction"
GENERATION = "generation"


@dataclass(slots=True)
class Session:
    """The replay of one example.

    Args:
        example: The example.
        context: Of the pair.
        tokenizer: The pair's tokenizer.
        answers: All answers so far.
        calibration: Log-probabilities to subtract [L], or None.

    Attributes:
        key: Digest of the example's input texts: what answers are known by.
        drawn_by: Digest of those that the prompt shows, which coalitions are drawn by.
    """

    example: Example
    context: StepContext
    tokenizer: Tokenizer
    answers: Answers
    calibration: FloatCL | None = None
    key: str = ""
    drawn_by: str = ""
    spaces: dict[tuple[str, str, bool], Space] = field(default_factory=dict)
    space_of_task: dict[tuple[str, bool, str], Space] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    gradient_asks: list[GradientAsk] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    attributions: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)
    seen: dict[str, CoalitionPool] = field(default_factory=dict)
    ready: list[tuple[ExplainerTask, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        fields = self.example.fields
        self.key = example_key(fields)
        self.drawn_by = shown_key(fields, self.context.template.variables)

    def run(self) -> list[Ask]:
        """Replay what is asked before any fit; return what is missing, nothing if all is there."""
        with self._guard("score", None):
            space = self._space("", (), Operator("delete"), "text")
            known = self._need(PREDICTION, space, space.full)
            self._explain_all(known)
        return self.asks

    @property
    def asking(self) -> bool:
        """Whether something is missing."""
        return bool(self.asks or self.gradient_asks)

    def finish(self) -> None:
        """Add the explainers' rows and those of their metrics, or ask what these miss.

        After a `run` that missed nothing.
        """
        for task, report in self.ready:
            with self._guard("explain", task.label):
                report()

    def _explain_all(self, scores: CoalitionPool | None) -> None:
        raw = None
        if scores is not None:
            raw = scores.lookup(np.ones((1, 0), dtype=bool))[0]
            self._predict(raw)
        for task in self.context.explainers:
            with self._guard("explain", task.label):
                self._explain(task, raw)

    def _explain(self, task: ExplainerTask, raw: FloatCL | None) -> None:
        started = time.perf_counter()
        if task.class_rule == "gold" and self.example.label is None:
            raise ExampleError("no_gold_label", "class: gold, but the example has no label")
        if is_guest(task.name):
            explain_guest(self, task, raw)
            return
        space = self._space_of(task)
        explainer = build_method(task.name, **{**task.params, "seed": self._seed(task, space)})
        if isinstance(explainer, GradientMethod):
            explain_by_gradients(self, task, explainer, space, raw)
            return
        explain_by_coalitions(self, task, explainer, space, raw, started)

    def _report(
        self,
        task: ExplainerTask,
        space: Space,
        attribution: Attribution,
        label: int,
        full_value: float,
    ) -> None:
        self._attribution_row(task, space, attribution, label, full_value)
        with self._guard("metric", task.label):
            self._measure(task, space, attribution, label)

    def _measure(
        self, task: ExplainerTask, space: Space, attribution: Attribution, label: int
    ) -> None:
        if self.context.faithfulness is None:
            return
        started = time.perf_counter()
        plan = self.context.faithfulness
        seed = derive("random_orders", self.context.seed, self.drawn_by, space.key)
        baseline = self._baseline(task, space)
        metric = Faithfulness(plan.fractions, plan.random_orders, plan.curve_points, seed, baseline)
        ranking = attribution.values[label]
        pool = self._pool(space, self._probabilities)
        consumer = f"metrics:{task.label}"
        missing = metric.ask(pool, ranking)
        if len(missing):
            self._ask(consumer, space, missing)
            return
        rows = metric.fit(pool, ranking, label)
        used = metric.asked(ranking)
        self._use(consumer, space, used, time.perf_counter() - started)
        for row in rows:
            self.metrics.append(
                {
                    **self._game(task, label),
                    "metric": row.metric,
                    "n_removed": row.n_removed,
                    "value": row.value,
                    "random": row.random,
                    "definition_version": row.definition_version,
                }
            )

    def _seed(self, task: ExplainerTask, space: Space) -> int:
        return task.coalition_seed(self.drawn_by, space.key)

    def _baseline(self, task: ExplainerTask, space: Space) -> Baseline | None:
        """Return the pool of the task's space that its metrics find, if there is one."""
        # a guest's features may have our names and be others: then it has another pool
        pooled = [
            t
            for t in self.context.explainers
            if t.pooled and t.space == task.space and self._space_of(t).key == space.key
        ]
        seeds = {t.seed: self._seed(t, space) for t in pooled[:1]}
        samples = [
            build(t.name, **t.params).pool_samples(space.n_features)
            for t in pooled
            if t.seed in seeds and space.n_features
        ]
        largest = max(samples, default=0)
        return Baseline(seeds[pooled[0].seed], largest) if largest else None

    def _predict(self, raw: FloatCL) -> None:
        if self.context.continuation is not None:
            self._note_continuation(self.context.continuation, raw)
            return
        scaled = self._calibrated(raw[None, :-2])
        probabilities = transform(scaled, "probability", self.context.normaliser)[0]
        space = self._space("", (), Operator("delete"), "text")
        self._use(PREDICTION, space, space.full, 0.0)
        names = self.context.labels.names
        row = prediction_row(self.example, names, raw, probabilities, self.calibration)
        self.predictions.append({**self._identity(), **row})

    def _note_continuation(self, continuation: Continuation, raw: FloatCL) -> None:
        space = self._space("", (), Operator("delete"), "text")
        self._use(PREDICTION, space, space.full, 0.0)
        if (own := self.answers.generations.get(self.key)) is not None:
            self.usage[GENERATION] = Usage(evaluations=1, first=1, tokens=own.tokens)
        row = continuation_row(self.example, continuation, raw, token_values(raw[None, :-2])[0])
        self.predictions.append({**self._identity(), **row})

    def _attribution_row(
        self,
        task: ExplainerTask,
        space: Space,
        attribution: Attribution,
        label: int,
        full_value: float,
    ) -> None:
        game = self._game(task, label)
        n_labels = len(self.context.labels.names)
        row = attribution_row(task.method, space, attribution, label, full_value, n_labels)
        self.attributions.append({**game, **row})

    def _class(self, task: ExplainerTask, raw: FloatCL) -> int:
        rule = task.class_rule
        if self.context.continuation is not None:
            return self.context.continuation.column(rule)
        if rule == "predicted":
            return int(np.argmax(self._calibrated(raw[None, :-2])[0]))
        if rule == "gold":
            assert self.example.label is not None
            return self.example.label
        return self.context.labels.names.index(rule.removeprefix("label:"))

    def _value(self, raw: FloatCL, task: ExplainerTask) -> FloatCL:
        if self.context.continuation is not None:
            return token_values(raw[:, :-2])
        return transform(self._calibrated(raw[:, :-2]), task.target, self.context.normaliser)

    def _probabilities(self, raw: FloatCL) -> FloatCL:
        if self.context.continuation is not None:
            return token_probabilities(raw[:, :-2])
        return transform(self._calibrated(raw[:, :-2]), "probability", self.context.normaliser)

    def _calibrated(self, log_probs: FloatCL) -> FloatCL:
        return log_probs if self.calibration is None else normalise(log_probs - self.calibration)

    def _space_of(self, task: ExplainerTask) -> Space:
        index = (task.features, task.bag_of_words, task.operator_name)
        if index not in self.space_of_task:
            self.space_of_task[index] = self._make_space(task)
        return self.space_of_task[index]

    def _make_space(self, task: ExplainerTask) -> Space:
        features = split_features(
            self.example.fields,
            task.features,
            bag_of_words=task.bag_of_words,
            split_expression=LIME_SPLIT if task.bag_of_words else None,
            template=self.context.template,
            tokenizer=self.tokenizer,
        )
        on = masked_on(task.features, task.operator)
        return self._space(task.operator_name, features, self._operator(task), on)

    def _operator(self, task: ExplainerTask) -> Operator:
        return Operator(
            task.operator,
            task.replacement or "",
            keep_separators=task.compat is not None and task.operator == "delete",
        )

    def _space(
        self, name: str, features: tuple[Feature, ...], operator: Operator, on: MaskedOn
    ) -> Space:
        key = space_key(features, f"{name}/{on}" if features else "")
        index = (key, on, operator.keep_separators)
        if index not in self.spaces:
            masker = Masker(
                self.context.template,
                self.tokenizer,
                self.example.fields,
                features,
                operator,
                on,
                self.context.max_tokens,
            )
            self.spaces[index] = Space(key, features, masker)
        return self.spaces[index]

    def _pool(self, space: Space, value: Callable[[FloatCL], FloatCL]) -> CoalitionPool:
        return self.answers.pool(self.key, space.key, space.n_features).map(value)

    def _need(self, consumer: str, space: Space, coalitions: BoolCF) -> CoalitionPool | None:
        """Return the raw pool if it has these coalitions, else ask for them."""
        pool = self.answers.pool(self.key, space.key, space.n_features)
        missing = pool.missing(coalitions)
        if len(missing):
            self._ask(consumer, space, missing)
            return None
        return pool

    def _ask(self, consumer: str, space: Space | TextSpace, coalitions: BoolCF) -> None:
        error = self.answers.error(self.key, space.key, coalitions)
        if error is not None:
            raise ExampleError(failure_code(error, "not_scored"), error)
        masked = space.masker.apply(coalitions)
        self.asks.append(Ask(consumer, space, coalitions, masked))

    def usage_of(self, consumer: str) -> Usage:
        """Return what a consumer used so far, to be added to."""
        return self.usage.setdefault(consumer, Usage())

    def _use(self, consumer: str, space: Space | TextSpace, used: BoolCF, seconds: float) -> None:
        usage = self.usage_of(consumer)
        pool = self.answers.pool(self.key, space.key, space.n_features)
        seen = self.seen.setdefault(space.key, CoalitionPool(space.n_features))
        first = seen.missing(used)
        seen.tell(first, np.zeros(len(first)))
        usage.first += len(first)
        usage.stored += int((pool.rows(first) < self.answers.stored(self.key, space.key)).sum())
        usage.evaluations += len(used)
        usage.tokens += int(pool.lookup(used)[:, -1].sum())
        usage.seconds += seconds

    def _identity(self) -> dict[str, Any]:
        return {**self.context.factors, "example": self.example.id, "group": self.example.group}

    def _game(self, task: ExplainerTask, label: int) -> dict[str, Any]:
        return {
            **self._identity(),
            "explainer": task.label,
            "features": task.feature_space,
            "operator": task.operator_name,
            "target": task.target,
            "class_rule": task.class_rule,
            "class_name": self.context.names[label],
        }

    def _guard(self, stage: str, explainer: str | None) -> Guard:
        about = {**self.context.factors, "example": self.example.id}
        return Guard(self.failures, about, stage, explainer)


def sessions(
    examples: Iterator[Example] | tuple[Example, ...],
    context: StepContext,
    tokenizer: Tokenizer,
    answers: Answers,
    calibration: FloatCL | None,
) -> list[Session]:
    """Return a replayed session of every example, finished if none of them misses anything."""
    made = [Session(e, context, tokenizer, answers, calibration) for e in examples]
    for session in made:
        session.run()
    if not any(session.asking for session in made):
        for session in made:
            session.finish()
    return made
