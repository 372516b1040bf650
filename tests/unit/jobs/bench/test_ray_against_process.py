"""The steady state of a sweep, from counters whose rate is known."""

from __future__ import annotations

import pytest

from jobs.bench.ray_against_process import STARTING_SECONDS, Sample, steady_rate


def _counters(seconds: float, slow_until: float) -> list[Sample]:
    """Return a host asked from second 3 on: 10 tokens/s until `slow_until`, then 100, in replies
    of 50 tokens; a slow end behind 96 % of them."""
    found, done = [], 0.0
    step = 0.5
    times = [step * i for i in range(int(seconds / step) + 1)]
    total = 0.0
    for time in times:
        if time >= 3:
            done += step * (10 if time < slow_until else 100)
        total = 50 * (done // 50)
        found.append(Sample(time, int(total)))
    end = int(total / 0.96 - total)
    return [*found, Sample(seconds + 60, int(total) + end)]


def test_the_rate_is_that_between_the_start_and_the_end() -> None:
    rate, spent = steady_rate(_counters(120, slow_until=3 + STARTING_SECONDS))
    assert rate == pytest.approx(100)
    assert 90 < spent < 120 - 3 - STARTING_SECONDS + 1


def test_a_run_without_a_steady_state_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="take more texts"):
        steady_rate(_counters(15, slow_until=0))
