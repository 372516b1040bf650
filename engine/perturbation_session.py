"""How a session serves an explainer of coalitions: it asks, and fits once nobody asks any more.

Split off from `engine.session`, whose friend this is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.context import ExplainerTask
from engine.explainers.base import Explainer
from engine.explainers.fits import FITS
from engine.types import FloatL

if TYPE_CHECKING:
    from engine.session import Session
    from engine.spaces import Space


def explain_by_coalitions(
    session: Session,
    task: ExplainerTask,
    explainer: Explainer,
    space: Space,
    raw: FloatL | None,
    started: float,
) -> None:
    """Replay one explainer of an example.

    Args:
        session: Gets what is missing, or what will add the explanation's rows.
        task: The explainer.
        explainer: What `task` names.
        space: Of its features and operator.
        raw: Scores of the full prompt, or None while they are not there.
        started: When its turn began.
    """
    # fits to find out what a growing budget asks count when the explanation is reported
    elsewhere = FITS.seconds
    missing = explainer.ask(session._pool(space, lambda v: session._value(v, task)))
    seconds = time.perf_counter() - started - (FITS.seconds - elsewhere)
    if len(missing):
        session._ask(task.label, space, missing)
    elif raw is not None:
        label = session._class(task, raw)
        full = session._need(task.label, space, space.full)
        if full is not None:
            value = float(session._value(full.lookup(space.full), task)[0, label])
            session.ready.append(
                (task, lambda: _report(session, task, explainer, space, label, value, seconds))
            )


def _report(
    session: Session,
    task: ExplainerTask,
    explainer: Explainer,
    space: Space,
    label: int,
    full_value: float,
    seconds: float,
) -> None:
    found = explainer.fitted(session._pool(space, lambda v: session._value(v, task)))
    session._use(task.label, space, found.used, seconds + found.seconds)
    session._report(task, space, found.attribution, label, full_value)
