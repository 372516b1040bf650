"""Tables of small results for the tests of what moves, writes and reads them."""

from __future__ import annotations

import pyarrow as pa

from engine import schema


def failures(unit: str, *codes: str) -> dict[str, pa.Table]:
    rows = [{"unit": unit, "stage": "data", "code": code, "message": "m"} for code in codes]
    tables = {name: s.empty_table() for name, s in schema.RESULTS.items()}
    return {**tables, "failures": schema.rows_to_table(rows, schema.FAILURES)}


def evaluations(*examples: str, value: float = -1.0) -> pa.Table:
    rows = [
        {
            "example": example,
            "space": "s",
            "n_features": 2,
            "coalitions": b"\xc0\x00",
            "log_probs": [value, -2.0, -3.0, -4.0],
            "log_z": [0.5, 0.25],
            "tokens": [3, 4],
            "numerics": "n",
        }
        for example in examples
    ]
    return pa.Table.from_pylist(rows, schema=schema.EVALUATIONS)
