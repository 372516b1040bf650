"""One Ray on this machine for all tests that take part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Any]:
    """A Ray of two logical CPUs."""
    from cluster.session import ray_session

    with ray_session(num_cpus=2) as offered:
        yield offered


@pytest.fixture
def sweep_config(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A sweep of the fake host over a few bundled reviews, as plain values."""

    def make(**changes: Any) -> dict[str, Any]:
        raw: dict[str, Any] = {
            "run": {"name": "test", "out": str(tmp_path / "run"), "store": str(tmp_path / "store")},
            "models": [{"name": "linear", "path": "fake:linear"}],
            "data": {
                "path": "bundled:reviews",
                "id": "id",
                "rationale": "author_marked",
                "rationale_kind": "author_marked",
                "limit": 12,
            },
            "prompt": {
                "name": "review",
                "template": "Review: {text}\nSentiment:",
                "labels": {"negative": " negative", "positive": " positive"},
            },
            "explainers": [
                {"name": "lime", "num_samples": 96},
                {"name": "kernel_shap", "num_samples": 96},
                "occlusion",
                "random",
            ],
        }
        for key, value in changes.items():
            section, _, field = key.partition("__")
            if field:
                raw.setdefault(section, {})[field] = value
            else:
                raw[section] = value
        return raw

    return make
