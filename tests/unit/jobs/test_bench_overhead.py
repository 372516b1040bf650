from __future__ import annotations

import pyarrow as pa

from engine import schema
from jobs.bench.overhead import answer_at_once, run


def test_it_measures_every_phase() -> None:
    asked: list[pa.Table] = []

    def score(request: pa.Table) -> pa.Table:
        asked.append(request)
        return answer_at_once(request)

    found = run("bytes", score, samples=64, repeats=1)
    phases = found["microseconds_per_evaluation"]
    assert set(phases) == {"ask", "mask", "request", "score", "tell", "fit", "engine"}
    parts = sum(cost for name, cost in phases.items() if name not in ("score", "engine"))
    assert phases["engine"] == parts
    assert found["evaluations_per_second"] > 0
    assert found["assemble_tokens_per_second"] > 0
    assert len(asked) > 4


def test_the_stand_in_answers_in_the_schema_of_a_host() -> None:
    request = schema.score_request([0, 0], [[1, 2, 3], [4]], None, schema.ScoreTask(((1,), (2,))))
    reply = answer_at_once(request)
    assert reply.schema.equals(schema.SCORE_REPLY)
    assert reply.num_rows == 2
    assert schema.cost_of(reply).tokens_computed == 0
