r"""`guest:shap.partition`: `PartitionExplainer` of the installed shap on its text masker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.guests.explanation import Explanation, Game
from engine.masking import Operator
from engine.types import FloatCL

MASK = "..."
"""shap's own."""


def explain(
    text: str,
    predict: Callable[[Sequence[str]], FloatCL],
    labels: tuple[str, ...],
    *,
    max_evals: int = 500,
    batch_size: int | str = "auto",
    fixed_context: int | None = None,
    split_pattern: str = r"\W+",
    mask_token: str = MASK,
) -> Explanation:
    """Return shap's Owen values of every label.

    Args:
        text: The text.
        predict: Texts -> values [n, L].
        labels: Names [L].
        max_evals: As shap takes it, like the next two.
        batch_size: Masks a call; each call is a round trip to a host.
        fixed_context: See shap.
        split_pattern: Matches what lies between the words.
        mask_token: Stands for a run of removed words; "" removes them.
    """
    import shap

    masker = shap.maskers.Text(split_pattern)
    masker.mask_token = mask_token  # the constructor can't take ""
    words = masker.tokenizer(text)
    n_features = len(words["input_ids"])
    if not any(words["input_ids"]):
        return Explanation((), np.zeros((len(labels), 0)), predict([text])[0])
    spans = _spans(words["offset_mapping"], len(text))
    if n_features == 1:  # the library has no tree of one word
        masked = str(masker(np.zeros(1, dtype=bool), text)[0][0])
        none, full = predict([masked, text])
        return Explanation(spans, (full - none)[:, None], none, additive=True)
    explainer = shap.PartitionExplainer(lambda texts: predict([str(t) for t in texts]), masker)
    found = explainer(
        [text],
        max_evals=max_evals,
        batch_size=batch_size,
        fixed_context=fixed_context,
        silent=True,
    )
    values = np.asarray(found.values[0], dtype=np.float64).reshape(n_features, len(labels))
    base = np.asarray(found.base_values[0], dtype=np.float64).reshape(len(labels))
    return Explanation(spans, values.T, base, additive=True)


def game(*, mask_token: str = MASK, **_: Any) -> Game:
    """Return what is explained: a masker that joins masks and blanks is nobody else's."""
    removal = Operator("mask", mask_token) if mask_token else Operator("delete")
    return Game("words", f"shap_text:{mask_token}", removal)


def _spans(offsets: Sequence[tuple[int, int]], length: int) -> list[list[tuple[int, int]]]:
    """Return the words' spans; what stands before the first word goes with an empty word."""
    ends = [start for start, _ in offsets[1:]] + [length]
    spans = []
    for (start, end), following in zip(offsets, ends, strict=True):
        stop = end if end > start else following
        spans.append([(start, stop)] if stop > start else [])
    return spans
