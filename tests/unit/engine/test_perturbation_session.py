"""How often explainers are fitted in a unit whose guest asks call by call."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.explainers import KernelShap, Lime, Occlusion
from engine.explainers.fits import FITS
from engine.guests.parking import PARKED
from engine.pool import CoalitionPool
from engine.step import Round, step
from tests.unit.engine.guests.own_guests import PLACE
from tests.unit.fake_sweep import CountingHost, plan_of, sweep

TEXTS = (
    "not good and not bad , i love and loved it",
    "never boring , no problem , not good and not bad , and i love and loved it",
)
GUEST = {"name": f"{PLACE}:walk", "id": "walk", "steps": 12}
PLAIN = (
    {"name": "kernel_shap", "num_samples": 80},
    {"name": "kernel_shap", "id": "regressed", "num_samples": 80, "surrogate": "gaussian_process"},
    {"name": "lime", "num_samples": 100},
    "occlusion",
)
GROWING = (
    {"name": "kernel_shap", "id": "kernel", "num_samples": 400, "relative_error": 0.05},
    {"name": "lime", "id": "growing", "num_samples": 900, "relative_error": 0.03},
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    for kept in (PARKED, FITS):
        kept.clear()
    yield
    for kept in (PARKED, FITS):
        kept.clear()


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Fits of explainers with a fixed budget, by settings and number of features."""
    counts: Counter[tuple[str, int]] = Counter()
    for method in (KernelShap, Lime, Occlusion):

        def counted(self: Any, pool: CoalitionPool, fit: Any = method.fit) -> Any:
            if getattr(self, "relative_error", None) is None:
                counts[repr(self), pool.n_features] += 1
            return fit(self, pool)

        monkeypatch.setattr(method, "fit", counted)
    return counts


def run(
    *explainers: Any, faithfulness: bool = True, between: Callable[[], None] = lambda: None
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Return all rows of a unit and the number of rounds; `between` is called before a step."""
    config = sweep(*explainers, metrics={"faithfulness": faithfulness}, models=["fake:and_or"])
    plan = plan_of(config, TEXTS)
    [pair], [unit] = plan.pairs.values(), plan.units
    rounds: list[Round] = []
    with CountingHost(pair) as host:
        while True:
            between()
            output = step(pair.context, unit, 1, "n", rounds)
            if output.result is not None:
                tables = output.result.tables
                return {name: table.to_pylist() for name, table in tables.items()}, len(rounds)
            assert output.request is not None
            assert output.lookups is not None
            rounds.append(Round(output.lookups, host.score(output.request)))


def results(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return all rows but those of times; nan is not nan, but reads alike."""
    return repr({name: table for name, table in rows.items() if name != "timings"})


@pytest.mark.parametrize(("faithfulness", "most"), [(False, 1), (True, 2)])
def test_whatever_process_a_step_runs_in_each_is_fitted_for_its_metrics_and_for_its_rows(
    fits: Counter[tuple[str, int]], faithfulness: bool, most: int
) -> None:
    rows, rounds = run(*PLAIN, GUEST, faithfulness=faithfulness, between=FITS.clear)
    assert rounds > 10
    assert rows["failures"] == []
    assert len(fits) == len(PLAIN) * len(TEXTS)
    assert set(fits.values()) == {most}


def test_one_process_makes_each_fit_once(fits: Counter[tuple[str, int]]) -> None:
    rows, rounds = run(*PLAIN, *GROWING, GUEST)
    assert rounds > 10
    assert rows["failures"] == []
    assert set(fits.values()) == {1}
    stopped = [row for row in rows["attributions"] if '"rounds": ' in row["diagnostics"]]
    assert len(stopped) == len(GROWING) * len(TEXTS)
    assert len(fits) > (len(PLAIN) + len(GROWING)) * len(TEXTS)  # budgets on the way


def test_fits_found_and_fits_made_again_give_the_same_rows() -> None:
    kept, n_kept = run(*PLAIN, *GROWING, GUEST)
    FITS.clear()
    made, n_made = run(*PLAIN, *GROWING, GUEST, between=FITS.clear)
    assert results(kept) == results(made)
    assert n_kept == n_made


def test_a_guest_beside_it_changes_no_row_of_an_explainer() -> None:
    def own(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        found = rows["attributions"] + rows["metrics"]
        return [{**row, "unit": ""} for row in found if row["explainer"] != "walk"]

    alone, _ = run(*PLAIN, *GROWING)
    FITS.clear()
    beside, _ = run(*PLAIN, *GROWING, GUEST)
    assert own(alone) == own(beside)


def test_a_fit_that_was_found_counts_with_the_time_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()  # a second goes by from one look at the clock to the next
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    for between in (lambda: None, FITS.clear):
        rows, _ = run(PLAIN[1], GROWING[0], GUEST, between=between)
        seconds = {(t["consumer"], t["example"]): t["step_seconds"] for t in rows["timings"]}
        for row in rows["attributions"]:
            if row["explainer"] != "walk":
                fitted = json.loads(row["diagnostics"]).get("rounds", 1)
                assert seconds[row["explainer"], row["example"]] >= 1 + fitted
        FITS.clear()
