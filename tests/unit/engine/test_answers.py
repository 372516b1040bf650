from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from engine import schema
from engine.answers import (
    Answers,
    Lookup,
    evaluations_table,
    lookups_table,
    read_lookups,
    space_key,
)
from engine.types import BoolCF, Feature, Span

COST = schema.ScoreCost(0.5, 10, "n")
WIDTHS = [0, 1, 7, 8, 9, 17]


def coalitions_of(n_features: int, count: int = 5) -> BoolCF:
    drawn = np.random.default_rng(n_features).random((count, n_features)) < 0.5
    return np.unique(drawn, axis=0) if n_features else np.zeros((1, 0), dtype=bool)


def lookups_of(
    coalitions: BoolCF, sequences: Sequence[int] | None = None, space: str = "s", example: str = "e"
) -> pa.Table:
    rows = np.arange(len(coalitions)) if sequences is None else np.array(sequences)
    fresh = np.ones(len(coalitions), dtype=bool)
    return lookups_table([Lookup(example, space, coalitions, rows, 10 + rows, fresh, "lime")])


def reply_of(count: int, n_labels: int = 2, errors: Sequence[int] = ()) -> pa.Table:
    scores = np.random.default_rng(9).normal(size=(count, n_labels)).astype(np.float32)
    return schema.score_reply(
        scores,
        np.arange(count, dtype=np.float32) / 4,
        {i: f"row {i} failed" for i in errors},
        COST,
    )


