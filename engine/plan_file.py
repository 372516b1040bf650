"""`plan.parquet`: the units of a run, one row each, written once and read by later calls."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.context import Unit
from engine.plan import Plan
from engine.schema import FACTORS

PLAN_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("pair", pa.string()),
        *[pa.field(name, pa.string()) for name in FACTORS],
        pa.field("examples", pa.list_(pa.string())),
        pa.field("explain", pa.bool_()),
    ]
)


def write_plan(plan: Plan, path: Path) -> None:
    """Write `plan.parquet`: one row a unit."""
    rows = [
        {
            "unit": unit.id,
            "pair": unit.pair,
            **plan.pairs[unit.pair].context.factors,
            "examples": [e.id for e in unit.examples],
            "explain": unit.explain,
        }
        for unit in plan.units
    ]
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # `rayxai status` may read it meanwhile
    pq.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), part)
    part.replace(path)


def with_units_of(plan: Plan, path: Path) -> Plan:
    """Return the plan with the units of an earlier `plan.parquet` of the same fingerprint.

    The shard size is free to change between two calls of the same run; its units are not. Pairs
    that the earlier plan has not (their model could not be found then) keep their new units.
    """
    by_id = {e.id: e for e in plan.examples}
    earlier = [
        Unit(
            row["unit"],
            row["pair"],
            tuple(by_id[name] for name in row["examples"]),
            explain=row["explain"],
        )
        for row in pq.read_table(path).to_pylist()
    ]
    known = {unit.pair for unit in earlier}
    units = [u for u in earlier if u.pair in plan.pairs]
    return replace(plan, units=(*units, *(u for u in plan.units if u.pair not in known)))
