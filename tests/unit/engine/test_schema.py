from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from engine import schema

TASK = schema.ScoreTask(((3, 4), (5,)), "abc", True)
COST = schema.ScoreCost(1.25, 17, "0123")


def test_request_carries_its_task() -> None:
    request = schema.score_request([0, 0, 1], [[1, 2], [1], [9]], [None, [0], None], TASK)
    assert request.schema.remove_metadata() == schema.SCORE_REQUEST
    assert request.column("ids").to_pylist() == [[1, 2], [1], [9]]
    assert request.column("hidden").to_pylist() == [None, [0], None]
    assert schema.task_of(request) == TASK


def test_reply_carries_its_cost() -> None:
    log_probs = np.array([[-1.0, -2.0], [np.nan, 9.0]], dtype=np.float32)
    log_z = np.array([0.5, 7.0], dtype=np.float32)
    reply = schema.score_reply(log_probs, log_z, {1: "too long"}, COST)
    assert reply.schema.remove_metadata() == schema.SCORE_REPLY
    assert reply.column("log_probs").to_pylist() == [[-1.0, -2.0], None]
    assert reply.column("log_z").to_pylist() == [0.5, None]
    assert reply.column("error").to_pylist() == [None, "too long"]
    assert schema.cost_of(reply) == COST


def test_a_log_z_that_is_not_known_is_null() -> None:
    log_probs = np.array([[-1.0], [-2.0]], dtype=np.float32)
    reply = schema.score_reply(log_probs, np.array([0.5, np.nan], dtype=np.float32), {}, COST)
    assert reply.column("log_z").to_pylist() == [0.5, None]
    assert reply.column("log_probs").to_pylist() == [[-1.0], [-2.0]]


@pytest.mark.parametrize("n_labels", [1, 3])
def test_a_reply_of_no_rows_and_one_without_errors(n_labels: int) -> None:
    rng = np.random.default_rng(0)
    for n_rows in (0, 4):
        # every other row and column of a larger array: nothing may rely on its layout
        log_probs = rng.normal(size=(2 * n_rows, 2 * n_labels)).astype(np.float32)[::2, ::2]
        log_z = rng.normal(size=n_rows).astype(np.float32)
        reply = schema.score_reply(log_probs, log_z, {}, COST)
        reply.validate(full=True)
        assert reply.column("log_probs").to_pylist() == log_probs.tolist()
        assert reply.column("log_z").to_pylist() == log_z.tolist()
        assert reply.column("error").null_count == n_rows


@pytest.mark.parametrize("codec", [None, "lz4"])
def test_metadata_survives_the_wire(codec: str | None) -> None:
    request = schema.score_request([0], [[1]], [None], TASK)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, request.schema, options=pa.ipc.IpcWriteOptions(compression=codec)
    ) as stream:
        stream.write_table(request)
    assert schema.task_of(pa.ipc.open_stream(sink.getvalue()).read_all()) == TASK


class TestRowsToTable:
    def test_has_exactly_the_schema_and_its_version(self) -> None:
        row = {"unit": "u", "stage": "data", "code": "c", "message": "m"}
        table = schema.rows_to_table([row], schema.FAILURES)
        assert table.schema.remove_metadata() == schema.FAILURES
        assert table.schema.metadata[b"schema_version"] == str(schema.SCHEMA_VERSION).encode()
        assert table.to_pylist()[0] == dict.fromkeys(schema.FAILURES.names) | row

    def test_no_rows_keep_the_schema(self) -> None:
        table = schema.rows_to_table([], schema.METRICS)
        assert table.num_rows == 0
        assert table.schema.remove_metadata() == schema.METRICS

    def test_refuses_a_column_that_is_not_there(self) -> None:
        with pytest.raises(ValueError, match="mesage"):
            schema.rows_to_table([{"unit": "u", "mesage": "m"}], schema.FAILURES)

    def test_refuses_a_value_of_another_type(self) -> None:
        with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
            schema.rows_to_table([{"unit": 3}], schema.FAILURES)


@pytest.mark.parametrize("name", schema.RESULTS)
def test_result_tables_share_the_factors(name: str) -> None:
    names = schema.RESULTS[name].names
    assert names[: 1 + len(schema.FACTORS)] == ["unit", *schema.FACTORS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["attributions", "metrics"])
def test_what_is_explained_stands_in_every_row(name: str) -> None:
    """Rows of different targets, classes or operators must be told apart."""
    result = schema.RESULTS[name]
    for column in (*schema.GAME, "class_name"):
        assert not result.field(column).nullable
