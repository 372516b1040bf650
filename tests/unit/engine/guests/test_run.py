from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.guests.parking import PARKED
from engine.plan import Plan
from engine.step import Round, step
from engine.types import Example
from tests.unit.engine.guests.own_guests import PLACE
from tests.unit.fake_sweep import (
    CountingHost,
    examples_of,
    plan_of,
    run_all,
    run_texts,
    sweep,
)

TEXT = "a good film but not a great film"


@pytest.fixture(autouse=True)
def no_stack_left() -> Iterator[None]:
    PARKED.clear()
    yield
    PARKED.clear()


def run_plan(
    plan: Plan, between: Callable[[], None], numerics: str = "n"
) -> tuple[dict[str, Any], int]:
    """Return all rows but timings, and the number of rounds; `between` is called before a step."""
    [pair] = plan.pairs.values()
    [unit] = plan.units
    rounds: list[Round] = []
    with CountingHost(pair) as host:
        while True:
            between()
            output = step(pair.context, unit, 1, numerics, rounds)
            if output.result is not None:
                tables = output.result.tables
                return {k: t.to_pylist() for k, t in tables.items() if k != "timings"}, len(rounds)
            assert output.request is not None
            assert output.lookups is not None
            rounds.append(Round(output.lookups, host.score(output.request)))


def guest(name: str, **params: Any) -> dict[str, Any]:
    return {"name": f"{PLACE}:{name}", "id": name, **params}


class TestOwnGuest:
    def test_its_rows_are_like_ours(self) -> None:
        ours = {"name": "occlusion", "target": "probability"}
        rows = run_texts(sweep(guest("leave_one_out"), ours), "fun good bad")
        [found, expected] = rows["attributions"]
        assert rows["failures"] == []
        assert found["spans"] == expected["spans"]
        assert found["explainer"] == "leave_one_out"
        assert found["method"] == f"{PLACE}:leave_one_out"
        np.testing.assert_allclose(found["values"], expected["values"], atol=1e-12)
        np.testing.assert_allclose(found["values_by_label"], expected["values_by_label"])
        same = ("features", "operator", "target", "class_rule", "class_name", "full_value")
        assert {k: found[k] for k in same} == {k: expected[k] for k in same}
        assert found["evaluations"] == 4
        assert np.isnan(found["base"])
        assert found["residual"] is None

    def test_parameters_and_seed_reach_it(self) -> None:
        config = sweep(
            guest("leave_one_out", word="great"), guest("seeded", seed=11, **{"class": "positive"})
        )
        rows = run_texts(config, "awful film")
        by_name = {row["explainer"]: row for row in rows["attributions"]}
        assert by_name["leave_one_out"]["evaluations"] == 3
        assert by_name["seeded"]["values"] == [11.0]

    def test_metrics_remove_its_spans_by_the_operator(self) -> None:
        config = sweep(
            guest("leave_one_out", operator="mask", replacement="_"),
            {"name": "occlusion", "operator": "mask", "replacement": "_", "target": "probability"},
            metrics={"faithfulness": True},
        )
        rows = run_texts(config, "fun good bad")
        by_name: dict[str, list[Any]] = {}
        for row in rows["metrics"]:
            by_name.setdefault(row["explainer"], []).append((row["metric"], row["random"]))
        assert by_name["leave_one_out"] == by_name["occlusion"]

    def test_the_target_is_what_it_is_answered(self) -> None:
        config = sweep(guest("leave_one_out", target="log_odds"), "exact")
        [found, expected] = run_texts(config, "fun good bad")["attributions"]
        np.testing.assert_allclose(found["values"], expected["values"], atol=1e-6)

    def test_one_field_is_its_text_and_the_others_stay(self) -> None:
        config = sweep(
            guest("leave_one_out", field="b"),
            {"name": "occlusion", "target": "probability"},
            data__inputs={"a": "a", "b": "b"},
            prompt__template="{a} / {b}:",
        )
        rows = run_all(config, [Example("e", {"a": "good", "b": "bad film"})])
        [found, expected] = rows["attributions"]
        assert {s["field"] for s in found["spans"]} == {"b"}
        np.testing.assert_allclose(found["values"], expected["values"][1:], atol=1e-12)


