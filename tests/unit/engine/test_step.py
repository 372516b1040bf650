from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.analytic import analytic_model, closed_form
from engine import schema
from engine.answers import read_lookups
from engine.commits import CommitLog
from engine.context import Unit
from engine.explainers.fits import FITS
from engine.explainers.occlusion import Occlusion
from engine.metrics.faithfulness import Faithfulness
from engine.plan import Pair, shard, with_stored
from engine.results import result_digest
from engine.step import Round, failed_unit, run_in_process, step
from engine.store import index_store, write_evaluations
from engine.target import normalise
from engine.types import Example
from tests.unit.fake_sweep import (
    CountingHost,
    examples_of,
    plan_of,
    run_texts,
    sweep,
)

FOUR = [
    {"name": "lime", "num_samples": 40},
    {"name": "kernel_shap", "num_samples": 40},
    "occlusion",
    "random",
]
TEXTS = ["A good film, but the plot is dull and far too long.", "awful", "", "very very good"]


def first(config: Any, *texts: str) -> tuple[Pair, Unit]:
    plan = plan_of(config, examples_of(texts))
    return plan.pairs[plan.units[0].pair], plan.units[0]


def weights_of(model: str, words: list[str], options: Any = None) -> np.ndarray:
    return closed_form(analytic_model(model, options), words)


class TestClosedForms:
    @pytest.mark.parametrize("explainer", ["exact", "occlusion", "kernel_shap", "permutation_shap"])
    def test_linear_attributions_are_the_words_weights(self, explainer: str) -> None:
        text = "A good film , never dull but awful and too long"
        config = sweep({"name": explainer, "class": "positive"})
        [row] = run_texts(config, text)["attributions"]
        words = [text[s["start"] : s["end"]] for s in row["spans"]]
        assert words == text.replace(" ,", "").split()
        np.testing.assert_allclose(row["values"], weights_of("fake:linear", words), atol=2e-6)
        assert row["base"] == pytest.approx(0.0, abs=1e-6)
        assert row["full_value"] == pytest.approx(sum(row["values"]), abs=1e-5)

    def test_lime_orders_the_words_of_a_linear_model(self) -> None:
        text = "an awful dull film with a good and superb end"
        config = sweep({"name": "lime", "num_samples": 600, "class": "positive"})
        [row] = run_texts(config, text)["attributions"]
        weights = weights_of("fake:linear", text.split())
        assert row["r2"] > 0.99
        assert [np.argmin(row["values"]), np.argmax(row["values"])] == [
            np.argmin(weights),
            np.argmax(weights),
        ]

    @pytest.mark.parametrize(
        "text",
        ["not good and not bad", "no problem, i love and loved it", "never boring never boring"],
    )
    def test_and_or_shapley_values(self, text: str) -> None:
        config = sweep({"name": "exact", "class": "positive"}, models=["fake:and_or"])
        [row] = run_texts(config, text)["attributions"]
        words = [text[s["start"] : s["end"]] for s in row["spans"]]
        np.testing.assert_allclose(row["values"], weights_of("fake:and_or", words), atol=2e-6)
        assert np.abs(row["values"]).max() > 0.3

    def test_probability_of_one_word_is_a_difference_of_sigmoids(self) -> None:
        config = sweep({"name": "exact", "class": "positive", "target": "probability"})
        [row] = run_texts(config, "superb")["attributions"]
        np.testing.assert_allclose(row["values"], [1 / (1 + np.exp(-2.0)) - 0.5], atol=1e-7)
        assert row["base"] == pytest.approx(0.5)

    def test_more_than_two_labels(self) -> None:
        labels = {"a": " ay", "b": " bee", "c": " sea"}
        weights = {"one": [1.0, 0.0, -1.0], "two": [0.0, 3.0, 0.0]}
        config = sweep(
            {"name": "exact", "target": "logprob", "class": "b"},
            models=[{"path": "fake:planted", "options": {"weights": weights}}],
            prompt__labels=labels,
        )
        rows = run_texts(config, "one two")
        logits = np.array([[0.0, 0.0, 0.0], [1, 0, -1], [0, 3, 0], [1, 3, -1]])
        p = normalise(logits)
        expected = 0.5 * ((p[1] - p[0]) + (p[3] - p[2])), 0.5 * ((p[2] - p[0]) + (p[3] - p[1]))
        [row] = rows["attributions"]
        np.testing.assert_allclose(row["values_by_label"], np.transpose(expected), atol=1e-6)
        np.testing.assert_allclose(row["values"], np.transpose(expected)[1], atol=1e-6)
        assert rows["predictions"][0]["predicted"] == 1


