from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from engine.answers import Answers
from engine.pool import keys
from engine.session import PREDICTION, Session
from engine.tokens import load_tokenizer
from engine.types import Example, Span
from tests.unit.fake_sweep import CountingHost, examples_of, plan_of, run_all, run_texts, sweep

LONG = "a good film with so many words that it does not fit"


def session_of(config: Any, example: Example) -> Session:
    plan = plan_of(config, [example])
    [pair] = plan.pairs.values()
    return Session(example, pair.context, load_tokenizer("bytes"), Answers())


class TestAsking:
    def test_everything_is_asked_at_once(self) -> None:
        session = session_of(sweep("exact", "occlusion"), examples_of(["so good"])[0])
        asks = {ask.consumer: len(ask.coalitions) for ask in session.run()}
        assert asks == {PREDICTION: 1, "exact": 4, "occlusion": 4}

    def test_explainers_of_one_space_share_their_answers(self) -> None:
        config = sweep("exact", "occlusion", {"name": "occlusion", "id": "t", "target": "logprob"})
        session = session_of(config, examples_of(["so good"])[0])
        assert len({ask.space.key for ask in session.run() if ask.consumer != PREDICTION}) == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"features": "tokens"},
            {"features": "sentences"},
            {"operator": "pad"},
            {"operator": "mask", "replacement": "_"},
            {"operator": "neutral", "replacement": "_"},
            {"compat": "lime", "name": "lime", "num_samples": 4},
        ],
    )
    def test_other_features_and_operators_do_not(self, other: dict[str, Any]) -> None:
        config = sweep("occlusion", {"name": "occlusion", "id": "other", **other})
        session = session_of(config, examples_of(["so good, so bad"])[0])
        keys = {ask.consumer: ask.space.key for ask in session.run()}
        assert keys["occlusion"] != keys["other"]

    def test_draws_depend_on_text_and_space_not_on_id_or_target(self) -> None:
        lime = {"name": "lime", "num_samples": 20}
        config = sweep(
            lime, {**lime, "id": "b", "target": "logprob"}, {**lime, "id": "c", "seed": 9}
        )
        session = session_of(config, examples_of([LONG])[0])
        drawn = {ask.consumer: ask.coalitions for ask in session.run()}
        np.testing.assert_array_equal(drawn["lime"], drawn["b"])
        assert not np.array_equal(drawn["lime"], drawn["c"])

    def test_draws_depend_on_what_the_prompt_shows_alone(self) -> None:
        config = sweep({"name": "lime", "num_samples": 20}, metrics={"faithfulness": True})
        plain = session_of(config, Example("e", {"text": LONG}))
        wider = session_of(config, Example("e", {"text": LONG, "note": "unread"}))
        drawn = [{a.consumer: a.coalitions for a in s.run()}["lime"] for s in (plain, wider)]
        np.testing.assert_array_equal(*drawn)
        assert plain.drawn_by == plain.key == wider.drawn_by
        assert wider.key != plain.key  # the store takes no risk


class TestStoppingAtATolerance:
    def test_rounds_are_counted_and_said(self) -> None:
        config = sweep(
            {"name": "kernel_shap", "num_samples": 900, "relative_error": 0.3, "id": "a"},
            {"name": "lime", "num_samples": 900, "relative_error": 0.3, "id": "b"},
            {"name": "kernel_shap", "surrogate": "gaussian_process", "num_samples": 90, "id": "c"},
        )
        plan = plan_of(config, [LONG])
        [pair] = plan.pairs.values()
        host = CountingHost(pair)
        [result] = [host.run(pair, unit) for unit in plan.units]
        assert result.tables["failures"].num_rows == 0
        rows = {row["explainer"]: row for row in result.tables["attributions"].to_pylist()}
        for name in ("a", "b"):
            facts = json.loads(rows[name]["diagnostics"])
            assert facts["stopped"] in ("tolerance", "budget")
            assert facts["rounds"] >= 1
        timings = {row["consumer"]: row for row in result.tables["timings"].to_pylist()}
        for name in ("a", "b", "c"):
            assert timings[name]["evaluations_asked"] >= rows[name]["evaluations"]
        assert rows["c"]["evaluations"] <= 90
        assert rows["c"]["r2"] is not None


