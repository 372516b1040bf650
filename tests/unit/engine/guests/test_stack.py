from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest

from engine.errors import ExampleError
from engine.guests.parking import Parking
from engine.guests.replay import advance
from engine.guests.stack import Query, Stack

ROWS = np.array([[True, False], [False, True]])
VALUES = np.array([[1.0], [2.0]])


def twice(ask: Any) -> Any:
    return ask(Query(ROWS, None)) + ask(Query(ROWS[:1], None))


def guests() -> int:
    return sum(thread.name == "guest" for thread in threading.enumerate())


def wait_for_no_guest() -> None:
    end = time.monotonic() + 10
    while guests() and time.monotonic() < end:
        time.sleep(0.005)
    assert not guests()


class TestStack:
    def test_stops_at_each_call_and_goes_on_with_its_values(self) -> None:
        stack = Stack(twice, 0)
        stack.start()
        assert stack.pending is not None
        np.testing.assert_array_equal(stack.pending.rows, ROWS)
        stack.resume(VALUES)
        assert stack.pending is not None
        assert len(stack.pending.rows) == 1
        stack.resume(VALUES[:1])
        assert stack.ended
        assert stack.pending is None
        assert stack.result.tolist() == [[2.0], [3.0]]
        assert [len(rows) for rows, _ in stack.calls] == [2, 1]
        assert len(stack.asked) == 2

    def test_what_it_writes_into_its_values_is_not_kept(self) -> None:
        def body(ask: Any) -> Any:
            ask(Query(ROWS, None))[:] = 0.0

        stack = Stack(body, 0)
        stack.start()
        stack.resume(VALUES)
        assert stack.calls[0][1].tolist() == [[1.0], [2.0]]

    def test_generators_go_on_where_they_were(self) -> None:
        def body(ask: Any) -> Any:
            drawn = [random.random(), np.random.rand()]
            ask(Query(ROWS, None))
            return [*drawn, random.random(), np.random.rand()]

        random.seed(7)
        np.random.seed(7)
        expected = [random.random(), np.random.rand(), random.random(), np.random.rand()]
        random.seed(1)
        outside = random.random()
        random.seed(1)
        stack = Stack(body, 7)
        stack.start()
        assert random.random() == outside
        np.random.seed(99)
        stack.resume(VALUES)
        assert stack.result == expected

    def test_torch_draws_from_the_seed_too(self) -> None:
        import torch

        def body(ask: Any) -> Any:
            first = torch.rand(1).item()
            ask(Query(ROWS, None))
            return [first, torch.rand(1).item()]

        torch.manual_seed(7)
        expected = torch.rand(2).tolist()
        state = torch.get_rng_state()
        stack = Stack(body, 7)
        stack.start()
        torch.rand(5)
        stack.resume(VALUES)
        assert stack.result == expected
        torch.set_rng_state(state)

    def test_closing_unwinds_it(self) -> None:
        unwound = threading.Event()

        def body(ask: Any) -> Any:
            try:
                ask(Query(ROWS, None))
            finally:
                unwound.set()

        stack = Stack(body, 0)
        stack.start()
        stack.close()
        assert unwound.wait(10)
        wait_for_no_guest()

    def test_closing_ends_one_that_catches_everything(self) -> None:
        def body(ask: Any) -> Any:
            while True:
                try:
                    ask(Query(ROWS, None))
                except Exception:
                    continue

        stack = Stack(body, 0)
        stack.start()
        stack.close()
        wait_for_no_guest()


class TestParking:
    def started(self) -> Stack:
        stack = Stack(twice, 0)
        stack.start()
        return stack

    def test_gives_a_stack_to_one_caller(self) -> None:
        parking = Parking()
        stack = self.started()
        parking.put("a", stack)
        assert parking.take("a") is stack
        assert parking.take("a") is None
        stack.close()

    def test_the_oldest_go_when_there_are_too_many(self) -> None:
        parking = Parking(limit=2)
        for key in "abc":
            parking.put(key, self.started())
        assert len(parking) == 2
        assert parking.take("a") is None
        parking.clear()
        wait_for_no_guest()

    def test_those_that_stand_too_long_go(self) -> None:
        parking = Parking(idle_seconds=-1.0)
        parking.put("a", self.started())
        assert parking.take("a") is None
        wait_for_no_guest()


class TestAdvance:
    def test_a_stack_that_was_answered_otherwise_is_not_used(self) -> None:
        known: dict[bytes, float] = {}
        starts = []

        def body(ask: Any) -> Any:
            starts.append(None)
            return ask(Query(ROWS, None)).sum() + ask(Query(ROWS[:, ::-1], None)).sum()

        def answer(value: float | None) -> Any:
            return lambda rows: None if value is None else np.full((len(rows), 1), value)

        arguments: Any = ("test", body, 0)
        rest: Any = (set, 10)
        stack = advance(*arguments, answer(None), *rest)
        assert stack.pending is not None
        assert advance(*arguments, answer(1.0), *rest).result == 4.0
        assert len(starts) == 1
        assert advance(*arguments, answer(2.0), *rest).result == 8.0
        assert len(starts) == 2
        assert not known

    def test_rows_it_asked_for_before_must_be_asked_again(self) -> None:
        arguments: Any = ("other", twice, 0, lambda rows: VALUES[: len(rows)])
        with pytest.raises(ExampleError, match="not deterministic"):
            advance(*arguments, lambda: {b"other"}, 10)
