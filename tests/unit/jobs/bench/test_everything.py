from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from jobs.bench import (
    estimators,
    everything,
    explainers,
    memory,
    overhead,
    ray_against_process,
    ray_overhead,
    scoring,
)
from jobs.bench.everything import TARGETS, Target, judge


def test_a_target_has_one_bound_and_is_met_at_it() -> None:
    assert all((t.least is None) != (t.most is None) for t in TARGETS)
    assert Target("b", "f", least=2.0).met_by(2.0)
    assert not Target("b", "f", least=2.0).met_by(1.9)
    assert Target("b", "f", most=2.0).met_by(2.0)
    assert not Target("b", "f", most=2.0).met_by(2.1)


def test_missed_figures_are_named_and_missing_ones_left_out() -> None:
    console = Console(record=True, width=120)
    figures = {"scoring": {"packed_vs_padded_chat": 7.0, "tokens_over_floor": 1.2}}
    assert judge(figures, console) == ["tokens_over_floor"]
    text = console.export_text()
    assert "packed_vs_padded_chat" in text
    assert "packed_vs_vllm_chat" not in text
    assert text.count("FAIL") == 1
    assert text.count("pass") == 1


def test_every_part_is_told_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that loads a model, with what was given; the parts themselves have tests of their own."""
    told: dict[str, Any] = {}

    def stand_in(name: str) -> Any:
        def part(*args: Any, **options: Any) -> dict[str, Any]:
            told[name] = options.get("device")
            return {}

        return part

    for module, name in (
        (scoring, "run"),
        (estimators, "run"),
        (explainers, "run"),
        (memory, "run"),
        (overhead, "run"),
        (ray_overhead, "run"),
        (ray_against_process, "run"),
    ):
        monkeypatch.setattr(module, name, stand_in(f"{module.__name__}.{name}"))
    console = Console(record=True)
    figures = everything.run("m", "cuda:0", None, console)
    assert figures["failed"] == []
    assert {target.bench for target in TARGETS} <= figures.keys()
    without_model = {"jobs.bench.overhead.run", "jobs.bench.ray_overhead.run"}
    for name, device in told.items():
        assert device == (None if name in without_model else "cuda:0"), name
