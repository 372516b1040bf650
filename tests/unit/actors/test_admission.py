from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pytest

from actors.admission import AdmissionQueue
from actors.backend import HostInfo, Scores, SequenceBatch, SwapCounts
from actors.batching import ScoreSequence
from engine.errors import ModelError
from engine.not_a_number import MESSAGE
from engine.schema import SCORE_REPLY, ScoreTask, cost_of, score_request
from tests.unit.actors.recorder import INFO, Recorder

TASK = ScoreTask(((1,), (2,)))


def request(
    rows: Sequence[Sequence[int]],
    task: ScoreTask = TASK,
    examples: Sequence[int] | None = None,
    hidden: Sequence[Sequence[int] | None] | None = None,
) -> pa.Table:
    return score_request(examples or [0] * len(rows), rows, hidden or [None] * len(rows), task)


class Held:
    """A queue that is held in its first group while more requests arrive."""

    def __init__(self, backend: Recorder) -> None:
        self.backend = backend
        self.queue = AdmissionQueue(backend)
        self.queue.start()
        self.pool = ThreadPoolExecutor(8)
        backend.go_on.clear()
        self.first = self.pool.submit(self.queue.score, request([[99]]))
        assert backend.entered.wait(30)

    def submit(self, table: pa.Table) -> Future[pa.Table]:
        """Submit and return once the request stands in the queue, behind those before it."""
        depth = self.queue.stats().queue_depth
        future = self.pool.submit(self.queue.score, table)
        while self.queue.stats().queue_depth == depth and not future.done():
            pass
        return future

    def release(self) -> None:
        self.backend.go_on.set()
        self.first.result(30)

    @property
    def groups(self) -> list[list[ScoreSequence]]:
        """The groups after the one that was held."""
        return self.backend.groups[1:]

    @property
    def ids(self) -> list[list[tuple[int, ...]]]:
        return [[row.ids for row in group] for group in self.groups]


def test_a_reply_has_a_row_a_row_of_the_request_in_its_order() -> None:
    queue = AdmissionQueue(Recorder())
    assert queue.start() == INFO
    reply = queue.score(request([[5, 5, 5], [1], [2, 2]], hidden=[None, None, [1]]))
    assert reply.schema.equals(SCORE_REPLY)
    assert reply["log_z"].to_pylist() == [15.0, 1.0, -96.0]
    assert reply["log_probs"].to_pylist() == [[-16, -17], [-2, -3], [95, 94]]
    assert reply["error"].to_pylist() == [None] * 3
    assert cost_of(reply).numerics == "digest"
    queue.stop()


def test_an_empty_request_has_an_empty_reply() -> None:
    queue = AdmissionQueue(Recorder())
    queue.start()
    assert queue.score(request([])).num_rows == 0
    queue.stop()


def test_the_model_is_loaded_and_called_on_one_thread_only() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend)
    queue.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: queue.score(request([[i]])), range(8)))
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads
    queue.stop()


def test_waiting_requests_are_handed_over_together() -> None:
    held = Held(Recorder())
    one = held.submit(request([[1, 2, 3], [1, 2]]))
    two = held.submit(request([[1, 2], [1, 4, 4, 4]], hidden=[[0], None]))
    held.release()
    assert one.result(30)["log_z"].to_pylist() == [6.0, 3.0]
    assert two.result(30)["log_z"].to_pylist() == [-97.0, 13.0]
    # one group: the backend sees all rows and finds the equal ones (test_bucketed, test_packed)
    assert held.groups == [
        [
            ScoreSequence((1, 2, 3)),
            ScoreSequence((1, 2)),
            ScoreSequence((1, 2), (0,)),
            ScoreSequence((1, 4, 4, 4)),
        ]
    ]
    held.queue.stop()


def test_a_prompt_that_came_before_is_not_computed_again() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend)
    queue.start()
    first = queue.score(request([[1, 2], [3]]))
    second = queue.score(request([[4], [1, 2], [1, 2]]))
    assert second["log_probs"].to_pylist()[1:] == [first["log_probs"][0].as_py()] * 2
    assert [[row.ids for row in group] for group in backend.groups] == [[(1, 2), (3,)], [(4,)]]
    stats = queue.stats()
    assert (stats.sequences, stats.sequences_computed, stats.sequences_remembered) == (5, 3, 2)
    assert cost_of(second).tokens_computed == 1
    third = queue.score(request([[3]]))
    assert third["log_z"].to_pylist() == [3.0]
    assert cost_of(third).tokens_computed == 0
    queue.stop()


def test_a_queue_may_be_told_to_remember_nothing() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend, remember=0)
    queue.start()
    for _ in range(2):
        queue.score(request([[1, 2]]))
    assert len(backend.groups) == 2
    assert queue.stats().sequences_remembered == 0
    queue.stop()


