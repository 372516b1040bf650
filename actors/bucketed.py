"""Scoring in padded batches of sequences of nearly one length: what every causal model allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from actors.backend import BackendOutOfMemoryError, Scores, SequenceBatch
from actors.batching import (
    Ids,
    ScoreSequence,
    by_length,
    continuations,
    shared_prefix,
    token_batches,
    tokens_to_run,
)
from engine.packing import build_trie

BatchScores = tuple[np.ndarray, np.ndarray, int]
ScoreBatch = Callable[[list[ScoreSequence], Sequence[Ids], int], BatchScores]
"""(prompts, label ids, length of their shared prefix) -> log-probabilities [B, L], log Z [B], and
the number of tokens computed. Raises BackendOutOfMemoryError where the batch doesn't fit."""


def score_in_buckets(
    score: ScoreBatch, batch: SequenceBatch, label_ids: Sequence[Ids], batch_tokens: int
) -> Scores:
    """Score prompts, equal ones once, from short to long.

    A batch that doesn't fit into memory is tried again in halves; a prompt that doesn't fit alone
    is an error.

    Args:
        score: Scores one padded batch.
        batch: S prompts.
        label_ids: Token ids of each of the L labels.
        batch_tokens: Tokens of a padded batch, the shared prefix not counted.
    """
    if not batch.n_rows:
        none = np.zeros(0, dtype=np.float32)
        return Scores(none.reshape(0, len(label_ids)), none, 0, 0, 0)
    trie = build_trie(batch.sequences, batch.hidden)
    _, firsts, place = np.unique(trie.row_of, return_index=True, return_inverse=True)
    prompts = _prompts(batch.take(firsts))
    run = _Run(score, prompts, label_ids)
    prefix = shared_prefix(prompts)
    conts = continuations(label_ids)
    order = by_length(prompts)
    sizes = [tokens_to_run(len(prompts[i].ids) - prefix, conts) for i in order]
    for part in token_batches(sizes, batch_tokens):
        run.part([order[i] for i in part], prefix)
    errors = {row: run.errors[i] for row, i in enumerate(place.tolist()) if i in run.errors}
    return Scores(
        run.log_probs[place], run.log_z[place], run.tokens, trie.n_nodes, len(prompts), errors
    )


class _Run:
    """The answers so far."""

    def __init__(
        self, score: ScoreBatch, prompts: list[ScoreSequence], label_ids: Sequence[Ids]
    ) -> None:
        self._score = score
        self._prompts = prompts
        self._label_ids = label_ids
        self.log_probs = np.full((len(prompts), len(label_ids)), np.nan, dtype=np.float32)
        self.log_z = np.full(len(prompts), np.nan, dtype=np.float32)
        self.errors: dict[int, str] = {}
        self.tokens = 0

    def part(self, rows: list[int], prefix: int) -> None:
        """Score some prompts, in halves where they don't fit."""
        try:
            found = self._score([self._prompts[i] for i in rows], self._label_ids, prefix)
        except BackendOutOfMemoryError as error:
            reason = str(error)
        else:
            self.log_probs[rows], self.log_z[rows] = found[:2]
            self.tokens += found[2]
            return
        # outside the handler, whose traceback would hold the batch's tensors
        if len(rows) == 1:
            tokens = len(self._prompts[rows[0]].ids)
            self.errors[rows[0]] = (
                f"a text of {tokens} tokens does not fit into the host's memory ({reason}); "
                "use a smaller precision or a device with more memory"
            )
            return
        self.part(rows[: len(rows) // 2], prefix)
        self.part(rows[len(rows) // 2 :], prefix)


def _prompts(batch: SequenceBatch) -> list[ScoreSequence]:
    ids = [tuple(row) for row in batch.sequences.to_lists()]
    if batch.hidden is None:
        return [ScoreSequence(row) for row in ids]
    hidden = [tuple(row) for row in batch.hidden.to_lists()]
    return [ScoreSequence(row, off) for row, off in zip(ids, hidden, strict=True)]
