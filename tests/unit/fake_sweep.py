"""Small sweeps of the analytic models, run in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from actors.host import Host
from engine.config import SweepConfig, parse_config
from engine.context import Unit
from engine.plan import Pair, Plan, build_plan
from engine.results import UnitResult
from engine.step import run_in_process
from engine.types import Example
from jobs.facts import host_spec, model_facts

TEMPLATE = "Review: {text}\nSentiment:"
LABELS = {"negative": " negative", "positive": " positive"}


def raw_sweep(*explainers: Any, **changes: Any) -> dict[str, Any]:
    """Return plain values of a sweep of fake:linear; `prompt__calibration=…` sets one key."""
    raw: dict[str, Any] = {
        "models": [{"name": "linear", "path": "fake:linear"}],
        "data": {"path": "bundled:reviews"},
        "prompt": {"name": "review", "template": TEMPLATE, "labels": dict(LABELS)},
        "explainers": list(explainers),
        "metrics": {"faithfulness": False},
    }
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            raw.setdefault(section, {})[field] = value
        else:
            raw[section] = value
    return raw


def sweep(*explainers: Any, **changes: Any) -> SweepConfig:
    return parse_config(raw_sweep(*explainers, **changes))


def examples_of(texts: Iterable[str], labels: Sequence[int | None] | None = None) -> list[Example]:
    texts = list(texts)
    gold = labels or [None] * len(texts)
    return [
        Example(f"e{i}", {"text": t}, g) for i, (t, g) in enumerate(zip(texts, gold, strict=True))
    ]


def plan_of(
    config: SweepConfig, examples: Sequence[Example] | Sequence[str], store: Any = "store"
) -> Plan:
    rows = [e if isinstance(e, Example) else examples_of([e])[0] for e in examples]
    if rows and isinstance(examples[0], str):
        rows = examples_of([str(e) for e in examples])
    facts = {f"{m.label}/{m.precision}": model_facts(m) for m in config.models}
    return build_plan(config, rows, facts, store)


class CountingHost:
    """The fake host of a pair, which counts what it is asked."""

    def __init__(self, pair: Pair) -> None:
        self._host = Host(host_spec(pair.model))
        self.numerics = self._host.load().numerics
        self.requests: list[pa.Table] = []

    def score(self, request: pa.Table) -> pa.Table:
        self.requests.append(request)
        return self._host.score(request)

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """All that was asked, request by request."""
        return [tuple(ids) for r in self.requests for ids in r.column("ids").to_pylist()]

    def run(self, pair: Pair, unit: Unit) -> UnitResult:
        return run_in_process(pair.context, unit, self.numerics, self.score)

    def __enter__(self) -> CountingHost:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.stop()


def run_all(config: SweepConfig, examples: Sequence[Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all result tables of a sweep, its units run one after another."""
    plan = plan_of(config, examples)
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, pair in plan.pairs.items():
        with CountingHost(pair) as host:
            for unit in plan.units:
                if unit.pair == key:
                    for name, table in host.run(pair, unit).tables.items():
                        rows.setdefault(name, []).extend(table.to_pylist())
    return rows


def run_texts(config: SweepConfig, *texts: str) -> dict[str, list[dict[str, Any]]]:
    return run_all(config, examples_of(texts))