@pytest.mark.parametrize("n_features", WIDTHS)
def test_lookups_come_back_as_they_went(n_features: int) -> None:
    coalitions = coalitions_of(n_features)
    count = len(coalitions)
    rows, fresh = np.arange(count)[::-1], np.arange(count) % 2 == 0
    asks = [
        Lookup("e", "s", coalitions, rows, rows + 7, fresh, "lime"),
        Lookup("f", "t", coalitions[:0], rows[:0], rows[:0], fresh[:0], "none"),
        Lookup("f", "t", coalitions[:1], rows[:1], rows[:1], fresh[:1], "shap"),
    ]
    found = list(read_lookups(lookups_table(asks)))
    assert len(found) == len(asks)
    for made, read in zip(asks, found, strict=True):
        for one, other in zip(made, read, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_features", WIDTHS)
@pytest.mark.parametrize("n_labels", [1, 2, 5])
def test_values_of_a_round(n_features: int, n_labels: int) -> None:
    coalitions = coalitions_of(n_features)
    reply = reply_of(len(coalitions), n_labels)
    answers = Answers()
    answers.add_round(lookups_of(coalitions), reply)
    raw = answers.pool("e", "s", n_features).lookup(coalitions)
    assert raw.shape == (len(coalitions), n_labels + 2)
    np.testing.assert_array_equal(raw[:, :-2], reply.column("log_probs").to_pylist())
    np.testing.assert_array_equal(raw[:, -2], reply.column("log_z").to_pylist())
    np.testing.assert_array_equal(raw[:, -1], 10 + np.arange(len(coalitions)))


@pytest.mark.parametrize("n_features", WIDTHS)
def test_the_store_gives_back_the_same_bits(n_features: int) -> None:
    coalitions = coalitions_of(n_features)
    lookups, reply = lookups_of(coalitions), reply_of(len(coalitions))
    first = Answers()
    first.add_round(lookups, reply)
    table = evaluations_table([(lookups, reply)], "n", schema.EVALUATIONS)
    assert table.num_rows == 1
    again = Answers()
    again.add_stored(table, "n", ["e"])
    before, after = (a.pool("e", "s", n_features) for a in (first, again))
    np.testing.assert_array_equal(after.coalitions, before.coalitions)
    np.testing.assert_array_equal(after.values, before.values)


def test_one_sequence_may_answer_several_coalitions() -> None:
    coalitions = coalitions_of(9, 4)
    answers = Answers()
    answers.add_round(lookups_of(coalitions, [1, 0, 1, 1]), reply_of(2))
    raw = answers.pool("e", "s", 9).lookup(coalitions)
    np.testing.assert_array_equal(raw[0], raw[2])
    assert (raw[0] != raw[1]).any()


def test_spaces_and_examples_are_kept_apart() -> None:
    coalitions = coalitions_of(3, 2)
    lookups = pa.concat_tables(
        [
            lookups_of(coalitions, [0, 1], space="s"),
            lookups_of(coalitions, [2, 3], space="t"),
            lookups_of(coalitions, [4, 5], example="f"),
        ]
    )
    answers = Answers()
    answers.add_round(lookups, reply_of(6))
    assert {key: len(pool) for key, pool in answers.pools.items()} == {
        ("e", "s"): 2,
        ("e", "t"): 2,
        ("f", "s"): 2,
    }
    table = evaluations_table([(lookups, reply_of(6))], "n", schema.EVALUATIONS)
    assert table.select(["example", "space"]).to_pylist() == [
        {"example": "e", "space": "s"},
        {"example": "e", "space": "t"},
        {"example": "f", "space": "s"},
    ]


class TestErrors:
    def test_a_failed_row_is_an_error_of_its_coalitions_alone(self) -> None:
        coalitions = coalitions_of(9, 4)
        answers = Answers()
        answers.add_round(lookups_of(coalitions), reply_of(4, errors=[2]))
        pool = answers.pool("e", "s", 9)
        np.testing.assert_array_equal(pool.missing(coalitions), coalitions[2:3])
        assert answers.error("e", "s", coalitions[:2]) is None
        assert answers.error("e", "s", coalitions) == "row 2 failed"
        assert answers.error("e", "t", coalitions) is None
        assert answers.error("f", "s", coalitions) is None

    @pytest.mark.parametrize("n_features", [0, 9])
    def test_all_rows_failed(self, n_features: int) -> None:
        coalitions = coalitions_of(n_features)
        lookups = lookups_of(coalitions)
        reply = reply_of(len(coalitions), errors=range(len(coalitions)))
        answers = Answers()
        answers.add_round(lookups, reply)
        assert answers.error("e", "s", coalitions) == "row 0 failed"
        assert evaluations_table([(lookups, reply)], "n", schema.EVALUATIONS).num_rows == 0

    def test_no_label_width_is_learnt_from_a_failed_round(self) -> None:
        coalitions = coalitions_of(9, 4)
        answers = Answers()
        answers.add_round(lookups_of(coalitions[:1]), reply_of(1, errors=[0]))
        answers.add_round(lookups_of(coalitions[1:]), reply_of(len(coalitions) - 1, n_labels=3))
        assert answers.pool("e", "s", 9).values.shape == (len(coalitions) - 1, 5)

    def test_failed_rows_are_not_stored(self) -> None:
        coalitions = coalitions_of(9, 4)
        round_ = (lookups_of(coalitions), reply_of(4, errors=[0]))
        answers = Answers()
        answers.add_stored(evaluations_table([round_], "n", schema.EVALUATIONS), "n", ["e"])
        np.testing.assert_array_equal(answers.pool("e", "s", 9).coalitions, coalitions[1:])


class TestStored:
    def test_other_numerics_and_other_examples_are_not_used(self) -> None:
        coalitions = coalitions_of(3)
        round_ = (lookups_of(coalitions), reply_of(len(coalitions)))
        table = evaluations_table([round_], "n", schema.EVALUATIONS)
        for numerics, wanted in (("m", ["e"]), ("n", ["f"]), ("n", [])):
            answers = Answers()
            answers.add_stored(table, numerics, wanted)
            assert answers.pools == {}

    def test_what_is_not_a_number_is_not_stored(self) -> None:
        coalitions = coalitions_of(9, 4)
        scores = np.float32([[-1, -2], [-1, np.nan], [-np.inf, 0], [-np.inf, -np.inf]])
        log_z = np.float32([np.nan, 1, 2, np.inf])
        reply = schema.score_reply(scores, log_z, {}, COST)
        table = evaluations_table([(lookups_of(coalitions), reply)], "n", schema.EVALUATIONS)
        answers = Answers()
        answers.add_stored(table, "n", ["e"])
        known = answers.pool("e", "s", 9)
        np.testing.assert_array_equal(known.missing(coalitions), coalitions[[1, 3]])
        np.testing.assert_array_equal(known.values[:, :-2], scores[[0, 2]])
        assert answers.stored("e", "s") == 2

    def test_the_first_value_of_a_coalition_stays(self) -> None:
        coalitions = coalitions_of(3)
        table = evaluations_table(
            [(lookups_of(coalitions), reply_of(len(coalitions)))], "n", schema.EVALUATIONS
        )
        answers = Answers()
        answers.add_stored(table, "n", ["e"])
        before = answers.pool("e", "s", 3).values.copy()
        answers.add_round(lookups_of(coalitions, [1] * len(coalitions)), reply_of(2))
        np.testing.assert_array_equal(answers.pool("e", "s", 3).values, before)


class TestSpaceKey:
    FEATURES = (Feature((Span(0, 2),), "so"), Feature((Span(3, 7),), "good"))

    def test_golden(self) -> None:
        """The store finds its rows by these keys."""
        assert space_key(self.FEATURES, "delete/text") == "d1964ef18f435608"
        assert space_key((), "") == "aa5598c670c7f9c9"

    def test_depends_on_places_order_field_and_operator_but_not_on_the_words(self) -> None:
        base = space_key(self.FEATURES, "delete/text")
        renamed = tuple(Feature(f.spans, "x") for f in self.FEATURES)
        assert space_key(renamed, "delete/text") == base
        others = [
            space_key(self.FEATURES, "delete/ids"),
            space_key(self.FEATURES[::-1], "delete/text"),
            space_key((Feature((Span(0, 2), Span(3, 7)), "so"),), "delete/text"),
            space_key((Feature((Span(0, 2, "b"),), "so"), self.FEATURES[1]), "delete/text"),
        ]
        assert len({base, *others}) == 5