class TestRequests:
    def test_coalitions_of_one_text_cost_one_sequence(self) -> None:
        """Of "very very good", removing either first word gives the same text."""
        pair, unit = first(sweep("exact"), "very very good")
        with CountingHost(pair) as host:
            result = host.run(pair, unit)
        assert len(set(host.sequences)) == len(host.sequences) == 6
        [row] = result.tables["attributions"].to_pylist()
        assert row["evaluations"] == 8
        assert row["values"][0] == row["values"][1] == 0.0

    def test_explainers_share_one_round(self) -> None:
        pair, unit = first(sweep(*FOUR), *TEXTS)
        with CountingHost(pair) as host:
            host.run(pair, unit)
        assert len(host.requests) == 1
        per_example = list(
            zip(host.requests[0].column("example").to_pylist(), host.sequences, strict=True)
        )
        assert len(set(per_example)) == len(per_example)

    def test_metrics_take_one_more(self) -> None:
        pair, unit = first(sweep(*FOUR, metrics={"faithfulness": True}), *TEXTS)
        with CountingHost(pair) as host:
            host.run(pair, unit)
        assert len(host.requests) == 2

    def test_the_task_has_the_labels_tokens(self) -> None:
        pair, unit = first(sweep("occlusion", run__deterministic="example"), "good")
        output = step(pair.context, unit, 1, "n", [])
        assert output.result is None
        assert output.request is not None
        task = schema.task_of(output.request)
        assert task.label_ids == (tuple(b" negative"), tuple(b" positive"))
        assert task.by_example

    def test_pad_hides_tokens_and_keeps_positions(self) -> None:
        pair, unit = first(sweep({"name": "occlusion", "operator": "pad"}), "so good")
        output = step(pair.context, unit, 1, "n", [])
        assert output.request is not None
        rows = output.request.to_pylist()
        prompt = list(b"Review: so good\nSentiment:")
        assert [row["ids"] for row in rows] == [prompt] * 4
        so, good = [8, 9], [11, 12, 13, 14]
        hidden = {tuple(row["hidden"] or ()) for row in rows}
        assert hidden == {(), tuple(so), tuple(good), tuple(so + good)}

    def test_hidden_tokens_tell_sequences_apart_and_none_hidden_does_not(self) -> None:
        """The prediction brings the full prompt; both explainers find it there."""
        pad = {"name": "occlusion", "id": "padded", "operator": "pad"}
        pair, unit = first(sweep("occlusion", pad), "so good")
        output = step(pair.context, unit, 1, "n", [])
        assert output.request is not None
        assert output.lookups is not None
        rows = output.request.select(["ids", "hidden"]).to_pylist()
        told_apart = {(tuple(row["ids"]), tuple(row["hidden"] or ())) for row in rows}
        assert len(rows) == len(told_apart) == 7
        asks = {ask.consumer.split("\x1f")[1]: ask for ask in read_lookups(output.lookups)}
        assert asks["prediction"].sequence.tolist() == [0]
        for name in ("occlusion", "padded"):
            full = asks[name].coalitions.all(axis=1)
            assert asks[name].sequence[full].tolist() == [0]
            np.testing.assert_array_equal(asks[name].fresh, ~full)

    def test_a_step_is_a_pure_function(self) -> None:
        pair, unit = first(sweep(*FOUR), *TEXTS)
        with CountingHost(pair) as host:
            one, other = (step(pair.context, unit, 1, host.numerics, []) for _ in range(2))
            assert one.request is not None
            assert one.lookups is not None
            assert one.request.equals(other.request, check_metadata=True)
            assert one.lookups.equals(other.lookups)
            answered = [Round(one.lookups, host.score(one.request))]
            done = [step(pair.context, unit, 1, host.numerics, answered) for _ in range(2)]
        digests = {result_digest(o.result.tables) for o in done if o.result is not None}
        assert len(digests) == 1