def test_costs_add_up_to_what_was_computed_by_the_length_of_the_rows() -> None:
    held = Held(Recorder())
    one = held.submit(request([[1, 2]]))
    two = held.submit(request([[1, 2], [7, 7, 7, 7]]))
    held.release()
    costs = [cost_of(future.result(30)) for future in (one, two)]
    assert [cost.tokens_computed for cost in costs] == [2, 6]
    assert costs[1].seconds == pytest.approx(3 * costs[0].seconds)
    stats = held.queue.stats()
    assert stats.requests == 3
    assert stats.sequences == 4
    assert stats.sequences_computed == 4
    assert stats.tokens_asked == 1 + 8
    assert stats.tokens_computed == 1 + 8
    assert stats.tokens_distinct == 0 + 7
    assert sum(cost.seconds for cost in costs) < stats.busy_seconds
    assert stats.queue_depth == 0
    held.queue.stop()


def test_tasks_with_other_labels_or_adapters_are_never_scored_together() -> None:
    held = Held(Recorder())
    one = held.submit(request([[3]]))
    two = held.submit(request([[3]], ScoreTask(((8,),))))
    three = held.submit(request([[3]], ScoreTask(TASK.label_ids, adapter="tuned")))
    held.release()
    assert one.result(30)["log_probs"].to_pylist() == [[-4, -5]]
    assert two.result(30)["log_probs"].to_pylist() == [[-11]]
    assert three.result(30)["log_probs"].to_pylist() == [[-4, -5]]
    assert held.ids == [[(3,)]] * 3
    assert [task.adapter for task in held.backend.tasks[1:]] == ["", "", "tuned"]
    held.queue.stop()


def test_by_example_groups_are_those_of_an_empty_queue() -> None:
    task = ScoreTask(TASK.label_ids, by_example=True)
    rows = [[4, 1, 1], [4, 2], [5, 5], [4, 9], [4, 1, 1], [5, 6]]
    examples = [0, 0, 1, 0, 1, 1]
    alone = Recorder()
    queue = AdmissionQueue(alone)
    queue.start()
    queue.score(request(rows, task, examples))
    queue.stop()
    assert [[s.ids for s in group] for group in alone.groups] == [
        [(4, 1, 1), (4, 2), (4, 9)],
        [(5, 5), (4, 1, 1), (5, 6)],
    ]

    held = Held(Recorder())
    others = held.submit(request([[4, 2], [4, 3]]))
    mine = held.submit(request(rows, task, examples))
    also = held.submit(request(rows, task, examples))  # computed again, whatever is known
    held.release()
    for future in (others, mine, also):
        future.result(30)
    assert held.groups == [[ScoreSequence((4, 2)), ScoreSequence((4, 3))], *alone.groups * 2]
    assert held.queue.stats().sequences_remembered == 0
    held.queue.stop()


def test_a_row_that_cannot_be_scored_says_why_and_the_others_are_scored() -> None:
    backend = Recorder()
    backend.wrong = {66}
    queue = AdmissionQueue(backend)
    queue.start()
    reply = queue.score(request([[1], [], [66], [2]]))
    errors = [None, "the prompt is empty", "too wrong", None]
    assert reply["error"].to_pylist() == errors
    assert reply["log_probs"].to_pylist() == [[-2, -3], None, None, [-3, -4]]
    assert queue.score(request([[]]))["log_z"].to_pylist() == [None]
    queue.stop()


def test_an_answer_that_is_not_a_number_is_an_error_of_its_row() -> None:
    backend = Recorder()
    backend.wrong = {66}
    backend.overflows = {9, 66}
    queue = AdmissionQueue(backend)
    queue.start()
    for _ in range(2):  # the second time from memory
        reply = queue.score(request([[9], [1], [66], [2, 9]]))
        assert reply["error"].to_pylist() == [MESSAGE, None, "too wrong", MESSAGE]
        assert reply["log_probs"].to_pylist() == [None, [-2, -3], None, None]
        assert reply["log_z"].to_pylist() == [None, 1, None, None]
    queue.stop()


def test_a_failing_group_fails_the_requests_in_it_and_the_host_goes_on() -> None:
    backend = Recorder()
    backend.broken = {7}
    held = Held(backend)
    bad = held.submit(request([[7], [1, 1]]))
    merged = held.submit(request([[2, 2]]))
    other = held.submit(request([[3, 3]], ScoreTask(((8,),))))
    held.release()
    for future in (bad, merged):
        with pytest.raises(RuntimeError, match="device lost"):
            future.result(30)
    assert other.result(30)["log_z"].to_pylist() == [6.0]
    assert held.queue.score(request([[3]]))["log_z"].to_pylist() == [3.0]
    held.queue.stop()


def test_a_request_that_failed_in_one_group_leaves_no_work_behind() -> None:
    backend = Recorder()
    backend.broken = {7}
    queue = AdmissionQueue(backend)
    queue.start()
    task = ScoreTask(TASK.label_ids, by_example=True)
    with pytest.raises(RuntimeError, match="device lost"):
        queue.score(request([[7], [1], [2]], task, [0, 1, 2]))
    queue.score(request([[3]]))
    assert backend.groups == [[ScoreSequence((3,))]]
    queue.stop()


