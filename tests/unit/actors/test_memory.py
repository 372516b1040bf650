"""Answers found again by content: never a wrong one, never more than may be kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backend import Scores, SequenceBatch
from actors.batching import ScoreSequence
from actors.memory import ScoreMemory, digests
from engine.schema import ScoreTask
from tests.unit.actors.recorder import Recorder, batch_of, rows_of, sums

TASK = ScoreTask(((1,), (2,)))

prompts = st.builds(
    lambda ids, hidden: ScoreSequence(tuple(ids), tuple(sorted(i for i in hidden if i < len(ids)))),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.sets(st.integers(0, 3), max_size=2),
)
calls = st.lists(
    st.tuples(st.lists(prompts, max_size=6), st.booleans(), st.sampled_from(["", "tuned"])),
    max_size=8,
)


class Exact(Recorder):
    """Answers that tell apart all that a digest must tell apart."""

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        found = super().score(batch, task)
        log_z = np.array([_number(row, task) for row in rows_of(batch)], dtype=np.float32)
        return found._replace(log_probs=np.stack([log_z, -log_z], axis=1), log_z=log_z)


def _number(row: ScoreSequence, task: ScoreTask) -> int:
    return hash((row, task.label_ids, task.adapter)) % 1_000_003


def ask(
    memory: ScoreMemory, backend: Recorder, *rows: tuple[int, ...], task: ScoreTask = TASK
) -> tuple[Scores, int]:
    return memory.score(backend, batch_of(*rows), task)


@given(calls, st.integers(0, 12))
def test_answers_are_those_of_the_backend_whatever_came_before(
    history: list[tuple[list[ScoreSequence], bool, str]], capacity: int
) -> None:
    memory, backend = ScoreMemory(capacity), Exact()
    backend.wrong = {3}
    for rows, by_example, adapter in history:
        task = ScoreTask(TASK.label_ids, adapter, by_example)
        found, remembered = memory.score(backend, batch_of(*rows), task)
        good = [i for i, row in enumerate(rows) if 3 not in row.ids]
        assert set(found.errors) == set(range(len(rows))) - set(good)
        expected = np.array([_number(rows[i], task) for i in good], dtype=np.float32)
        np.testing.assert_array_equal(found.log_z[good], expected)
        np.testing.assert_array_equal(found.log_probs[good, 1], -expected)
        assert not (by_example and remembered)
        assert sum(len(kept.keys) for kept in memory._answers.values()) <= capacity


def test_what_was_answered_is_not_asked_again() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    first, remembered = ask(memory, backend, (1, 2), (3,))
    assert remembered == 0
    second, remembered = ask(memory, backend, (3,), (4,), (1, 2), (3,))
    assert remembered == 3
    assert [row.ids for row in backend.groups[1]] == [(4,)]
    np.testing.assert_array_equal(second.log_probs[2], first.log_probs[0])
    assert second.log_z.tolist() == [3, 4, 3, 3]
    assert (second.tokens_computed, second.sequences_computed) == (1, 1)
    third, remembered = ask(memory, backend, (4,), (1, 2))
    assert remembered == 2
    assert len(backend.groups) == 2
    assert third[2:5] == (0, 0, 0)


def test_a_prompt_that_comes_twice_in_one_call_is_kept_once() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    ask(memory, backend, (1,), (1,), (2,), (1,))
    [kept] = memory._answers.values()
    assert len(kept.keys) == 2
    assert ask(memory, backend, (1,), (2,))[1] == 2


def test_by_example_is_neither_answered_from_memory_nor_kept() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    task = ScoreTask(TASK.label_ids, by_example=True)
    ask(memory, backend, (1,))
    assert ask(memory, backend, (1,), (2,), task=task)[1] == 0
    assert ask(memory, backend, (2,))[1] == 0
    assert [len(group) for group in backend.groups] == [1, 2, 1]


def test_other_labels_and_adapters_have_answers_of_their_own() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    tasks = [TASK, ScoreTask(((1,), (3,))), ScoreTask(TASK.label_ids, "tuned")]
    for task in tasks:
        assert ask(memory, backend, (1,), task=task)[1] == 0
    for task in tasks:
        found, remembered = ask(memory, backend, (1,), task=task)
        assert remembered == 1
        assert found.log_probs.tolist() == [[-1 - label[0] for label in task.label_ids]]


def test_errors_are_asked_again() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    backend.wrong = {7}
    first, _ = ask(memory, backend, (7,), (1,))
    assert dict(first.errors) == {0: "too wrong"}
    second, remembered = ask(memory, backend, (1,), (2,), (7,))
    assert remembered == 1
    assert dict(second.errors) == {2: "too wrong"}
    backend.wrong = set()
    third, remembered = ask(memory, backend, (7,), (1,))
    assert remembered == 1
    assert not third.errors
    assert third.log_z.tolist() == [7, 1]


def test_a_call_that_fails_leaves_the_memory_as_it_was() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    ask(memory, backend, (1,))
    backend.broken = {9}
    with pytest.raises(RuntimeError, match="device lost"):
        ask(memory, backend, (1,), (9,))
    assert ask(memory, backend, (1,))[1] == 1


def test_the_oldest_are_forgotten_and_what_is_used_stays() -> None:
    memory, backend = ScoreMemory(4), Recorder()
    for i in range(4):
        ask(memory, backend, (i,))
    ask(memory, backend, (0,))  # used, so it is young again
    ask(memory, backend, (4,))  # one too many: half the capacity is kept
    groups = len(backend.groups)
    assert ask(memory, backend, (0,), (4,))[1] == 2
    assert len(backend.groups) == groups
    assert ask(memory, backend, (1,), (2,), (3,))[1] == 0


def test_forgetting_is_over_all_tasks() -> None:
    memory, backend = ScoreMemory(2), Recorder()
    other = ScoreTask(((5,), (6,)))
    ask(memory, backend, (1,))
    ask(memory, backend, (2,), task=other)
    ask(memory, backend, (3,), task=other)
    assert ask(memory, backend, (1,))[1] == 0
    assert ask(memory, backend, (3,), task=other)[1] == 1


def test_more_in_one_call_than_may_be_kept_is_kept_not_at_all() -> None:
    memory, backend = ScoreMemory(3), Recorder()
    ask(memory, backend, *((i,) for i in range(5)))
    assert not memory._answers
    assert ask(memory, backend, (1,))[1] == 0
    assert ask(memory, backend, (1,))[1] == 1


def test_nothing_is_kept_where_nothing_may_be() -> None:
    memory, backend = ScoreMemory(0), Recorder()
    for _ in range(2):
        assert ask(memory, backend, (1,))[1] == 0
    assert len(backend.groups) == 2


@given(st.lists(prompts, max_size=12))
def test_digests_are_equal_exactly_where_prompts_are(rows: list[ScoreSequence]) -> None:
    keys, checks = digests(batch_of(*rows))
    pairs = list(zip(keys.tolist(), checks.tolist(), strict=True))
    assert len(set(pairs)) == len(set(rows))
    assert len(dict(zip(rows, pairs, strict=True))) == len(set(pairs))
    assert len(set(keys.tolist())) == len(set(checks.tolist())) == len(set(rows))
    # a digest is the prompt's own, whatever stands beside it
    for row, pair in zip(rows, pairs, strict=True):
        alone = digests(batch_of(row))
        assert (int(alone[0][0]), int(alone[1][0])) == pair


@pytest.mark.parametrize(
    "other",
    [
        ScoreSequence((5, 6, 8)),
        ScoreSequence((6, 5, 7)),
        ScoreSequence((5, 6, 7, 0)),
        ScoreSequence((0, 5, 6, 7)),
        ScoreSequence((5, 6)),
        ScoreSequence((5, 6, 7), (0,)),
        ScoreSequence((5, 6, 7), (1,)),
        ScoreSequence((5, 6, 7), (0, 1)),
    ],
)
def test_a_digest_changes_with_tokens_order_length_and_what_is_hidden(
    other: ScoreSequence,
) -> None:
    keys, checks = digests(batch_of(ScoreSequence((5, 6, 7)), other))
    assert keys[0] != keys[1]
    assert checks[0] != checks[1]


def test_many_like_prompts_have_digests_of_their_own() -> None:
    rng = np.random.default_rng(0)
    rows = sorted({tuple(row) for row in rng.integers(0, 2, (20_000, 14)).tolist()})
    keys, checks = digests(batch_of(*rows))
    assert len(np.unique(keys)) == len(np.unique(checks)) == len(rows)
    for bit in range(64):  # every bit of a digest is about as often set as not
        assert 0.4 < float((keys >> np.uint64(bit) & np.uint64(1)).mean()) < 0.6


def test_an_answer_is_checked_by_the_second_half_of_its_digest() -> None:
    memory, backend = ScoreMemory(100), Recorder()
    ask(memory, backend, (1,))
    [kept] = memory._answers.values()
    kept.checks[:] ^= np.uint64(1)  # as if another prompt had the same first half
    found, remembered = ask(memory, backend, (1,))
    assert remembered == 0
    np.testing.assert_array_equal(found.log_z, sums([ScoreSequence((1,))]))


def test_answers_of_many_labels_count_as_several() -> None:
    """A continuation is a task of its own, of as many labels as tokens."""
    memory, backend = ScoreMemory(8), Wide()
    for token in range(20):
        task = ScoreTask(tuple((token,) * (n + 1) for n in range(8)))
        memory.score(backend, batch_of((1, 2)), task)
        held = sum(kept.log_probs.size for kept in memory._answers.values())
        assert held <= 16  # as many numbers as eight answers of two labels have
    assert len(memory._answers) <= 2  # tasks without an answer are forgotten
    _, remembered = memory.score(backend, batch_of((1, 2)), task)
    assert remembered == 1


class Wide(Recorder):
    """Answers with as many numbers as there are labels."""

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        found = super().score(batch, task)
        shape = (batch.n_rows, len(task.label_ids))
        return found._replace(log_probs=np.zeros(shape, dtype=np.float32))