class TestOnePool:
    TEXT = "a bright and tender film that asks for patience but earns all of it"
    FOUR = (
        {"name": "lime", "num_samples": 400},
        {"name": "kernel_shap", "num_samples": 512},
        "occlusion",
        "random",
    )

    def test_four_explainers_and_their_metrics_cost_little_more_than_one(self) -> None:
        config = sweep(*self.FOUR, metrics={"faithfulness": True, "curve_points": 10})
        plan = plan_of(config, [self.TEXT])
        [pair] = plan.pairs.values()
        host = CountingHost(pair)
        [result] = [host.run(pair, unit) for unit in plan.units]
        assert len(host.sequences) <= 1.2 * 512
        rows = result.tables["attributions"].to_pylist()
        assert [row["evaluations"] for row in rows] == [400, 512, 16, 2]
        found = [json.loads(row["diagnostics"]).get("sampling") for row in rows]
        assert found == ["pool", "pool", None, None]
        asked = {
            row["consumer"]: row["evaluations_asked"]
            for row in result.tables["timings"].to_pylist()
        }
        # what the pool has for the random baseline is nobody's cost but the explainers'
        assert all(asked[f"metrics:{row['explainer']}"] < 60 for row in rows)

    def test_the_smaller_budget_is_a_part_of_the_larger(self) -> None:
        session = session_of(sweep(*self.FOUR), examples_of([self.TEXT])[0])
        asks = {ask.consumer: set(keys(ask.coalitions)) for ask in session.run()}
        assert asks["occlusion"] <= asks["lime"] <= asks["kernel_shap"]

    def test_the_pool_is_of_the_example_and_the_seed(self) -> None:
        drawn = [
            {a.consumer: set(keys(a.coalitions)) for a in session_of(config, example).run()}["lime"]
            for config, example in [
                (sweep(*self.FOUR), examples_of([self.TEXT])[0]),
                (sweep(*self.FOUR), examples_of([self.TEXT[:-2] + "us"])[0]),
                (sweep(*self.FOUR, run__seed=1), examples_of([self.TEXT])[0]),
                (sweep(*reversed(self.FOUR)), examples_of([self.TEXT])[0]),
            ]
        ]
        assert drawn[0] == drawn[3]
        assert drawn[0] != drawn[1]
        assert drawn[0] != drawn[2]

    def test_a_text_too_long_for_the_pool_has_its_random_orders(self) -> None:
        config = sweep(
            {"name": "lime", "num_samples": 60}, "occlusion", metrics={"faithfulness": True}
        )
        plan = plan_of(config, [self.TEXT])
        [pair] = plan.pairs.values()
        [result] = [CountingHost(pair).run(pair, unit) for unit in plan.units]
        lime, _ = result.tables["attributions"].to_pylist()
        assert json.loads(lime["diagnostics"])["sampling"] == "own"
        assert {row["random"] is None for row in result.tables["metrics"].to_pylist()} == {False}


class TestEmptyAndShort:
    def test_an_empty_text_has_no_features_and_a_defined_result(self) -> None:
        config = sweep(
            "exact",
            "random",
            "occlusion",
            {"name": "lime", "num_samples": 9},
            {"name": "kernel_shap", "num_samples": 9},
            {"name": "permutation_shap"},
            {"name": "occlusion", "id": "pad", "operator": "pad"},
            metrics={"faithfulness": True},
        )
        rows = run_texts(config, "", " … ")
        assert rows["failures"] == []
        assert len(rows["attributions"]) == 14
        for row in rows["attributions"]:
            assert (row["n_features"], row["values"], row["spans"]) == (0, [], [])
            assert row["status"] == "no_features"
            assert row["base"] == row["full_value"] == 0.0
            assert row["evaluations"] == 1
        assert {row["value"] for row in rows["metrics"]} == {None}
        assert sum(row["evaluations_new"] for row in rows["timings"]) == 2

    def test_one_word(self) -> None:
        config = sweep(
            "exact",
            "occlusion",
            {"name": "lime", "num_samples": 64},
            {"name": "kernel_shap", "num_samples": 64},
            {"name": "permutation_shap"},
            metrics={"faithfulness": True},
        )
        rows = run_texts(config, "superb")
        assert rows["failures"] == []
        for row in rows["attributions"]:
            if row["explainer"] == "lime":  # its ridge penalty outweighs the one far coalition
                assert 0 < row["values"][0] < 2
            else:
                np.testing.assert_allclose(row["values"], [2.0], atol=2e-6)
            assert row["class_name"] == "positive"
        aopc = [r["value"] for r in rows["metrics"] if r["metric"] == "comprehensiveness"]
        np.testing.assert_allclose(aopc, 1 / (1 + np.exp(-2.0)) - 0.5, atol=1e-6)