class TestAccounts:
    @pytest.mark.parametrize("faithfulness", [False, True])
    def test_new_evaluations_are_the_sequences_of_the_requests(self, faithfulness: bool) -> None:
        pair, unit = first(sweep(*FOUR, metrics={"faithfulness": faithfulness}), *TEXTS)
        with CountingHost(pair) as host:
            timings = host.run(pair, unit).tables["timings"].to_pylist()
        assert sum(row["evaluations_new"] for row in timings) == len(host.sequences)
        assert sum(row["tokens_new"] for row in timings) == sum(map(len, host.sequences))
        asked = Counter(i for r in host.requests for i in r.column("example").to_pylist())
        for number in range(len(TEXTS)):
            rows = [row for row in timings if row["example"] == f"e{number}"]
            assert sum(row["evaluations_new"] for row in rows) == asked[number]

    def test_host_seconds_are_shared_by_tokens(self) -> None:
        pair, unit = first(sweep(*FOUR), *TEXTS)
        seconds = 2.0

        def score(request: pa.Table) -> pa.Table:
            rows = request.num_rows
            cost = schema.ScoreCost(seconds, 0, "n")
            log_probs = np.tile(np.float32([-1.0, -2.0]), (rows, 1))
            return schema.score_reply(log_probs, np.zeros(rows, np.float32), {}, cost)

        rows = run_in_process(pair.context, unit, "n", score).tables["timings"].to_pylist()
        assert sum(row["host_seconds"] for row in rows) == pytest.approx(seconds)
        price = {row["host_seconds"] / row["tokens_new"] for row in rows if row["tokens_new"]}
        assert max(price) == pytest.approx(min(price))
        for row in rows:
            assert row["standalone_seconds"] == pytest.approx(row["tokens_asked"] * min(price))

    def test_asked_counts_coalitions_whoever_paid(self) -> None:
        rows = run_texts(sweep("exact", "occlusion", "random"), "a good film")["timings"]
        found = {
            row["consumer"]: (row["evaluations_asked"], row["evaluations_new"]) for row in rows
        }
        assert found == {
            "prediction": (1, 1),
            "exact": (8, 7),
            "occlusion": (5, 0),
            "random": (2, 0),
        }


class TestIndependence:
    def test_units_and_neighbours_change_no_row(self) -> None:
        config = sweep(*FOUR, metrics={"faithfulness": True})
        plan = plan_of(config, examples_of(TEXTS))
        [pair] = plan.pairs.values()
        rows: dict[int, dict[str, list[Any]]] = {}
        with CountingHost(pair) as host:
            for size in (1, 3):
                rows[size] = {}
                for unit in shard(pair, plan.examples, size):
                    for name, table in host.run(pair, unit).tables.items():
                        if name != "timings":
                            found = table.drop_columns(["unit"]).to_pylist()
                            rows[size].setdefault(name, []).extend(found)
        assert rows[1] == rows[3]

    def test_coalitions_do_not_depend_on_the_model(self) -> None:
        config = sweep(*FOUR, models=["fake:linear", "fake:and_or"])
        plan = plan_of(config, examples_of(TEXTS))
        asked = []
        for unit in plan.units:
            output = step(plan.pairs[unit.pair].context, unit, 1, "n", [])
            assert output.lookups is not None
            asked.append(output.lookups)
        assert asked[0].equals(asked[1])

    def test_another_seed_draws_other_coalitions(self) -> None:
        text = "a good film with many words that is far from dull"
        lookups = []
        for seed in (0, 1):
            pair, unit = first(sweep({"name": "lime", "num_samples": 20}, run__seed=seed), text)
            lookups.append(step(pair.context, unit, 1, "n", []).lookups)
        assert lookups[0] is not None
        assert not lookups[0].equals(lookups[1])


