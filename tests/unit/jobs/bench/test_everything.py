from __future__ import annotations

from rich.console import Console

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