def test_a_task_the_model_refuses_fails_its_request_alone() -> None:
    held = Held(Recorder())
    bad = held.submit(request([[1]], ScoreTask(TASK.label_ids, adapter="unknown")))
    good = held.submit(request([[1]]))
    with pytest.raises(ValueError, match="at least one token"):
        held.queue.score(request([[1]], ScoreTask(())))
    held.release()
    with pytest.raises(ModelError, match="no adapters"):
        bad.result(30)
    assert good.result(30).num_rows == 1
    held.queue.stop()


def test_stopping_answers_everyone_who_waits() -> None:
    held = Held(Recorder())
    waiting = held.submit(request([[1]]))
    stopper = threading.Thread(target=held.queue.stop)
    stopper.start()
    while not held.queue._stopped:
        pass
    held.backend.go_on.set()
    stopper.join(30)
    assert held.first.result(30).num_rows == 1
    with pytest.raises(RuntimeError, match="stopped"):
        waiting.result(30)
    with pytest.raises(RuntimeError, match="another host"):
        held.queue.score(request([[1]]))


def test_the_thread_dying_answers_everyone_who_waits() -> None:
    class Dying(Recorder):
        def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
            self.entered.set()
            assert self.go_on.wait(30)
            raise SystemExit(3)

    held = Held(Dying())
    waiting = held.submit(request([[1]]))
    held.backend.go_on.set()
    for future in (held.first, waiting):
        with pytest.raises(SystemExit):
            future.result(30)


def test_a_failed_load_is_raised_to_the_caller() -> None:
    class Unloadable(Recorder):
        def load(self) -> HostInfo:
            raise ModelError("nowhere")

    with pytest.raises(ModelError, match="nowhere"):
        AdmissionQueue(Unloadable()).start()


def test_requests_are_taken_in_order_of_arrival_up_to_the_admission_budget() -> None:
    held = Held(Recorder())
    held.queue._admit_tokens = 3
    futures = [held.submit(request([[i, i]])) for i in (5, 1, 3)]
    held.release()
    for future in futures:
        future.result(30)
    assert held.ids == [[(5, 5), (1, 1)], [(3, 3)]]
    held.queue.stop()


# --- calls on the scorer's thread --------------------------------------------------------------


def test_calls_run_on_the_thread_that_scores() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend)
    queue.start()
    assert {queue.run(threading.get_ident).result(30)} == backend.threads
    assert queue.stats().busy_seconds > 0
    queue.stop()


def test_a_call_that_fails_fails_its_caller_only() -> None:
    def broken() -> None:
        raise KeyError("mine")

    queue = AdmissionQueue(Recorder())
    queue.start()
    with pytest.raises(KeyError, match="mine"):
        queue.run(broken).result(30)
    assert queue.run(lambda: 7).result(30) == 7
    assert queue.score(request([[3]]))["log_z"].to_pylist() == [3.0]
    queue.stop()


def test_calls_and_requests_take_turns() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend, admit_tokens=1)
    queue.start()
    order: list[str] = []
    backend.go_on.clear()
    with ThreadPoolExecutor(4) as pool:
        held = pool.submit(queue.score, request([[1]]))
        assert backend.entered.wait(30)
        calls = [queue.run(lambda: order.append("call")) for _ in range(2)]
        scored = pool.submit(lambda: (queue.score(request([[2]])), order.append("score")))
        while queue.stats().queue_depth < 2:
            pass
        backend.go_on.set()
        held.result(30)
        scored.result(30)
        for call in calls:
            call.result(30)
    assert order.count("call") == 2
    assert [sequence.ids for group in backend.groups for sequence in group] == [(1,), (2,)]
    queue.stop()


def test_calls_fail_when_the_queue_stops() -> None:
    backend = Recorder()
    queue = AdmissionQueue(backend)
    queue.start()
    backend.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(queue.score, request([[1]]))
        assert backend.entered.wait(30)
        call = queue.run(lambda: 7)
        stopping = pool.submit(queue.stop)
        while not queue._stopped:
            pass
        backend.go_on.set()
        stopping.result(30)
    with pytest.raises(RuntimeError, match="stopped before it could answer"):
        call.result(30)
    with pytest.raises(RuntimeError, match="has been stopped"):
        queue.run(lambda: 7)


class TestAdapters:
    def test_calls_with_the_adapter_that_is_on_come_first(self) -> None:
        held = Held(Recorder())
        called: list[str] = []

        def call(adapter: str) -> Future[None]:
            return held.queue.run(lambda: called.append(adapter), adapter)

        calls = [call(adapter) for adapter in ("a", "", "a", "")]
        held.release()
        for done in calls:
            done.result(30)
        assert called == ["", "", "a", "a"]

    def test_what_switching_cost_is_the_backends_to_say(self) -> None:
        class Switching(Recorder):
            def swap_counts(self) -> SwapCounts:
                return SwapCounts(3, 0.5, 2)

        stats = AdmissionQueue(Switching()).stats()
        assert (stats.swaps, stats.swap_seconds, stats.adapter_loads) == (3, 0.5, 2)
        assert AdmissionQueue(Recorder()).stats().swaps == 0