class TestFailures:
    def test_a_row_error_fails_the_explainers_that_needed_it(self) -> None:
        broken = {"name": "occlusion", "id": "masked", "operator": "mask", "replacement": "curse"}
        config = sweep(
            "occlusion", broken, models=[{"path": "fake:linear", "options": {"fail_on": "curse"}}]
        )
        rows = run_texts(config, "good film", "dull")
        assert [
            (f["example"], f["explainer"], f["stage"], f["code"]) for f in rows["failures"]
        ] == [
            ("e0", "masked", "explain", "not_scored"),
            ("e1", "masked", "explain", "not_scored"),
        ]
        assert "curse" in rows["failures"][0]["message"]
        assert [row["explainer"] for row in rows["attributions"]] == ["occlusion"] * 2
        assert len(rows["predictions"]) == 2

    def test_a_prompt_that_can_not_be_scored_fails_its_example_alone(self) -> None:
        config = sweep(
            "occlusion", models=[{"path": "fake:linear", "options": {"fail_on": "curse"}}]
        )
        rows = run_texts(config, "a curse", "good")
        [failure] = rows["failures"]
        assert (failure["example"], failure["explainer"], failure["stage"]) == ("e0", None, "score")
        assert [row["example"] for row in rows["predictions"]] == ["e1"]
        assert [row["example"] for row in rows["attributions"]] == ["e1"]

    def test_a_metric_that_fails_leaves_the_explanation(self) -> None:
        config = sweep("occlusion", metrics={"faithfulness": True})
        pair, unit = first(config, "a good film about some dull people")
        with CountingHost(pair) as host:

            def score(request: pa.Table) -> pa.Table:
                reply = host.score(request)
                if len(host.requests) == 1:
                    return reply
                rows = request.num_rows
                cost = schema.cost_of(reply)
                lost = dict.fromkeys(range(rows), "lost")
                nothing = np.full((rows, 2), np.nan, np.float32)
                return schema.score_reply(nothing, nothing[:, 0], lost, cost)

            tables = run_in_process(pair.context, unit, host.numerics, score).tables
        [failure] = tables["failures"].to_pylist()
        assert (failure["stage"], failure["explainer"], failure["message"]) == (
            "metric",
            "occlusion",
            "lost",
        )
        assert tables["attributions"].num_rows == 1
        assert tables["metrics"].num_rows == 0

    @pytest.mark.parametrize("call", ["ask", "fit"])
    def test_a_bug_of_an_explainer_costs_its_rows_alone(
        self, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def bug(*_: Any) -> Any:
            return [][len(call)]

        config = sweep("exact", "occlusion", metrics={"faithfulness": True})
        whole = run_texts(config, "good film", "dull")
        monkeypatch.setattr(Occlusion, call, bug)
        monkeypatch.setattr("engine.guard._SEEN", set())
        FITS.clear()  # or those of the whole run are found
        rows = run_texts(config, "good film", "dull")
        assert [
            (f["example"], f["explainer"], f["stage"], f["code"]) for f in rows["failures"]
        ] == [(e, "occlusion", "explain", "internal_error") for e in ("e0", "e1")]
        message = rows["failures"][0]["message"]
        assert message.startswith("IndexError at test_step.py:")
        assert "list index out of range" in message
        [record] = caplog.records  # of two examples in several rounds
        assert record.exc_info is not None
        assert "occlusion" in record.getMessage()
        for name in ("predictions", "attributions", "metrics"):
            others = [row for row in whole[name] if row.get("explainer") != "occlusion"]
            assert rows[name] == others

    def test_a_bug_of_a_metric_leaves_the_explanation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Faithfulness, "fit", lambda *_: 1 // 0)
        rows = run_texts(sweep("occlusion", metrics={"faithfulness": True}), "good film")
        [failure] = rows["failures"]
        assert (failure["stage"], failure["code"]) == ("metric", "internal_error")
        assert len(rows["attributions"]) == 1

    @pytest.mark.parametrize(
        ("place", "error"),
        [
            ("engine.session.prediction_row", ZeroDivisionError),
            ("engine.explainers.occlusion.Occlusion.fit", MemoryError),
        ],
    )
    def test_what_is_no_explainers_bug_goes_through(
        self, place: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> Any:
            raise error

        monkeypatch.setattr(place, fails)
        FITS.clear()  # or that of an earlier test is found
        with pytest.raises(error):
            run_texts(sweep("occlusion"), "good film")

    def test_a_failed_unit_names_each_example(self) -> None:
        pair, unit = first(sweep("occlusion"), *TEXTS)
        result = failed_unit(pair.context, unit, 3, "host_lost", "died 3 times")
        assert result.failed
        assert result.attempt == 3
        rows = result.tables["failures"].to_pylist()
        assert [row["example"] for row in rows] == ["e0", "e1", "e2", "e3"]
        assert {(row["stage"], row["code"], row["unit"]) for row in rows} == {
            ("unit", "host_lost", unit.id)
        }
        assert sum(t.num_rows for t in result.tables.values()) == 4


class TestCalibration:
    OPTIONS = {"bias": 0.75, "weights": {"mask": 1.5}}  # noqa: RUF012

    def config(self, *content_free: str, **changes: Any) -> Any:
        return sweep(
            {"name": "exact", "class": "positive"},
            models=[{"path": "fake:linear", "options": self.OPTIONS}],
            prompt__calibration="contextual",
            prompt__content_free=list(content_free),
            **changes,
        )

    @staticmethod
    def log_probs(odds: float) -> np.ndarray:
        return normalise(np.array([[0.0, odds]]))[0]

    @pytest.mark.parametrize(("texts", "odds"), [(["N/A"], [0.75]), (["[MASK]", ""], [2.25, 0.75])])
    def test_mean_content_free_probabilities_are_divided_by(
        self, texts: list[str], odds: list[float]
    ) -> None:
        """Zhao et al. 2021, section 5: q = p / p_cf, normalised."""
        free = np.mean([np.exp(self.log_probs(o)) for o in odds], axis=0)
        rows = run_texts(self.config(*texts), "a good film")
        [prediction], [row] = rows["predictions"], rows["attributions"]
        raw = self.log_probs(1.75)
        np.testing.assert_allclose(prediction["log_probs"], raw, atol=1e-6)
        np.testing.assert_allclose(prediction["calibration"], np.log(free), atol=1e-6)
        np.testing.assert_allclose(
            prediction["probabilities"], np.exp(normalise((raw - np.log(free))[None]))[0], atol=1e-6
        )
        np.testing.assert_allclose(row["values"], [0.0, 1.0, 0.0], atol=2e-6)
        assert row["base"] == pytest.approx(0.75 - np.log(free[1] / free[0]), abs=2e-6)

    def test_the_class_explained_is_the_calibrated_one(self) -> None:
        config = self.config("N/A", explainers=["exact"])
        rows = run_texts(config, "an uneven film")  # 0.75 − 0.5 raw, −0.5 calibrated
        assert rows["predictions"][0]["predicted"] == 0
        assert rows["attributions"][0]["class_name"] == "negative"

    def test_without_calibration_nothing_is_subtracted(self) -> None:
        [prediction] = run_texts(sweep(), "a good film")["predictions"]
        assert prediction["calibration"] is None

    def test_content_free_texts_go_first_and_are_no_examples(self) -> None:
        pair, unit = first(self.config("N/A", "[MASK]", ""), "a good film")
        with CountingHost(pair) as host:
            tables = host.run(pair, unit).tables
        assert [request.num_rows for request in host.requests] == [3, 8]
        for name, table in tables.items():
            if table.num_rows and name != "timings":
                assert set(table.column("example").to_pylist()) == {"e0"}

    def test_a_text_that_can_not_be_scored_fails_the_unit(self) -> None:
        config = self.config("N/A curse")
        model = config.models[0].model_copy(update={"options": {"fail_on": "curse"}})
        pair, unit = first(config.model_copy(update={"models": [model]}), "good", "bad")
        with CountingHost(pair) as host:
            result = host.run(pair, unit)
        assert result.failed
        rows = result.tables["failures"].to_pylist()
        assert [(r["example"], r["code"]) for r in rows] == [
            ("e0", "calibration"),
            ("e1", "calibration"),
        ]
        assert "curse" in rows[0]["message"]


class TestNumerics:
    def test_rows_say_what_computed_them(self) -> None:
        pair, unit = first(sweep("occlusion"), "good")
        with CountingHost(pair) as host:
            result = host.run(pair, unit)
        assert result.evaluations is not None
        for table in (result.tables["predictions"], result.tables["attributions"]):
            assert table.column("numerics").to_pylist() == [host.numerics]
        assert set(result.evaluations.column("numerics").to_pylist()) == {host.numerics}

    @pytest.mark.parametrize(("numerics", "asked"), [("same", 0), ("other", 4)])
    def test_stored_rows_of_other_numerics_are_not_used(
        self, tmp_path: Path, numerics: str, asked: int
    ) -> None:
        plan = plan_of(sweep("occlusion"), examples_of(["good film"]), tmp_path)
        [unit] = plan.units
        pair = plan.pairs[unit.pair]
        with CountingHost(pair) as host:
            made = run_in_process(pair.context, unit, "same", host.score)
            log = CommitLog(pair.context.store, exclusive=False)
            log.append(write_evaluations(pair.context.store, "w-1", [made]))
            log.close()
            host.requests.clear()
            stored = with_stored(unit, index_store(pair.context.store), [])
            run_in_process(pair.context, stored, numerics, host.score)
        assert len(host.sequences) == asked


def test_rows_depend_on_the_text_not_on_id_or_company() -> None:
    config = sweep({"name": "lime", "num_samples": 8})
    plan = plan_of(config, examples_of(["good film", "dull film with good people"]))
    [unit] = plan.units
    pair = plan.pairs[unit.pair]
    alone = replace(unit, examples=(Example("x", dict(unit.examples[1].fields)),))
    with CountingHost(pair) as host:
        one = host.run(pair, alone).tables["attributions"].drop_columns(["example"])
        both = host.run(pair, unit).tables["attributions"].drop_columns(["example"])
    assert one.equals(both.slice(1))
