"""What a guest returns, checked: features as spans of its text, and values of every label."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ExampleError
from engine.masking import Operator
from engine.types import Feature, FloatL, FloatLF, Span

Spans = Sequence[Sequence[tuple[int, int]]]


class Explanation(NamedTuple):
    """What a guest says of one text.

    Attributes:
        spans: Characters [start, end) of each feature in the text [F][…]; of a guest that asks
            coalitions empty.
        values: Attributions [L, F].
        base: Value without any feature [L], or None where the guest has none.
        r2: Weighted R² of a surrogate [L], or None.
        additive: Values and base are meant to sum to v(all): the residual is reported.
    """

    spans: Spans
    values: FloatLF
    base: FloatL | None = None
    r2: FloatL | None = None
    additive: bool = False


class Game(NamedTuple):
    """What a guest that splits and masks by itself explains.

    Attributes:
        features: The feature space's name in tables.
        operator: The operator's name in tables.
        removal: How the metrics remove its features.
    """

    features: str
    operator: str
    removal: Operator


def checked(result: Any, n_labels: int, n_features: int | None, length: int) -> Explanation:
    """Return what a guest returned as an `Explanation`.

    Args:
        result: An `Explanation` or a pair (spans, values); a feature may be one (start, end)
            instead of a list of them.
        n_labels: L.
        n_features: F of a guest that asks coalitions, None of one that returns its spans.
        length: Characters of the text.

    Raises:
        ExampleError: `guest_result`: it is neither, or out of shape.
    """
    try:
        given = result if isinstance(result, Explanation) else Explanation(*result)
        values = np.asarray(given.values, dtype=np.float64)
        spans = tuple(_spans(feature) for feature in given.spans)
    except (TypeError, ValueError) as error:
        raise _wrong(f"not (spans, values): {error}") from None
    expected = (n_labels, len(spans) if n_features is None else n_features)
    if values.shape != expected:
        raise _wrong(
            f"values of shape {list(values.shape)}; {list(expected)} are needed: a row a label, a "
            "column a feature"
        )
    if not np.isfinite(values).all():
        raise _wrong("values that are not finite")
    placed = sorted(span for feature in spans for span in feature)
    for start, end in placed:
        if not 0 <= start < end <= length:
            raise _wrong(f"the span [{start}, {end}) outside the text of {length} characters")
    for (_, end), (start, _) in pairwise(placed):
        if start < end:
            raise _wrong(f"spans that overlap at character {start}")
    return Explanation(spans, values, _row(given.base), _row(given.r2), given.additive)


def features_of(spans: Spans, text: str, field: str) -> tuple[Feature, ...]:
    """Return the features whose spans in one field these are."""
    return tuple(
        Feature(
            tuple(Span(start, end, field) for start, end in feature),
            text[feature[0][0] : feature[0][1]] if feature else "",
        )
        for feature in spans
    )


def _spans(feature: Any) -> tuple[tuple[int, int], ...]:
    parts = [feature] if len(feature) == 2 and np.ndim(feature[0]) == 0 else feature
    return tuple(sorted((int(start), int(end)) for start, end in parts))


def _row(values: Any) -> FloatL | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _wrong(what: str) -> ExampleError:
    return ExampleError("guest_result", f"the guest returned {what}")
