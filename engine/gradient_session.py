"""How a session serves an explainer that needs gradients: it asks for a row, or reports the answer.

Split off from `engine.session`, whose friend this is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.context import ExplainerTask
from engine.errors import ExampleError
from engine.explainers.gradients import GradientMethod, nothing_to_explain
from engine.gradients import GradientAnswer, gradient_key
from engine.not_a_number import failure_code
from engine.types import FloatCL

if TYPE_CHECKING:
    from engine.session import Session
    from engine.spaces import Space


def explain_by_gradients(
    session: Session,
    task: ExplainerTask,
    method: GradientMethod,
    space: Space,
    raw: FloatCL | None,
) -> None:
    """Replay one gradient explainer of an example.

    Args:
        session: Gets the row to ask, or what will add the explanation's rows.
        task: The explainer.
        method: What `task` names.
        space: Of its features, and of the operator that its metrics remove them with.
        raw: Scores of the full prompt, or None while they are not there.

    Raises:
        ExampleError: `no_gradients`, `not_a_number`: the host could not answer.
    """
    answer = _answer(session, task, method, space) if space.n_features else None
    if raw is None or (answer is None and space.n_features):
        return
    session.ready.append((task, lambda: _report(session, task, method, space, raw, answer)))


def _report(
    session: Session,
    task: ExplainerTask,
    method: GradientMethod,
    space: Space,
    raw: FloatCL,
    answer: GradientAnswer | None,
) -> None:
    label = session._class(task, raw)
    if answer is None:
        value_L = session._value(raw[None], task)[0]
        session._report(task, space, nothing_to_explain(value_L), label, float(value_L[label]))
        return
    usage = session.usage_of(task.label)
    usage.evaluations += answer.evaluations
    usage.first += answer.evaluations
    usage.tokens += answer.tokens
    attribution = method.attribution(answer, label)
    session._report(task, space, attribution, label, float(answer.full[label]))


def _answer(
    session: Session, task: ExplainerTask, method: GradientMethod, space: Space
) -> GradientAnswer | None:
    """Return the host's answer, or None after asking for it."""
    key = gradient_key(session.key, task.label)
    known = session.answers.gradients
    error = known.error(key)
    if error is not None:
        raise ExampleError(failure_code(error, "no_gradients"), error)
    answer = known.get(key)
    if answer is None:
        shift = session.calibration
        session.gradient_asks.append(
            method.ask(
                key,
                space.masker.ids,
                space.masker.positions,
                session.tokenizer,
                task.target,
                session.context.normaliser,
                None if shift is None else shift.tolist(),
            )
        )
    return answer
