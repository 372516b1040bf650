"""What is wrong with prompts before they go to a model."""

from __future__ import annotations

import numpy as np

from actors.backend import SequenceBatch
from engine.schema import ScoreTask


def prompt_errors(
    batch: SequenceBatch, task: ScoreTask, max_tokens: int | None, vocabulary: int
) -> dict[int, str]:
    """Return row -> error of prompts that are empty, too long, or outside the vocabulary.

    Args:
        batch: The prompts.
        task: Its labels need room behind them.
        max_tokens: Most tokens of a prompt with its label, the label's last token, which is never
            fed, not counted; None where there is no bound.
        vocabulary: Number of token ids.
    """
    errors: dict[int, str] = {}
    lengths = batch.sequences.lengths
    longest = lengths + max(map(len, task.label_ids)) - 1
    if max_tokens:
        for row in np.flatnonzero(longest > max_tokens).tolist():
            errors[row] = (
                f"the prompt and its label have {longest[row]} tokens, the model takes "
                f"{max_tokens}: shorten the text or the template"
            )
    flat = batch.sequences.flat
    for place in np.flatnonzero((flat < 0) | (flat >= vocabulary)).tolist():
        row = int(np.searchsorted(batch.sequences.offsets, place, side="right")) - 1
        errors[row] = (
            f"the prompt has token ids outside the vocabulary of {vocabulary}: the tokenizer "
            "belongs to another model"
        )
    return errors | dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "the prompt is empty")