class TestSharing:
    def test_a_guest_over_our_features_pays_for_nothing_we_have(self) -> None:
        exact = {"name": "exact", "target": "probability"}
        with_guest = sweep(exact, "guest:shap.kernel", "guest:captum.kernel_shap")
        alone = run_texts(sweep(exact), "fun good bad")
        rows = run_texts(with_guest, "fun good bad")
        assert rows["failures"] == []
        count = [sum(r["evaluations_new"] for r in t["timings"]) for t in (alone, rows)]
        assert count == [8, 8]
        values = {row["explainer"]: row["values"] for row in rows["attributions"]}
        np.testing.assert_allclose(values["guest:shap.kernel"], values["exact"], atol=1e-9)

    def test_features_that_only_share_our_names_have_no_pool_of_ours(self) -> None:
        """`don't` is one word of ours and two of the guest's."""
        text = "don't ask a bright and tender film for patience but for well-made jokes, all ten"
        ours = [{"name": "lime", "num_samples": 400}, {"name": "kernel_shap", "num_samples": 512}]
        config = sweep(*ours, guest("leave_one_out"), metrics={"faithfulness": True})
        rows = run_texts(config, text)
        assert rows["failures"] == []
        found = {row["explainer"]: row for row in rows["attributions"]}
        assert json.loads(found["lime"]["diagnostics"])["sampling"] == "pool"
        assert found["leave_one_out"]["features"] == found["lime"]["features"]
        assert found["leave_one_out"]["n_features"] == found["lime"]["n_features"] + 2
        for row in rows["timings"]:
            assert row["evaluations_new"] <= row["evaluations_asked"], row["consumer"]

    def test_the_store_answers_it_in_another_run(self, tmp_path: Any) -> None:
        config = sweep(guest("walk"))
        plan = plan_of(config, [TEXT], tmp_path)
        [pair] = plan.pairs.values()
        [unit] = plan.units
        with CountingHost(pair) as host:
            first = host.run(pair, unit)
            asked = len(host.sequences)
            assert first.evaluations is not None
            stored = _stored(pair.context.store, first)
            again = host.run(pair, type(unit)(unit.id, unit.pair, unit.examples, stored))
            assert len(host.sequences) == asked
        for name in ("attributions", "predictions"):
            assert repr(again.tables[name].to_pylist()) == repr(first.tables[name].to_pylist())


def _stored(folder: str, result: Any) -> Any:
    from engine.commits import CommitLog
    from engine.store import index_store, write_evaluations

    log = CommitLog(folder, exclusive=False)
    log.append(write_evaluations(folder, "w", [result]))
    log.close()
    [parts] = index_store(folder).values()
    return parts


EVERY = [
    {"name": "guest:lime", "num_samples": 80},
    {"name": "guest:shap.kernel", "nsamples": 40, "seed": 3},
    {"name": "guest:shap.partition", "max_evals": 30, "seed": 3},
    {"name": "guest:captum.kernel_shap", "n_samples": 20, "seed": 3},
    guest("walk", seed=3),
]


class TestReplay:
    @pytest.mark.parametrize("explainer", EVERY, ids=lambda e: e["name"].split(":")[-1])
    def test_the_loss_of_every_stack_changes_no_row(self, explainer: dict[str, Any]) -> None:
        config = sweep(explainer, metrics={"faithfulness": True})
        plan = plan_of(config, [TEXT])
        live, n_live = run_plan(plan, lambda: None)
        lost, n_lost = run_plan(plan, PARKED.clear)
        assert live["failures"] == []
        assert repr(live) == repr(lost)  # nan is not nan: a base that the guest has not
        assert n_live == n_lost

    def test_the_generators_of_the_process_are_left_alone(self) -> None:
        np.random.seed(5)
        expected = np.random.rand(4).tolist()
        np.random.seed(5)
        found = [np.random.rand() for _ in range(2)]
        run_plan(plan_of(sweep(guest("walk")), [TEXT]), lambda: None)
        found += [np.random.rand() for _ in range(2)]
        assert found == expected

    def test_guests_side_by_side_draw_as_if_alone(self) -> None:
        alone = run_texts(sweep(guest("walk", seed=3)), TEXT)["attributions"]
        both = sweep(guest("walk", seed=3), guest("walk", seed=4) | {"id": "b"})
        together = run_texts(both, TEXT)["attributions"]
        assert alone[0]["values"] == together[0]["values"] != together[1]["values"]

    def test_answers_of_another_model_are_not_taken_for_this_one(self) -> None:
        first = run_texts(sweep(guest("walk", seed=3)), TEXT)["attributions"][0]
        config = sweep(
            guest("walk", seed=3),
            models=[{"path": "fake:linear", "options": {"weights": {"good": -3.0}}}],
        )
        second = run_texts(config, TEXT)["attributions"][0]
        PARKED.clear()
        assert second["values"] == run_texts(config, TEXT)["attributions"][0]["values"]
        assert second["values"] != first["values"]


