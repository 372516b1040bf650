"""One guest in the replay of an example: a part of `engine.session`, split off by concept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.answers import consumer_key, read_lookups
from engine.context import ExplainerTask
from engine.errors import ConfigError, ExampleError
from engine.guests.explanation import Explanation, Game, checked, features_of
from engine.guests.names import MAX_EVALUATIONS, arguments, asks, game_of, is_builtin, load
from engine.guests.replay import advance
from engine.guests.stack import Body, Query, Stack
from engine.guests.texts import TextMasker, TextSpace, text_rows, text_space_key
from engine.masking import masked_on
from engine.pool import keys, unpack
from engine.seeds import digest
from engine.types import Attribution, BoolCF, FloatCL, FloatL

if TYPE_CHECKING:
    from engine.session import Session
    from engine.spaces import Space


def explain_guest(session: Session, task: ExplainerTask, raw: FloatL | None) -> None:
    """Move a guest on; ask for what it lacks, or leave its rows to be added.

    Args:
        session: The replay of the example.
        task: The explainer.
        raw: Raw scores of the full prompt, or None where they are not known yet.
    """
    try:
        function = load(task.name)
        if asks(task.name) == "coalitions":
            _Coalitions(session, task, function).explain(raw)
        else:
            _Texts(session, task, function).explain(raw)
    except ConfigError as error:  # on a node that lacks the module
        raise ExampleError("guest_missing", str(error)) from None


class _Guest(ABC):
    """What both kinds of guests share.

    Attributes:
        task: With the game's names as tables give them.
        space_key: Of the pool its rows stand in.
        width: Bits of a row.
    """

    space_key: str
    width: int

    def __init__(self, session: Session, task: ExplainerTask, function: Callable[..., Any]) -> None:
        self.session = session
        self.task = task
        self.function = function
        self.labels = session.context.names
        self.seed = task.seed % 2**32
        self.arguments = arguments(function, task.params, self.seed)

    def explain(self, raw: FloatL | None) -> None:
        session, task = self.session, self.task
        stack = self._advance(raw)
        if stack.pending is not None:
            self._ask(stack.pending)
            return
        if raw is not None:
            session.ready.append((task, lambda: self._report(stack, raw)))

    def _report(self, stack: Stack, raw: FloatL) -> None:
        session = self.session
        space, explanation = self._explained(stack.result)
        task = self.task
        used = unpack(_packed(list(stack.asked), self.width), self.width)
        session._use(task.label, self._asked_space({}), used, stack.seconds)
        _know_full(session, space, raw)
        full_L = session._value(raw[None], task)[0]
        label = session._class(task, raw)
        attribution = _attribution(explanation, full_L, len(used))
        session._report(task, space, attribution, label, float(full_L[label]))

    def _advance(self, raw: FloatL | None) -> Stack:
        session, task = self.session, self.task
        known = session.answers.pool(session.key, self.space_key, self.width)
        if raw is not None:
            known.tell(self._full_row(), raw[None])
        valued = known.map(lambda scores: session._value(scores, task))

        def answer(rows: BoolCF) -> FloatCL | None:
            if not len(rows):
                return np.zeros((0, len(self.labels)))
            return None if len(valued.missing(rows)) else valued.lookup(rows)

        return advance(
            digest([task.label, task.target, self.seed, list(self.labels), *self._inputs()]),
            self._body(),
            self.seed,
            answer,
            lambda: _asked_earlier(session, self.space_key, task.label),
            int(task.params.get("max_evaluations", MAX_EVALUATIONS)),
        )

    def _ask(self, query: Query) -> None:
        texts = {}
        if query.texts is not None:
            texts = dict(zip(keys(query.rows), query.texts, strict=True))
        pool = self.session.answers.pool(self.session.key, self.space_key, self.width)
        missing = pool.missing(query.rows)
        self.session._ask(self.task.label, self._asked_space(texts), missing)

    def _inputs(self) -> list[Any]:
        """Return what the guest is given but values, as JSON."""
        return [self.task.name, repr(sorted(self.arguments.items()))]

    @abstractmethod
    def _full_row(self) -> BoolCF:
        """Return the row [1, width] of the full text, which the prediction has paid for."""

    @abstractmethod
    def _body(self) -> Body:
        """Return what runs on the guest's stack."""

    @abstractmethod
    def _asked_space(self, texts: dict[bytes, str]) -> Any:
        """Return the space in which the guest's rows are asked."""

    @abstractmethod
    def _explained(self, result: Any) -> tuple[Space, Explanation]:
        """Return the features of what the guest returned, and its checked explanation."""