class TestFailures:
    def test_too_long_says_length_and_limit(self) -> None:
        config = sweep("occlusion", models=[{"path": "fake:linear", "options": {"max_tokens": 50}}])
        rows = run_texts(config, LONG, "good")
        [failure] = rows["failures"]
        length = len(f"Review: {LONG}\nSentiment:")
        limit = 50 - len(" negative") + 1  # the label's last token needs no place
        assert (failure["example"], failure["code"], failure["explainer"]) == (
            "e0",
            "too_long",
            None,
        )
        assert f"{length} tokens" in failure["message"]
        assert f"limit is {limit}" in failure["message"]
        assert [row["example"] for row in rows["attributions"]] == ["e1"]

    def test_the_longest_text_that_fits(self) -> None:
        length = len(f"Review: {LONG}\nSentiment:") + len(" negative") - 1
        for window, n_failures in ((length, 0), (length - 1, 1)):
            model = {"path": "fake:linear", "options": {"max_tokens": window}}
            assert len(run_texts(sweep(models=[model]), LONG)["failures"]) == n_failures

    def test_a_replacement_that_makes_it_too_long_fails_its_explainer(self) -> None:
        masked = {
            "name": "occlusion", "id": "masked", "operator": "mask", "replacement": "_" * 30,
        }  # fmt: skip
        model = {"path": "fake:linear", "options": {"max_tokens": 60}}
        rows = run_texts(sweep(masked, "occlusion", models=[model]), "so good, so bad")
        [failure] = rows["failures"]
        assert (failure["explainer"], failure["stage"], failure["code"]) == (
            "masked",
            "explain",
            "too_long",
        )
        assert [row["explainer"] for row in rows["attributions"]] == ["occlusion"]

    def test_too_few_samples_and_too_many_features(self) -> None:
        config = sweep({"name": "kernel_shap", "num_samples": 4}, "exact", "occlusion")
        rows = run_texts(config, LONG + " anywhere", "good film")
        found = [(f["example"], f["explainer"], f["code"]) for f in rows["failures"]]
        assert found == [
            ("e0", "kernel_shap", "too_few_samples"),
            ("e0", "exact", "too_many_features"),
        ]
        assert "13 features" in rows["failures"][0]["message"]
        assert [(r["example"], r["explainer"]) for r in rows["attributions"]] == [
            ("e0", "occlusion"),
            ("e1", "kernel_shap"),
            ("e1", "exact"),
            ("e1", "occlusion"),
        ]

    def test_a_missing_field_is_a_row(self) -> None:
        rows = run_all(sweep("occlusion"), [Example("a", {"other": "good"})])
        [failure] = rows["failures"]
        assert failure["code"] == "missing_field"
        assert "'text'" in failure["message"]


class TestClass:
    def test_gold_without_a_label_fails_before_it_costs(self) -> None:
        config = sweep({"name": "exact", "class": "gold"}, "occlusion")
        plan = plan_of(config, examples_of(["so good", "so bad"], [None, 1]))
        [pair] = plan.pairs.values()
        with CountingHost(pair) as host:
            tables = host.run(pair, plan.units[0]).tables
        [failure] = tables["failures"].to_pylist()
        assert (failure["example"], failure["explainer"]) == ("e0", "exact")
        assert failure["code"] == "no_gold_label"
        rows = tables["attributions"].to_pylist()
        assert [(row["example"], row["explainer"]) for row in rows] == [
            ("e0", "occlusion"),
            ("e1", "exact"),
            ("e1", "occlusion"),
        ]
        timings = tables["timings"].to_pylist()
        assert "exact" not in {t["consumer"] for t in timings if t["example"] == "e0"}

    @pytest.mark.parametrize(
        ("rule", "column", "name"),
        [
            ("predicted", "predicted", "positive"),
            ("gold", "gold", "negative"),
            ("positive", "label:positive", "positive"),
            ("negative", "label:negative", "negative"),
        ],
    )
    def test_which_row_is_reported(self, rule: str, column: str, name: str) -> None:
        config = sweep({"name": "exact", "class": rule})
        rows = run_all(config, examples_of(["superb"], [0]))
        [row] = rows["attributions"]
        assert (row["class_rule"], row["class_name"]) == (column, name)
        sign = 1.0 if name == "positive" else -1.0
        np.testing.assert_allclose(row["values"], [2.0 * sign], atol=1e-6)
        np.testing.assert_allclose(row["values_by_label"], [[-2.0], [2.0]], atol=1e-6)

    def test_metrics_are_of_the_explained_class(self) -> None:
        explainers = [{"name": "occlusion", "id": c, "class": c} for c in ("positive", "negative")]
        rows = run_texts(sweep(*explainers, metrics={"faithfulness": True}), "superb")
        values = {
            r["explainer"]: r["value"]
            for r in rows["metrics"]
            if r["metric"] == "comprehensiveness"
        }
        assert values["positive"] == pytest.approx(-values["negative"])
        assert values["positive"] > 0


