"""The same prompts under several adapters, side by side in padded batches."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actors.adapters import AdapterPool
from actors.backend import SequenceBatch
from actors.batching import Ids, ScoreSequence, continuations
from actors.bucketed import BatchScores, score_in_buckets
from actors.label_scorer import LabelScorer
from actors.out_of_memory import fitting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compare_adapters(
    model: PreTrainedModel,
    pool: AdapterPool,
    batch: SequenceBatch,
    label_ids: Sequence[Ids],
    adapters: Sequence[str],
    batch_tokens: int,
) -> npt.NDArray[np.float32]:
    """Score S prompts under each of A adapters.

    Every prompt stands in one batch with itself under the other adapters, so that what differs
    between them is the adapters' doing and not that of another padding.

    Args:
        model: The model of the pool.
        pool: Has the adapters.
        batch: Prompts within the model's window, no token outside its vocabulary.
        label_ids: Token ids of each of the L labels.
        adapters: Digests, "" for the base.
        batch_tokens: Tokens of a padded batch, all adapters together.

    Returns:
        Log-probabilities of the labels under the full vocabulary [A, S, L].

    Raises:
        ModelError: The adapters can't be mixed in one batch.
        ValueError: A prompt doesn't fit into memory.
    """
    # the output matrix may be wrapped too, and must then see the batch's rows and not gathered ones
    scorer = LabelScorer(model, "kept" if _keeps_logits(model) else "full", None)
    n_conts, n_labels = len(continuations(label_ids)), len(label_ids)

    def score(prompts: list[ScoreSequence], _: Sequence[Ids], __: int) -> BatchScores:
        rows = [adapter for adapter in adapters for _ in range(len(prompts) * n_conts)]
        with pool.mixing(rows):
            repeated = prompts * len(adapters)
            found, log_z, tokens = fitting(partial(scorer.score, repeated, label_ids))
        by_prompt = found.reshape(len(adapters), len(prompts), n_labels).swapaxes(0, 1)
        return by_prompt.reshape(len(prompts), -1), log_z[: len(prompts)], tokens

    # a column for each label under each adapter
    columns = [ids for _ in adapters for ids in label_ids]
    scores = score_in_buckets(score, batch, columns, max(batch_tokens // len(adapters), 1))
    if scores.errors:
        row, reason = next(iter(scores.errors.items()))
        raise ValueError(f"prompt {row}: {reason}")
    by_label = scores.log_probs.reshape(batch.n_rows, len(adapters), n_labels)
    return np.ascontiguousarray(by_label.swapaxes(0, 1))


def _keeps_logits(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters
