from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from engine import schema
from engine.exchange import HostReply, HostRequest
from engine.transport import Tables, from_buffer, to_buffer

REQUEST = schema.score_request([0, 0], [[1, 2], [3]], [None, [0]], schema.ScoreTask(((1,), (2,))))
REPLY = schema.score_reply(
    np.array([[-1.0, -2.0], [-3.0, -4.0]], dtype=np.float32),
    np.zeros(2, dtype=np.float32),
    {1: "too long"},
    schema.ScoreCost(0.5, 3, "n"),
)


@pytest.mark.parametrize(
    "table",
    [REQUEST, REPLY, REPLY[1:], REPLY[:0], pa.concat_tables([REPLY, REPLY[1:]])],
    ids=["request", "reply", "slice", "empty", "chunks"],
)
def test_a_table_arrives_with_its_nulls_and_metadata(table: pa.Table) -> None:
    arrived = from_buffer(to_buffer(table))
    assert arrived.equals(table, check_metadata=True)
    assert arrived.schema.equals(table.schema, check_metadata=True)


def test_tables_are_moved_as_one_buffer_each_out_of_band() -> None:
    buffers: list[pickle.PickleBuffer] = []
    moved = Tables([REQUEST, None, REPLY])
    data = pickle.dumps(moved, 5, buffer_callback=buffers.append)
    assert len(buffers) == 2
    arrived = pickle.loads(data, buffers=buffers)
    assert isinstance(arrived, Tables)
    assert arrived == moved
    assert pickle.loads(pickle.dumps(Tables(), 5)) == ()


def test_requests_and_replies_arrive_whole() -> None:
    request = pickle.loads(pickle.dumps(HostRequest(REQUEST), 5))
    assert request.tables == (REQUEST,)
    assert schema.task_of(request.scores) == schema.task_of(REQUEST)
    reply = pickle.loads(pickle.dumps(HostReply(REPLY, None, REPLY), 5))
    assert (reply.scores, reply.gradients, reply.generations) == (REPLY, None, REPLY)
    assert schema.cost_of(reply.scores) == schema.cost_of(REPLY)