class TestRows:
    def test_prediction(self) -> None:
        example = Example(
            "x", {"text": "so superb"}, 0, "film", (Span(3, 9),), "author_marked"
        )  # fmt: skip
        [row] = run_all(sweep(), [example])["predictions"]
        odds = 2.0
        log_probs = [-np.log1p(np.exp(odds)), -np.log1p(np.exp(-odds))]
        np.testing.assert_allclose(row["log_probs"], log_probs, atol=1e-6)
        np.testing.assert_allclose(row["probabilities"], np.exp(log_probs), atol=1e-6)
        assert row["label_mass"] == pytest.approx(1.0)
        assert (row["gold"], row["predicted"], row["labels"]) == (0, 1, ["negative", "positive"])
        assert json.loads(row["inputs"]) == {"text": "so superb"}
        assert row["rationale"] == [{"feature": 0, "start": 3, "end": 9, "field": "text"}]
        assert (row["group"], row["rationale_kind"]) == ("film", "author_marked")
        assert row["tokens"] == len("Review: so superb\nSentiment:")

    def test_factors_stand_in_every_row(self) -> None:
        rows = run_texts(sweep("occlusion", metrics={"faithfulness": True}), "so good")
        factors = {
            "data": "reviews",
            "model": "linear",
            "precision": "fp32",
            "adapter": "none",
            "prompt": "review",
        }
        for name in ("predictions", "attributions", "metrics", "timings"):
            for row in rows[name]:
                assert {key: row[key] for key in factors} == factors

    @pytest.mark.parametrize(
        ("explainer", "expected"),
        [
            ({"name": "exact"}, ("exact", "words", "delete", "text")),
            ({"name": "exact", "features": "sentences"}, ("exact", "sentences", "delete", "text")),
            ({"name": "occlusion", "features": "tokens"}, ("occlusion", "tokens", "delete", "ids")),
            ({"name": "exact", "operator": "pad"}, ("exact", "words", "pad", "ids")),
            (
                {"name": "exact", "operator": "mask", "replacement": "_"},
                ("exact", "words", "mask:_", "text"),
            ),
            (
                {"name": "lime", "compat": "lime", "num_samples": 20},
                ("lime[compat:lime]", "word_types", "delete:keep_separators", "text"),
            ),
            (
                {"name": "kernel_shap", "compat": "shap", "num_samples": 20},
                ("kernel_shap[compat:shap]", "words", "delete:keep_separators", "text"),
            ),
        ],
    )
    def test_games_are_told_apart(self, explainer: Any, expected: tuple[str, ...]) -> None:
        [row] = run_texts(sweep(explainer), "good is good")["attributions"]
        columns = ("method", "features", "operator", "masked_on")
        assert tuple(row[column] for column in columns) == expected

    def test_a_bag_of_words_has_all_places_of_a_word(self) -> None:
        explainer = {"name": "lime", "compat": "lime", "num_samples": 20}
        [row] = run_texts(sweep(explainer), "good is good")["attributions"]
        assert row["n_features"] == 2
        assert [(s["feature"], s["start"]) for s in row["spans"]] == [(0, 0), (0, 8), (1, 5)]

    def test_several_inputs_are_explained_together(self) -> None:
        config = sweep(
            {"name": "exact", "class": "positive"},
            data={"path": "pairs.csv", "inputs": {"a": "a", "b": "b"}},
            prompt__template="{a}\n---\n{b}\nSentiment:",
        )
        [row] = run_all(config, [Example("p", {"a": "so good", "b": "awful"})])["attributions"]
        assert [(s["field"], s["start"]) for s in row["spans"]] == [("a", 0), ("a", 3), ("b", 0)]
        np.testing.assert_allclose(row["values"], [0.0, 1.0, -2.0], atol=2e-6)