class _Coalitions(_Guest):
    """A guest over our features and operator: it shares the pool of our own explainers."""

    def __init__(self, session: Session, task: ExplainerTask, function: Callable[..., Any]) -> None:
        super().__init__(session, task, function)
        self.space = session._space_of(task)
        self.space_key, self.width = self.space.key, self.space.n_features

    def _inputs(self) -> list[Any]:
        return [*super()._inputs(), self.session.key, self.space_key, self.width]

    def _full_row(self) -> BoolCF:
        return self.space.full

    def _body(self) -> Body:
        def body(ask: Callable[[Query], FloatCL]) -> Any:
            def value(coalitions: BoolCF) -> FloatCL:
                rows = np.array(coalitions, dtype=bool)
                if rows.ndim != 2 or rows.shape[1] != self.width:
                    raise ValueError(f"coalitions have the shape [n, {self.width}]")
                return ask(Query(rows, None))

            return self.function(self.width, value, self.labels, **self.arguments)

        return body

    def _asked_space(self, texts: dict[bytes, str]) -> Space:
        return self.space

    def _explained(self, result: Any) -> tuple[Space, Explanation]:
        return self.space, checked(result, len(self.labels), self.width, 0)


class _Texts(_Guest):
    """A guest that splits and masks one input field by itself."""

    def __init__(self, session: Session, task: ExplainerTask, function: Callable[..., Any]) -> None:
        super().__init__(session, task, function)
        self.field = _field(session, task)
        self.text = session.example.fields[self.field]
        self.space_key, self.width = text_space_key(self.field), len(text_rows([""])[0])
        self.operator, self.removal = task.operator_name, session._operator(task)
        if is_builtin(task.name):
            game: Game = game_of(task.name, task.params)
            self.task = replace(task, game=(game.features, game.operator))
            self.operator, self.removal = game.operator, game.removal

    def _inputs(self) -> list[Any]:
        return [*super()._inputs(), self.session.key, self.field]

    def _full_row(self) -> BoolCF:
        return text_rows([self.text])

    def _body(self) -> Body:
        def body(ask: Callable[[Query], FloatCL]) -> Any:
            def predict(texts: Sequence[str]) -> FloatCL:
                if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                    raise TypeError("predict takes a list of strings")
                given = tuple(map(str, texts))
                return ask(Query(text_rows(given), given))

            return self.function(self.text, predict, self.labels, **self.arguments)

        return body

    def _asked_space(self, texts: dict[bytes, str]) -> TextSpace:
        session = self.session
        masker = TextMasker(
            session.context.template,
            session.tokenizer,
            session.example.fields,
            self.field,
            session.context.max_tokens,
            texts,
        )
        return TextSpace(self.space_key, masker)

    def _explained(self, result: Any) -> tuple[Space, Explanation]:
        explanation = checked(result, len(self.labels), None, len(self.text))
        features = features_of(explanation.spans, self.text, self.field)
        on = masked_on(self.task.features, self.removal.name)
        return self.session._space(self.operator, features, self.removal, on), explanation


def _field(session: Session, task: ExplainerTask) -> str:
    variables = session.context.template.variables
    field = task.params.get("field") or variables[0]
    if field not in variables:
        raise ExampleError(
            "missing_field",
            f"{task.label} explains the field {field!r}, the prompt has {list(variables)}",
        )
    return str(field)


def _know_full(session: Session, space: Space, raw: FloatL) -> None:
    """Enter the prediction as the value of the full coalition: it is the same prompt."""
    session.answers.pool(session.key, space.key, space.n_features).tell(space.full, raw[None])


def _asked_earlier(session: Session, space: str, consumer: str) -> set[bytes]:
    """Return the keys of the rows a consumer was the first to ask for in the rounds so far."""
    name = consumer_key(session.example.id, consumer)
    found: set[bytes] = set()
    for lookups in session.answers.lookups:
        for ask in read_lookups(lookups):
            if (ask.example, ask.space, ask.consumer) == (session.key, space, name):
                found.update(keys(ask.coalitions))
    return found


def _attribution(explanation: Explanation, full_L: FloatL, evaluations: int) -> Attribution:
    values, base = explanation.values, explanation.base
    residual = None
    if explanation.additive and base is not None:
        residual = full_L - base - values.sum(axis=1)
    unknown = np.full(len(values), np.nan)
    return Attribution(
        values,
        unknown if base is None else base,
        evaluations,
        residual=residual,
        r2=explanation.r2,
    )


def _packed(rows: Sequence[bytes], width: int) -> Any:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), (width + 7) // 8)
