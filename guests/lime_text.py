"""`guest:lime`: `LimeTextExplainer` of the installed lime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.guests.explanation import Explanation, Game
from engine.masking import Operator
from engine.types import FloatCL

MASK = "UNKWORDZ"
"""lime's own, where words are positions."""


def explain(
    text: str,
    predict: Callable[[Sequence[str]], FloatCL],
    labels: tuple[str, ...],
    *,
    seed: int,
    num_samples: int = 5000,
    num_features: int = 10,
    kernel_width: float = 25,
    feature_selection: str = "auto",
    split_expression: str = r"\W+",
    bow: bool = True,
    mask_string: str | None = None,
) -> Explanation:
    """Return lime's explanation of every label; features without a coefficient have 0.

    Args:
        text: The text.
        predict: Texts -> values [n, L].
        labels: Names [L].
        seed: `random_state` of the explainer.
        num_samples: As lime takes it, like all that follow.
        num_features: See lime.
        kernel_width: See lime.
        feature_selection: See lime.
        split_expression: See lime.
        bow: All occurrences of a word are one feature and are deleted; else each position is one
            and is replaced by `mask_string`.
        mask_string: See lime.
    """
    from lime.lime_text import IndexedString, LimeTextExplainer

    indexed = IndexedString(text, split_expression, bow, mask_string) if text else None
    n_features = 0 if indexed is None else indexed.num_words()
    if indexed is None or not n_features:  # the library would fail here
        return Explanation((), np.zeros((len(labels), 0)), predict([text])[0])
    explainer = LimeTextExplainer(
        kernel_width=kernel_width,
        feature_selection=feature_selection,
        split_expression=split_expression,
        bow=bow,
        mask_string=mask_string,
        random_state=seed,
    )
    r2 = _scores_of(explainer)
    found = explainer.explain_instance(
        text,
        predict,
        labels=range(len(labels)),
        num_features=num_features,
        num_samples=num_samples,
    )
    values = np.zeros((len(labels), n_features))
    for label in range(len(labels)):
        for feature, weight in found.local_exp[label]:
            values[label, feature] = weight
    base = np.array([float(found.intercept[label]) for label in range(len(labels))])
    return Explanation(_spans(indexed), values, base, np.array(r2))


def game(*, bow: bool = True, mask_string: str | None = None, **_: Any) -> Game:
    """Return what is explained: the game of `compat: lime`, unless words are positions."""
    if bow:
        operator = Operator("delete", keep_separators=True)
        return Game("word_types", "delete:keep_separators", operator)
    mask = MASK if mask_string is None else mask_string
    return Game("words", f"mask:{mask}", Operator("mask", mask) if mask else Operator("delete"))


def _scores_of(explainer: Any) -> list[float]:
    """Return a list that fills with the R² of each label; lime keeps the last one only."""
    scores: list[float] = []
    fit = explainer.base.explain_instance_with_data

    def noting(*args: Any, **kwargs: Any) -> Any:
        outcome = fit(*args, **kwargs)
        scores.append(float(outcome[2]))
        return outcome

    explainer.base.explain_instance_with_data = noting
    return scores


def _spans(indexed: Any) -> list[list[tuple[int, int]]]:
    spans = []
    for feature, word in enumerate(indexed.inverse_vocab):
        starts = np.ravel(indexed.string_position(feature))
        spans.append([(int(start), int(start) + len(word)) for start in starts])
    return spans
