from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from engine.explainers.coalitions import everything
from jobs.bench.estimators import reach, run
from jobs.bench.games import Game


def _games(number: int, n_features: int) -> list[Game]:
    """Return games whose interactions fall with their size, as those of texts do."""
    made = []
    signs = np.where(everything(n_features), 1.0, -1.0)
    for seed in range(number):
        weights = np.random.default_rng(seed).normal(size=(n_features, 6)) / 2
        values = np.tanh(signs @ weights / 2).sum(axis=1)
        made.append(Game(f"game {seed}", n_features, values[:, None]))
    return made


def test_values_are_looked_up() -> None:
    [game] = _games(1, 5)
    np.testing.assert_array_equal(game.value(everything(5)), game.values)
    np.testing.assert_array_equal(game.value(everything(5)[[7, 3]]), game.values[[7, 3]])


@pytest.mark.parametrize(
    ("error", "budget"), [(0.8, 2.0), (0.5, 2.0), (0.25, 8.0), (0.35355, 4.0), (0.1, np.inf)]
)
def test_reach_follows_a_power_law(error: float, budget: float) -> None:
    errors = {multiple: 0.5 * (2 / multiple) ** 0.5 for multiple in (2.0, 8.0, 32.0)}
    assert reach(errors, error) == pytest.approx(budget, rel=1e-3)


def test_figures_of_a_few_games() -> None:
    figures = run(games=_games(3, 8), seeds=2)
    assert figures["words"] == [8, 8, 8]
    assert figures["worst_complete"] < 1e-9
    assert set(figures["error"]) == {
        "kernel_shap",
        "kernel_shap + surrogate",
        "lime",
        "kernel_shap, pool",
        "lime, pool",
        "shap",
        "captum",
    }
    for row in figures["error"].values():
        assert row[20.0] < row[min(m for m in row if m >= 5)]
        assert 40.0 not in row  # more than there are coalitions
    assert figures["error"]["kernel_shap"][10.0] < figures["error"]["captum"][10.0]
    assert figures["vs_shap"][10.0] == pytest.approx(
        figures["error"]["kernel_shap"][10.0] / figures["error"]["shap"][10.0]
    )
    assert set(figures["coverage"]) == set(figures["error"]) - {"shap", "captum"}
    assert all(0 <= c <= 1 for row in figures["coverage"].values() for c in row.values())
    assert figures["stopped"]["kernel_shap + surrogate"]["evaluations"] < 256
    assert figures["worst_vs_shap"] == max(figures["vs_shap"].values())
    assert figures["worst_evaluations_of_shap"] == max(figures["evaluations_of_shap"].values())
    inside = [c for row in figures["coverage"].values() for c in row.values()]
    inside += [row["coverage"] for row in figures["stopped"].values()]
    assert (figures["least_coverage"], figures["most_coverage"]) == (min(inside), max(inside))
    json.dumps(figures)


def test_the_pool_is_held_against_each_methods_own_coalitions() -> None:
    console = Console(record=True, width=200)
    figures = run(games=_games(4, 9), seeds=4, console=console)
    error, ratios = figures["error"], figures["pool_vs_own"]
    assert set(ratios) == {"kernel_shap", "lime"}
    # lime takes from the pool from eight evaluations a word on; before that it draws its own
    assert set(ratios["lime"]) == {m for m in error["lime"] if m >= 8}
    assert set(ratios["kernel_shap"]) == set(error["kernel_shap"])
    for name, row in ratios.items():
        for multiple, ratio in row.items():
            assert ratio == error[f"{name}, pool"][multiple] / error[name][multiple]
    # other coalitions than its own, against the same exact values
    assert all(0.3 < r < 3 for row in ratios.values() for r in row.values())
    assert any(r != 1 for r in ratios["kernel_shap"].values())
    assert figures["worst_pool_vs_own"] == max(max(row.values()) for row in ratios.values())
    # pairs are never valued twice, lime's own draws are
    assert figures["evaluations_of_own"]["kernel_shap"][10.0] == pytest.approx(1)
    assert figures["evaluations_of_own"]["lime"][10.0] > 1
    assert figures["stopped"].keys() >= {"kernel_shap, pool", "lime, pool"}
    text = console.export_text()
    assert f"{ratios['lime'][10.0]:.3f}" in text
