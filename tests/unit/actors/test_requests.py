"""From request tables to groups, and from their scores to replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.backend import Scores
from actors.batching import ScoreSequence
from actors.requests import Group, Pending, admit, groups, numbers_only
from engine.not_a_number import MESSAGE
from engine.schema import ScoreTask, cost_of, score_request
from tests.unit.actors.recorder import rows_of

TASK = ScoreTask(((1,), (2,)))
BY_EXAMPLE = ScoreTask(((1,), (2,)), by_example=True)


def pending(
    rows: Sequence[Sequence[int]],
    task: ScoreTask = TASK,
    examples: Sequence[int] | None = None,
    hidden: Sequence[Sequence[int] | None] | None = None,
) -> Pending:
    table = score_request(examples or [0] * len(rows), rows, hidden or [None] * len(rows), task)
    return admit(table)


def scores_of(group: Group, tokens: int = 0, errors: dict[int, str] | None = None) -> Scores:
    """Answer with the sum of a prompt's ids."""
    log_z = np.array([sum(row.ids) for row in rows_of(group.batch)], dtype=np.float32)
    log_probs = -log_z[:, None] - np.float32([0, 1])
    return Scores(log_probs, log_z, tokens, tokens, len(log_z), errors or {})


def test_a_request_is_read_with_its_hidden_positions() -> None:
    request = pending([[1, 2, 3], [4], [5, 6]], hidden=[None, [], [1]])
    assert rows_of(request.batch) == [
        ScoreSequence((1, 2, 3)),
        ScoreSequence((4,)),
        ScoreSequence((5, 6), (1,)),
    ]
    assert request.tokens == 6
    assert request.missing == 3
    assert pending([[1], [2]]).batch.hidden is None


def test_a_sliced_request_is_read_from_its_own_rows() -> None:
    table = score_request([0, 1, 2], [[1], [2, 3], [4]], [[0], None, [0]], TASK)
    request = admit(table.slice(1, 2).replace_schema_metadata(table.schema.metadata))
    assert rows_of(request.batch) == [ScoreSequence((2, 3)), ScoreSequence((4,), (0,))]
    assert request.examples.tolist() == [1, 2]


@pytest.mark.parametrize("labels", [(), ((1,), ())])
def test_labels_without_tokens_are_refused(labels: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pending([[1]], ScoreTask(labels))


def test_rows_of_one_task_are_one_group_in_their_order() -> None:
    requests = [
        pending([[1], [2]]),
        pending([[3]], ScoreTask(((9,), (8,)))),
        pending([[4], [5]], hidden=[None, [0]]),
    ]
    found = list(groups(requests))
    assert [rows_of(group.batch) for group in found] == [
        [ScoreSequence((1,)), ScoreSequence((2,)), ScoreSequence((4,)), ScoreSequence((5,), (0,))],
        [ScoreSequence((3,))],
    ]
    assert [group.task.label_ids for group in found] == [((1,), (2,)), ((9,), (8,))]


def test_adapters_are_served_one_after_another_from_the_one_that_is_on() -> None:
    tasks = [
        ScoreTask(label, adapter=name) for name in ("a", "", "b") for label in (((1,),), ((2,),))
    ]
    requests = [pending([[n]], task) for n, task in enumerate([*tasks, *tasks[::-1]])]
    for on, wanted in (("b", ["b", "a", ""]), ("", ["", "a", "b"]), ("gone", ["a", "", "b"])):
        found = [group.task for group in groups(requests, on)]
        assert [task.adapter for task in found[::2]] == wanted
        assert sorted(map(str, found)) == sorted(map(str, tasks))


def test_rows_with_an_error_are_in_no_group() -> None:
    requests = [pending([[1], [], [2]]), pending([[], []])]
    requests[0].refuse({1: "empty"})
    requests[1].refuse({0: "empty", 1: "empty"})
    [group] = groups(requests)
    assert [row.ids for row in rows_of(group.batch)] == [(1,), (2,)]
    assert [part.request for part in group.parts] == requests[:1]
    requests[1].resolve("n")
    assert requests[1].future.result(0)["error"].to_pylist() == ["empty", "empty"]


def test_by_example_groups_hold_one_example_of_one_request() -> None:
    requests = [
        pending([[1], [2], [3]], BY_EXAMPLE, [5, 2, 5]),
        pending([[1], [2]], BY_EXAMPLE, [5, 5]),
        pending([[1]]),
    ]
    requests[0].refuse({2: "no"})
    found = [[row.ids for row in rows_of(group.batch)] for group in groups(requests)]
    assert sorted(found) == [[(1,)], [(1,)], [(1,), (2,)], [(2,)]]


rows = st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=5)


@given(st.lists(st.tuples(rows, st.booleans(), st.integers(0, 3)), max_size=5))
def test_every_row_gets_its_own_answer_and_costs_add_up(
    asked: list[tuple[list[list[int]], bool, int]],
) -> None:
    requests = []
    for many, by_example, spread in asked:
        examples = [i % (spread + 1) for i in range(len(many))]
        request = pending(many, BY_EXAMPLE if by_example else TASK, examples)
        request.refuse({i: "empty" for i, row in enumerate(many) if not row})
        requests.append(request)
    seconds = tokens = 0
    for group in groups(requests):
        errors = {i: "two" for i, row in enumerate(rows_of(group.batch)) if row.ids == (2, 2)}
        group.hand_out(scores_of(group, 600, errors), 1.0)
        seconds, tokens = seconds + 1, tokens + 600
    assert sum(request.seconds for request in requests) == pytest.approx(seconds)
    assert sum(request.tokens_computed for request in requests) == pytest.approx(tokens)
    for request, (many, _, _) in zip(requests, asked, strict=True):
        assert request.missing == 0
        request.resolve("n")
        reply = request.future.result(0)
        bad = {(): "empty", (2, 2): "two"}
        assert reply["error"].to_pylist() == [bad.get(tuple(row)) for row in many]
        expected = [None if tuple(row) in bad else float(sum(row)) for row in many]
        assert reply["log_z"].to_pylist() == expected
        assert cost_of(reply).numerics == "n"


def test_minus_infinity_is_a_number_and_an_infinite_sum_is_none() -> None:
    log_probs = np.float32([[-np.inf, -1], [np.nan, -1], [-np.inf, -np.inf], [-1, -1]])
    log_z = np.float32([np.nan, 2, np.inf, 3])
    given = Scores(log_probs, log_z, 9, 9, 4, {1: "its own"})
    assert numbers_only(given).errors == {1: "its own", 2: MESSAGE}
    assert numbers_only(given._replace(log_z=log_z[[0, 0, 0, 0]])).errors == {1: "its own"}


def test_a_reply_waits_for_its_last_row() -> None:
    request = pending([[1], [2]], BY_EXAMPLE, [0, 1])
    first, second = groups([request])
    first.hand_out(scores_of(first), 0.0)
    request.resolve("n")
    assert not request.future.done()
    second.hand_out(scores_of(second), 0.0)
    request.resolve("n")
    assert request.future.result(0)["log_z"].to_pylist() == [1.0, 2.0]


def test_a_failed_request_stays_failed() -> None:
    request = pending([[1]])
    request.fail(RuntimeError("first"))
    request.fail(RuntimeError("second"))
    [group] = groups([request])
    group.hand_out(scores_of(group), 0.0)
    request.resolve("n")
    with pytest.raises(RuntimeError, match="first"):
        request.future.result(0)
