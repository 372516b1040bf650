"""The scoring benchmark on a tiny model: what it says of the rungs, not how fast they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from actors.loader import load_model, resolve_model
from engine.ragged import Ragged
from jobs.bench import scoring
from jobs.bench.dense import DENSE, FASTEST, REPEATS, DenseRate
from jobs.bench.rungs import OURS
from jobs.bench.workload import LABELS
from tests.models.trainings import save_tiny

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "tiny"
    return save_tiny(path, window=512, words=list(LABELS.values()), vocabulary=2048)


@contextmanager
def shapes_seen(model: Any) -> Iterator[list[tuple[int, int]]]:
    """Collect the shapes that go through a model's layers."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        assert not kwargs["use_cache"]
        seen.append(tuple(kwargs["input_ids"].shape))

    hook = model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def test_shapes_of_the_dense_rate_go_as_far_as_its_definition() -> None:
    assert {rows * tokens for rows, tokens in DENSE} == {512, 1024, 2048, 4096}
    assert {tokens for _, tokens in DENSE} == {32, 64, 128, 256}
    assert {(64, 64), (32, 128), (16, 256)} <= set(DENSE)


def test_the_dense_rate_returns_to_the_fastest_shapes(folder: Path) -> None:
    model = load_model(resolve_model(str(folder)), "fp32", "cpu")
    rate = DenseRate(model)
    with shapes_seen(model) as first:
        assert rate() > 0
    assert first == [shape for shape in DENSE for _ in range(REPEATS)]
    again = rate.shapes
    assert len(again) == FASTEST
    with shapes_seen(model) as second:
        assert rate() > 0
    assert second == [shape for shape in again for _ in range(REPEATS)]


def test_every_rung_gives_the_log_odds_of_padded_batches(folder: Path) -> None:
    console = Console(record=True, width=160)
    figures = scoring.run(
        str(folder),
        words=(6, 12),
        n_texts=2,
        samples=48,
        prompts=("short",),
        device="cpu",
        threads=1,
        vllm=False,
        console=console,
    )
    json.dumps(figures)
    rungs = figures["prompts"]["short"]["rungs"]
    assert list(rungs) == [
        "padded",
        "padded, distinct",
        "padded, distinct, by length",
        "buckets, template kept",
        "packed",
        "packed: a host as it is",
    ]
    assert rungs["padded"]["max_abs_dlogodds"] == 0
    assert all(rung["max_abs_dlogodds"] < 1e-4 for rung in rungs.values())
    ours = rungs[OURS]
    for key in ("dense_rate_fraction", "dense_rate_fraction_prepacked", "max_abs_dlogodds"):
        assert figures[key] == ours[key]
    assert ours["tokens_over_floor"] < 1.1 < rungs["padded"]["tokens_over_floor"]
    text = console.export_text()
    assert "packed: a host as it is" in text
    assert f"{rungs['packed']['max_abs_dlogodds']:.1e}" in text
    assert f"{ours['dense_rate_fraction_prepacked']:.3f}" in text


def test_answers_return_to_their_prompts() -> None:
    sequences = Ragged.of([[1, 2, 3], [4], [1, 2, 3], [5, 6], [4]])
    for arrange, rows in (
        (scoring._all, [0, 1, 2, 3, 4]),
        (scoring._distinct, [0, 1, 3]),
        (scoring._by_length, [1, 3, 0]),
    ):
        taken, place = arrange(sequences)
        assert taken.tolist() == rows
        assert sequences.take(taken).take(place).to_lists() == sequences.to_lists()
        np.testing.assert_array_equal(np.sort(np.unique(place)), np.arange(len(rows)))
