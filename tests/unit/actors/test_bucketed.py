"""Padded batches: what runs together, how often, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backend import BackendOutOfMemoryError, SequenceBatch
from actors.batching import Ids, ScoreSequence
from actors.bucketed import BatchScores, score_in_buckets
from tests.unit.actors.recorder import batch_of, rows_of

LABELS = ((1,), (2,))
Nodes = tuple[tuple[int, int, bool], ...]

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> SequenceBatch:
    rows = []
    for ids in draw(st.lists(tokens, max_size=12)):
        hidden = draw(st.sets(st.integers(0, len(ids) - 1), max_size=2))
        rows.append(ScoreSequence(ids, tuple(sorted(hidden))))
    return batch_of(*rows)


def nodes(row: ScoreSequence) -> Nodes:
    """Return what a causal model's last state depends on: the visible tokens and the last one."""
    last = len(row.ids) - 1
    return tuple(
        (token, place, place in row.hidden)
        for place, token in enumerate(row.ids)
        if place == last or place not in row.hidden
    )


def answers(rows: Sequence[ScoreSequence]) -> np.ndarray:
    """Return a number for each prompt that tells different ones apart."""
    return np.array([hash(nodes(row)) % 65_521 for row in rows], dtype=np.float32)


class Padded:
    """Writes down its batches, and has room for so many prompts."""

    def __init__(self, room: int | None = None) -> None:
        self.batches: list[list[ScoreSequence]] = []
        self.prefixes: list[int] = []
        self.room = room

    def __call__(
        self, prompts: list[ScoreSequence], label_ids: Sequence[Ids], prefix: int
    ) -> BatchScores:
        if self.room is not None and len(prompts) > self.room:
            raise BackendOutOfMemoryError("no room")
        self.batches.append(prompts)
        self.prefixes.append(prefix)
        log_z = answers(prompts)
        width = max(len(prompt.ids) for prompt in prompts)
        log_probs = np.stack([-log_z - label[0] for label in label_ids], axis=1)
        return log_probs, log_z, width * len(prompts)


@given(batches(), st.integers(1, 30))
def test_every_row_has_its_answer_and_equal_rows_run_once(
    batch: SequenceBatch, batch_tokens: int
) -> None:
    padded = Padded()
    found = score_in_buckets(padded, batch, LABELS, batch_tokens)
    rows = rows_of(batch)
    np.testing.assert_array_equal(found.log_z, answers(rows))
    np.testing.assert_array_equal(found.log_probs, -answers(rows)[:, None] - [1, 2])
    ran = [nodes(prompt) for part in padded.batches for prompt in part]
    assert len(ran) == len(set(ran)) == found.sequences_computed
    assert set(ran) == {nodes(row) for row in rows}
    prefixes = {nodes(row)[: i + 1] for row in rows for i in range(len(nodes(row)))}
    assert found.tokens_distinct == len(prefixes)
    assert not found.errors


def test_the_same_tokens_with_other_hidden_positions_are_another_prompt() -> None:
    padded = Padded()
    many = [ScoreSequence((1, 2)), ScoreSequence((1, 2), (0,)), ScoreSequence((1, 2), (1,))]
    score_in_buckets(padded, batch_of(*many), LABELS, 99)
    assert sorted(padded.batches[0]) == sorted(many)


def test_batches_go_from_short_to_long_within_the_budget() -> None:
    padded = Padded()
    batch = batch_of((1, 2, 3), (1, 2), (1, 4, 4, 4), (1, 2), (1, 3))
    found = score_in_buckets(padded, batch, LABELS, 3)
    ran = [[prompt.ids for prompt in part] for part in padded.batches]
    # behind the shared first token one, one, two and three tokens are to run
    assert ran == [[(1, 2), (1, 3)], [(1, 2, 3)], [(1, 4, 4, 4)]]
    assert padded.prefixes == [1, 1, 1]
    assert found.tokens_computed == 4 + 3 + 4
    assert found.sequences_computed == 4


def test_batches_are_a_function_of_the_set_of_prompts() -> None:
    rows = [(4, 1, 1), (4, 2), (4, 9), (5, 5), (4, 1, 1, 1)]
    ran = []
    for order in (rows, rows[::-1], [*rows[2:], *rows]):
        padded = Padded()
        score_in_buckets(padded, batch_of(*order), LABELS, 6)
        ran.append(padded.batches)
    assert ran[0] == ran[1] == ran[2]


def test_no_rows_have_no_scores() -> None:
    found = score_in_buckets(Padded(), batch_of(), LABELS, 9)
    assert found.log_probs.shape == (0, 2)
    assert found.log_z.shape == (0,)


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(room: int) -> None:
    padded = Padded(room)
    rows = [(i, i) for i in range(1, 8)]
    found = score_in_buckets(padded, batch_of(*rows, rows[0]), LABELS, 99)
    expected = answers([ScoreSequence(row) for row in [*rows, rows[0]]])
    np.testing.assert_array_equal(found.log_z, expected)
    assert not found.errors
    assert max(len(part) for part in padded.batches) <= room
    assert sum(len(part) for part in padded.batches) == 7
    assert found.tokens_computed == 14


def test_a_single_prompt_that_does_not_fit_is_an_error_of_its_rows() -> None:
    class NoRoomForNine(Padded):
        def __call__(
            self, prompts: list[ScoreSequence], label_ids: Sequence[Ids], prefix: int
        ) -> BatchScores:
            if any(9 in prompt.ids for prompt in prompts):
                raise BackendOutOfMemoryError("no room")
            return super().__call__(prompts, label_ids, prefix)

    batch = batch_of((1, 2), (9, 9, 9), (3,), (9, 9, 9))
    found = score_in_buckets(NoRoomForNine(), batch, LABELS, 99)
    assert set(found.errors) == {1, 3}
    for message in found.errors.values():
        assert "3 tokens" in message
        assert "memory (no room)" in message
    np.testing.assert_array_equal(found.log_z[[0, 2]], answers(rows_of(batch))[[0, 2]])
    assert np.isnan(found.log_z[[1, 3]]).all()


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    def lost(*_: object) -> BatchScores:
        raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        score_in_buckets(lost, batch_of((1,), (2,)), LABELS, 99)