class TestFailures:
    def test_one_that_asks_otherwise_when_run_again(self) -> None:
        plan = plan_of(sweep(guest("forgets_its_seed"), "occlusion"), [TEXT])
        rows, _ = run_plan(plan, PARKED.clear)
        [failure] = rows["failures"]
        assert failure["code"] == "not_deterministic"
        assert failure["explainer"] == "forgets_its_seed"
        assert failure["stage"] == "explain"
        assert "not deterministic" in failure["message"]
        assert [row["explainer"] for row in rows["attributions"]] == ["occlusion"]

    @pytest.mark.parametrize("between", [lambda: None, PARKED.clear], ids=["live", "lost"])
    def test_one_that_raises(self, between: Callable[[], None]) -> None:
        rows, _ = run_plan(plan_of(sweep(guest("raises"), "occlusion"), [TEXT]), between)
        [failure] = rows["failures"]
        assert failure["code"] == "guest_failed"
        assert failure["message"] == "the guest failed: LookupError: nothing to see"
        assert len(rows["attributions"]) == 1

    def test_one_that_leaves_the_process(self) -> None:
        [failure] = run_texts(sweep(guest("exits")), TEXT)["failures"]
        assert (failure["code"], failure["message"]) == (
            "guest_failed",
            "the guest failed: SystemExit: 3",
        )

    @pytest.mark.parametrize("between", [lambda: None, PARKED.clear], ids=["live", "lost"])
    def test_one_that_asks_without_end(self, between: Callable[[], None]) -> None:
        plan = plan_of(sweep(guest("insatiable", max_evaluations=25)), [TEXT])
        rows, n_rounds = run_plan(plan, between)
        [failure] = rows["failures"]
        assert failure["code"] == "max_evaluations"
        assert "30 distinct evaluations, the limit is 25" in failure["message"]
        assert n_rounds == 2

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            ("none", "not (spans, values)"),
            ("shape", "shape [1]; [2, 1] are needed"),
            ("nan", "not finite"),
            ("outside", "outside the text"),
            ("overlap", "overlap at character 1"),
        ],
    )
    def test_one_that_returns_something_else(self, kind: str, message: str) -> None:
        [failure] = run_texts(sweep(guest("returns", kind=kind)), TEXT)["failures"]
        assert failure["code"] == "guest_result"
        assert message in failure["message"]

    def test_one_that_asks_of_a_string(self) -> None:
        [failure] = run_texts(sweep(guest("wants_strings")), TEXT)["failures"]
        assert "predict takes a list of strings" in failure["message"]

    def test_a_text_it_made_that_is_too_long(self) -> None:
        config = sweep(
            guest("leave_one_out", word="w" * 90),
            models=[{"path": "fake:linear", "options": {"max_tokens": 100}}],
        )
        [failure] = run_texts(config, TEXT)["failures"]
        assert (failure["code"], failure["explainer"]) == ("too_long", "leave_one_out")

    def test_a_text_the_host_refuses(self) -> None:
        config = sweep(
            guest("leave_one_out", word="zebra"),
            models=[{"path": "fake:linear", "options": {"fail_on": "zebra"}}],
        )
        [failure] = run_texts(config, TEXT)["failures"]
        assert (failure["code"], failure["explainer"]) == ("not_scored", "leave_one_out")

    def test_no_gold_label(self) -> None:
        config = sweep(guest("leave_one_out", **{"class": "gold"}))
        rows = run_all(config, examples_of([TEXT, TEXT], [None, 1]))
        assert [row["code"] for row in rows["failures"]] == ["no_gold_label"]
        assert [row["class_name"] for row in rows["attributions"]] == ["positive"]


def test_timings_name_what_it_asked_and_what_was_new() -> None:
    rows = run_texts(sweep(guest("walk"), "occlusion"), TEXT)
    by_name = {row["consumer"]: row for row in rows["timings"]}
    assert by_name["walk"]["evaluations_asked"] == 7
    assert by_name["walk"]["evaluations_new"] == 6  # the prediction has paid for the text
    assert by_name["walk"]["step_seconds"] > 0


def test_the_whole_text_is_asked_once() -> None:
    config = sweep(guest("leave_one_out"), "guest:shap.kernel", metrics={"faithfulness": True})
    plan = plan_of(config, [TEXT])
    [pair] = plan.pairs.values()
    with CountingHost(pair) as host:
        host.run(pair, plan.units[0])
        prompt = tuple(pair.context.template.render({"text": TEXT}).encode())
        assert host.sequences.count(prompt) == 1


def test_rows_fit_the_schema_of_the_tables() -> None:
    rows = run_texts(sweep(guest("leave_one_out")), TEXT)
    [row] = rows["attributions"]
    assert json.loads(row["diagnostics"]) == {}
    assert isinstance(pa.array(row["values"]), pa.DoubleArray)
