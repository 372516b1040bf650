"""The same sweep over one host and over two, on a real Ray with the analytic host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.bench import over_hosts
from jobs.stages import physical_cores
from jobs.sweep import Outcome, run_sweep

TEXTS = ("a dull story told badly", "its cast proves a delight")
SWEEP: dict[str, Any] = {
    "models": ["fake:linear"],
    "prompt": {
        "template": "Review: {text}\nSentiment:",
        "labels": {"negative": " negative", "positive": " positive"},
    },
    "explainers": [{"name": "kernel_shap", "num_samples": 16}],
    "metrics": {"faithfulness": False},
}


@pytest.mark.usefixtures("local_ray")
def test_each_number_of_hosts_explains_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[tuple[int, dict[str, Any]]] = []

    def note(config: Any, console: Any) -> Outcome:
        outcome = run_sweep(config, console)
        record = json.loads((Path(outcome.folder) / "run.json").read_text(encoding="utf-8"))
        records.append((len(list(Path(outcome.folder).glob("attributions/*"))), record))
        return outcome

    monkeypatch.setattr(over_hosts, "run_sweep", note)
    seconds = over_hosts.run(SWEEP, TEXTS, (1, 2))
    assert seconds.keys() == {1, 2}
    assert all(s >= 0 for s in seconds.values())
    for (files, record), count in zip(records, (1, 2), strict=True):
        [host] = record["hosts"].values()
        assert host["hosts"] == count
        # 16 a text: nothing came from a store, at most from the same host's own memory
        assert 14 * len(TEXTS) < host["sequences_computed"] <= 16 * len(TEXTS)
        assert host["threads"] == max(1, physical_cores() // 2)
        assert files
