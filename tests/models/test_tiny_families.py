"""Batched, deduplicated, prefix-sharing scoring against one plain forward pass a sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from actors.batching import ScoreSequence
from actors.hf_host import TransformersBackend
from actors.host import Host, HostSpec
from actors.label_scorer import LabelScorer
from actors.prefix_cache import PrefixCache, supports_prefixes
from actors.self_check import make_scorer
from engine.errors import ModelError
from engine.schema import ScoreTask, cost_of, score_request
from tests.models.tiny import LABELS, TEMPLATE, VOCABULARY, build, config_of, plain, prompts

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

SCORERS = {
    "llama": "gathered+prefix",
    "qwen2": "gathered+prefix",
    "gpt2": "gathered+prefix",
    "gpt_neox": "gathered+prefix",
    "gemma3": "gathered",
    "gemma2": "kept",
    "granite": "kept+prefix",
}
"""What is found at load, packing and prepacking aside."""


@pytest.fixture(scope="module", params=list(SCORERS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str) -> Any:
    return build(family)


def assert_equal_to_plain(
    model: Any, scorer: LabelScorer, many: list[ScoreSequence], prefix: int
) -> None:
    log_probs, found_log_z, _ = scorer.score(many, LABELS, prefix)
    expected = [plain(model, sequence) for sequence in many]
    np.testing.assert_allclose(log_probs, [row for row, _ in expected], atol=2e-5)
    np.testing.assert_allclose(found_log_z, [log_z for _, log_z in expected], atol=2e-5)


def test_the_scorer_found_at_load_is_the_familys_fastest(model: Any, family: str) -> None:
    assert make_scorer(model, 4)[1] == SCORERS[family]
    assert "prefix" not in make_scorer(model, 0)[1]


@pytest.mark.parametrize("prefix", [0, 3, len(TEMPLATE)])
def test_a_padded_batch_equals_single_passes(model: Any, prefix: int) -> None:
    scorer, _ = make_scorer(model, 4)
    assert_equal_to_plain(model, scorer, prompts(12), prefix)


def test_hidden_positions_keep_the_places_of_the_others(model: Any) -> None:
    scorer, _ = make_scorer(model, 4)
    many = prompts(8, hide=True)
    assert_equal_to_plain(model, scorer, many, len(TEMPLATE))
    assert_equal_to_plain(model, scorer, many, 0)


@pytest.mark.parametrize("prefix", [0, len(TEMPLATE)])
def test_what_stands_at_a_hidden_position_does_not_matter(model: Any, prefix: int) -> None:
    scorer, _ = make_scorer(model, 4)
    base = (*TEMPLATE, 30, 31, 32, 16)
    hidden = (5, 7)
    other = tuple(77 if i in hidden else token for i, token in enumerate(base))
    seen, same, shown = scorer.score(
        [ScoreSequence(base, hidden), ScoreSequence(other, hidden), ScoreSequence(other)],
        LABELS,
        prefix,
    )[0]
    np.testing.assert_allclose(seen, same, atol=2e-5)
    assert np.abs(seen - shown).max() > 1e-3


def test_a_hidden_first_position_is_scored(model: Any) -> None:
    scorer, _ = make_scorer(model, 4)
    sequences = [ScoreSequence((first, 30, 31, 16), (0,)) for first in (20, 40)]
    found = scorer.score(sequences, LABELS)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_reading_ways_agree(model: Any, family: str) -> None:
    many = prompts(5)
    kept = LabelScorer(model, "kept", None).score(many, LABELS)[0]
    full = LabelScorer(model, "full", None).score(many, LABELS)[0]
    np.testing.assert_allclose(kept, full, atol=1e-5)
    gathered = LabelScorer(model, "gathered", None).score(many, LABELS)[0]
    gap = np.abs(gathered - full).max()
    assert gap > 1e-2 if SCORERS[family].startswith("kept") else gap < 1e-5


def test_kept_prefixes_are_computed_once_and_never_changed() -> None:
    model = build("llama")
    prefixes = PrefixCache(model, 2)
    scorer = LabelScorer(model, "gathered", prefixes)
    many = prompts(6)
    first, _, computed = scorer.score(many, LABELS, len(TEMPLATE))
    again, _, computed_again = scorer.score(many, LABELS, len(TEMPLATE))
    np.testing.assert_array_equal(first, again)
    assert computed - computed_again == len(TEMPLATE)
    for other in range(2):  # pushes the first out of two places
        scorer.score(prompts(3, (60 + other, 61)), LABELS, 2)
    third, _, computed_third = scorer.score(many, LABELS, len(TEMPLATE))
    np.testing.assert_array_equal(first, third)
    assert computed_third == computed


def test_families_that_forget_have_no_prefixes() -> None:
    assert supports_prefixes(config_of("llama"))
    assert not supports_prefixes(build("gemma3").config)
    assert not supports_prefixes(config_of("mistral"))
    assert not supports_prefixes(config_of("mamba"))


def test_a_family_whose_batches_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2")
    whole = model.transformer.forward

    def mixing(ids: Any = None, **inputs: Any) -> Any:
        ids = inputs.pop("input_ids", ids)
        found = whole(ids, **inputs)
        states = found.last_hidden_state
        found.last_hidden_state = states * (1.0 + 0.5 * (len(ids) - 1))
        return found

    monkeypatch.setattr(model.transformer, "forward", mixing)
    with pytest.raises(ModelError, match="scored together"):
        make_scorer(model, 4)


# --- through a host ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "llama"
    build("llama").save_pretrained(path)
    return path


def ask(host: Host, many: Sequence[ScoreSequence], **task: Any) -> Any:
    examples = [i % 3 for i in range(len(many))]
    hidden = [list(sequence.hidden) or None for sequence in many]
    ids = [sequence.ids for sequence in many]
    return host.score(score_request(examples, ids, hidden, ScoreTask(LABELS, **task)))


@pytest.mark.parametrize("batch_tokens", [1, 40, 200, 5000])
@pytest.mark.parametrize("by_example", [False, True])
@pytest.mark.parametrize("packing", [False, True])
def test_neither_batch_size_nor_order_matters(
    saved: Path, batch_tokens: int, by_example: bool, packing: bool
) -> None:
    options = {"batch_tokens": batch_tokens, "packing": packing}
    host = Host(HostSpec(str(saved), threads=1, options=options))
    host.load()
    many = prompts(15) + prompts(6, hide=True)
    random.Random(batch_tokens).shuffle(many)
    reply = ask(host, [*many, *many[:4]], by_example=by_example)
    model = build("llama")
    expected = [plain(model, sequence)[0] for sequence in [*many, *many[:4]]]
    np.testing.assert_allclose(np.array(reply["log_probs"].to_pylist()), expected, atol=2e-5)
    host.stop()


@pytest.mark.parametrize("packing", [False, True])
def test_by_example_results_are_bit_equal_whatever_went_before(saved: Path, packing: bool) -> None:
    many = prompts(12)
    replies = []
    for before in ([], prompts(9, (50, 51)), prompts(20), many):
        host = Host(HostSpec(str(saved), threads=1, options={"packing": packing}))
        host.load()
        if before:
            ask(host, before)
        replies.append(ask(host, many, by_example=True))
        host.stop()
    assert all(reply.equals(replies[0]) for reply in replies[1:])


def test_the_host_says_what_it_is(saved: Path) -> None:
    host = Host(HostSpec(str(saved), precision="fp32", device="cpu", threads=1))
    info = host.load()
    model = build("llama")
    assert info.parameters == model.num_parameters()
    assert info.memory_bytes >= 4 * info.parameters
    assert info.device == "cpu"
    assert info.max_tokens == 64
    assert info.scorer == "packed+lean+gathered+prefix+prepacked"
    for part in ("float32", "cpu", "torch 2", "transformers 5"):
        assert part in info.numerics_text
    assert cost_of(ask(host, prompts(2))).numerics == info.numerics
    half = Host(HostSpec(str(saved), precision="bf16", threads=1))
    assert half.load().numerics != info.numerics
    np.testing.assert_allclose(
        np.array(ask(half, prompts(3))["log_probs"].to_pylist()),
        [plain(model, sequence)[0] for sequence in prompts(3)],
        atol=0.5,
    )
    host.stop()
    half.stop()


def test_the_scorers_thread_has_the_threads_of_the_specification(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []

    class Watching(LabelScorer):
        def score(self, *arguments: Any) -> Any:
            seen.append(torch.get_num_threads())
            return super().score(*arguments)

    monkeypatch.setattr("actors.self_check.LabelScorer", Watching)
    for threads in (2, 1):
        host = Host(HostSpec(str(saved), threads=threads, options={"packing": False}))
        host.load()
        ask(host, prompts(2))
        host.stop()
        assert set(seen) == {threads}
        seen.clear()


def test_bad_rows_say_why(saved: Path) -> None:
    host = Host(HostSpec(str(saved), threads=1))
    host.load()
    longest = 64 - max(map(len, LABELS)) + 1
    rows = [(), tuple([20] * (longest + 1)), (VOCABULARY,), tuple([20] * longest)]
    errors = ask(host, [ScoreSequence(row) for row in rows])["error"].to_pylist()
    assert errors[0] == "the prompt is empty"
    assert "the model takes 64" in errors[1]
    assert "vocabulary of 97" in errors[2]
    assert errors[3] is None
    with pytest.raises(ModelError, match="without adapters"):
        ask(host, prompts(1), adapter="abc")
    host.stop()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_running_out_of_memory_halves_the_batch(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole = LabelScorer.score
    sizes = []

    def scarce(self: LabelScorer, sequences: Any, *rest: Any) -> Any:
        if len(sequences) > 3:
            raise error
        sizes.append(len(sequences))
        return whole(self, sequences, *rest)

    host = Host(HostSpec(str(saved), threads=1, options={"packing": False}))
    host.load()
    monkeypatch.setattr(LabelScorer, "score", scarce)
    many = prompts(10)
    reply = ask(host, many)
    assert sum(sizes) == 10
    model = build("llama")
    expected = [plain(model, sequence)[0] for sequence in many]
    np.testing.assert_allclose(np.array(reply["log_probs"].to_pylist()), expected, atol=2e-5)
    host.stop()


def test_models_that_cannot_be_loaded_say_so(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no GPU is visible"):
        TransformersBackend(HostSpec(str(saved), device="cuda:7")).load()
    with pytest.raises(ModelError, match="unknown precision"):
        TransformersBackend(HostSpec(str(saved), precision="fp7")).load()
    vision = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.ViTModel(vision).save_pretrained(tmp_path / "vit")
    with pytest.raises(ModelError, match="causal model"):
        TransformersBackend(HostSpec(str(tmp_path / "vit"))).load()
