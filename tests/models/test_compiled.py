"""Pieces padded to fixed sizes, and layers compiled for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from actors import compiled
from actors.backend import HostSpec, SequenceBatch
from actors.compiled import compile_layers, padded_to, sizes_up_to
from actors.hf_host import TransformersBackend
from actors.packed_forward import PackedForward, Route
from actors.self_check import make_scorer, packing_checked
from engine.errors import ConfigError, ModelError
from engine.ragged import Ragged
from engine.schema import ScoreTask
from tests.models.test_packed import TREE, all_sorts, batch_of
from tests.models.tiny import LABELS, build, plain, prompts

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("most", [1, 256, 257, 2048, 3072])
def test_sizes_double_up_to_the_largest(most: int) -> None:
    sizes = sizes_up_to(most)
    assert sizes[-1] == most
    assert list(sizes) == sorted(set(sizes))
    for nodes in range(1, most + 1):
        size = padded_to(nodes, sizes)
        assert size >= nodes
        assert size == min(compiled.SMALLEST, most) or size < 2 * nodes
    assert padded_to(most + 1, sizes) == most + 1


@pytest.mark.parametrize("family", TREE)
@pytest.mark.parametrize("piece", [7, 64])
def test_padding_is_seen_by_nothing(family: str, piece: int) -> None:
    model = build(family)
    scorer, _ = make_scorer(model, 4)
    many = all_sorts()
    expected = [plain(model, row) for row in many]
    checked = packing_checked(model, scorer.reading, 4, padded=True)
    assert checked is not None
    route: Route = checked[0].route
    found = PackedForward(model, scorer.reading, 4, piece, 5, route, (10, 100)).score(
        batch_of(many), LABELS
    )
    np.testing.assert_allclose(found.log_probs, [row for row, _ in expected], atol=1e-5)
    np.testing.assert_allclose(found.log_z, [log_z for _, log_z in expected], atol=1e-5)
    assert found.tokens_computed > found.tokens_distinct, "padding is computed, too"
    assert found.tokens_computed % 10 == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_each_size_is_compiled_once(family: str) -> None:
    model = build(family)
    sizes = (32, 64)
    packed = PackedForward(model, "kept", 0, 64, 5, "pruned", sizes)
    batches = [batch_of(prompts(n)) for n in (1, 2, 5, 9, 30)]
    expected = [packed.score(batch, LABELS).log_probs for batch in batches]
    undo = compile_layers(model)
    found = [packed.score(batch, LABELS).log_probs for batch in batches]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    kinds = {type(part) for part in model.base_model.layers[0].children()}
    assert 0 < graphs <= len(sizes) * len(kinds)
    packed.score(batch_of(prompts(17)), LABELS)
    assert counters["stats"]["unique_graphs"] == graphs, "a new number of nodes was compiled anew"
    undo()
    counters.clear()
    packed.score(batches[0], LABELS)
    assert not counters["stats"]["unique_graphs"]


def saved(family: str, folder: Path) -> str:
    build(family).save_pretrained(folder)
    return str(folder)


def host(path: str, **options: Any) -> TransformersBackend:
    return TransformersBackend(
        HostSpec(path, precision="fp32", device="cpu", threads=1, options=options)
    )


def test_a_compiled_host_scores_as_another(tmp_path: Path) -> None:
    path = saved("gemma", tmp_path)
    batch = SequenceBatch(Ragged.of([row.ids for row in prompts(20)]), None)
    task = ScoreTask(label_ids=LABELS)
    scores = []
    for options in ({}, {"compile": True}):
        made = host(path, **options)
        info = made.load()
        assert ("compiled" in info.scorer) == bool(options)
        scores.append(made.score(batch, task))
    np.testing.assert_allclose(scores[0].log_probs, scores[1].log_probs, atol=1e-5)


def test_what_can_not_be_compiled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile"):
        host("any", compile=True, packing=False)
    with pytest.raises(ModelError, match=r"leave out options\.compile"):
        host(saved("mamba", tmp_path), compile=True).load()
