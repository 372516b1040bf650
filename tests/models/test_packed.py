"""Packed scoring of every family: the scores of plain passes, every distinct prefix once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers

from actors import lean_layers, packed_forward, tree_attention
from actors.backend import BackendOutOfMemoryError, HostSpec, SequenceBatch
from actors.batching import ScoreSequence, continuations
from actors.host import Host
from actors.label_reads import Reading
from actors.packed_forward import PackedForward, Route
from actors.prepacked import prepack
from actors.self_check import make_scorer, packing_checked
from actors.tree_attention import PieceState
from engine.ragged import Ragged
from engine.schema import ScoreTask, score_request
from tests.models.tiny import FAMILIES, LABELS, TEMPLATE, WINDOW, build, plain, prompts

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

FALL_BACK = (
    "falcon with alibi",
    "bloom",
    "mpt",
    "gpt_neo",
    "gpt_neo with wide windows",
    "gpt_oss",
    "mamba",
    "falcon_mamba",
    "recurrent_gemma",
)
"""Families that are scored in padded batches; all others are packed."""

PACKED = [family for family in FAMILIES if family not in FALL_BACK]
MASKED = ("falcon", "falcon with groups", "gptj")
"""Families packed by a mask over their own attention."""

TREE = [family for family in PACKED if family not in MASKED]
SIZES = [(2048, 32), (24, 5), (7, 3), (4, 8), (1, 1)]
"""(piece, block): one piece, several, pieces shorter than a prompt, and than a block."""


LEAN = [family for family in PACKED if FAMILIES[family][0] in lean_layers.FAMILIES]
"""Families whose layers are run lean on a CPU in single precision."""


class Case(NamedTuple):
    """A model, prompts, and what plain passes give."""

    model: Any
    reading: Reading
    route: Route
    many: list[ScoreSequence]
    log_probs: np.ndarray
    log_z: np.ndarray

    def forward(self, piece: int = 2048, block: int = 32, prefixes: int = 8) -> PackedForward:
        return PackedForward(self.model, self.reading, prefixes, piece, block, self.route)


def batch_of(many: Sequence[ScoreSequence]) -> SequenceBatch:
    hidden = Ragged.of([row.hidden for row in many]) if any(row.hidden for row in many) else None
    return SequenceBatch(Ragged.of([row.ids for row in many]), hidden)


def case_of(model: Any, many: list[ScoreSequence]) -> Case:
    scorer, _ = make_scorer(model, 4)
    found = packing_checked(model, scorer.reading, 4)
    assert found is not None
    forward, _ = found
    expected = [plain(model, row) for row in many]
    return Case(
        model,
        scorer.reading,
        forward.route,
        many,
        np.array([scores for scores, _ in expected]),
        np.array([log_z for _, log_z in expected]),
    )


def all_sorts() -> list[ScoreSequence]:
    """Deletions, hidden positions, repeated prompts, and prompts that begin one another."""
    some = prompts(7)
    begun = [ScoreSequence(row.ids[:-2]) for row in some[:3]]
    hidden = prompts(5, hide=True)
    return [*some, *begun, some[2], *hidden, hidden[0], some[0]]


@pytest.fixture(scope="module", params=PACKED)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(build(request.param), all_sorts())


@pytest.fixture(scope="module")
def llama() -> Case:
    return case_of(build("llama"), all_sorts())


def distinct_prefixes(many: Sequence[ScoreSequence]) -> int:
    """Count what any exact way must compute: each (tokens, positions) that a state depends on.

    A hidden token that is not the last of its row is seen by nothing and is none of them.
    """
    seen = set()
    for row in many:
        for cont in continuations(LABELS):
            path = [
                (token, place, place in row.hidden)
                for place, token in enumerate(row.ids + cont)
                if place == len(row.ids + cont) - 1 or place not in row.hidden
            ]
            seen |= {tuple(path[: i + 1]) for i in range(len(path))}
    return len(seen)


@pytest.mark.parametrize(("piece", "block"), SIZES)
def test_packed_scores_are_those_of_plain_passes(case: Case, piece: int, block: int) -> None:
    found = case.forward(piece, block).score(batch_of(case.many), LABELS)
    np.testing.assert_allclose(found.log_probs, case.log_probs, atol=1e-5)
    np.testing.assert_allclose(found.log_z, case.log_z, atol=1e-5)
    assert not found.errors


@pytest.mark.parametrize("family", LEAN)
@pytest.mark.parametrize("route", ["pruned", "whole"])
def test_families_with_lean_layers_are_packed_without_them_too(family: str, route: Route) -> None:
    """So they are on a GPU and in other number formats."""
    case = case_of(build(family), all_sorts())
    assert case.route == "lean"
    found = case._replace(route=route).forward(24, 5).score(batch_of(case.many), LABELS)
    np.testing.assert_allclose(found.log_probs, case.log_probs, atol=1e-5)
    np.testing.assert_allclose(found.log_z, case.log_z, atol=1e-5)


@pytest.mark.parametrize("case", TREE, indirect=True)
@pytest.mark.parametrize(("deep", "keys"), [(1, 1 << 15), (1, 64), (128, 64)])
def test_blocks_are_attended_part_by_part(
    case: Case, deep: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they differ in depth, or see too many keys: all that a query sees is in its part."""
    monkeypatch.setattr(tree_attention, "DEEP", deep)
    monkeypatch.setattr(tree_attention, "PART_KEYS", keys)
    states: list[PieceState] = []

    class Watched(PieceState):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            states.append(self)

    monkeypatch.setattr(packed_forward, "PieceState", Watched)
    found = case.forward(24, 5).score(batch_of(case.many), LABELS)
    np.testing.assert_allclose(found.log_probs, case.log_probs, atol=1e-5)
    np.testing.assert_allclose(found.log_z, case.log_z, atol=1e-5)
    parts = [state.parts for state in states]
    assert max(map(len, parts)) > 1
    assert max(len({part.keys.shape[1] for part in of_piece}) for of_piece in parts) > 1
    for of_piece in parts:
        for part in of_piece:
            assert len(part.keys) == 1 or part.keys.numel() <= keys


def test_every_distinct_prefix_is_computed_exactly_once(case: Case) -> None:
    found = case.forward(24, 5).score(batch_of(case.many), LABELS)
    assert found.tokens_computed == found.tokens_distinct == distinct_prefixes(case.many)
    assert found.sequences_computed == len(set(case.many))


def test_a_second_call_computes_the_shared_prefix_no_more(case: Case) -> None:
    shown = [row for row in case.many if not row.hidden]
    forward = case.forward(24, 5)
    first = forward.score(batch_of(shown), LABELS)
    again = forward.score(batch_of(shown), LABELS)
    assert first.tokens_computed == distinct_prefixes(shown)
    assert first.tokens_computed - again.tokens_computed == len(TEMPLATE)
    assert again.tokens_distinct == first.tokens_distinct
    np.testing.assert_array_equal(first.log_probs, again.log_probs)


def test_windows_bind_in_what_is_tested() -> None:
    """Otherwise the families with windows would prove nothing."""
    for family in ("mistral", "qwen2 with windows", "qwen3 with windows", "gemma3", "phi3"):
        model = build(family)
        row = prompts(1)[0]
        row = ScoreSequence((*TEMPLATE, *range(30, 44), *row.ids[-2:]))
        assert len(row.ids) > 3 * WINDOW
        bound = plain(model, row)[0]
        wide = build(family)
        for module in wide.modules():
            if getattr(module, "sliding_window", None):
                module.sliding_window = 1000
        wide.config.sliding_window = 1000
        assert np.abs(np.array(bound) - plain(wide, row)[0]).max() > 1e-3, family


# --- prefixes ---------------------------------------------------------------------------------


def test_another_template_gets_a_prefix_of_its_own(llama: Case) -> None:
    forward = llama.forward(24, 5, prefixes=2)
    long = tuple(range(40, 60))
    templates = [(*long, 61, 62), (70, 71, *long), TEMPLATE]
    for template in templates[:2]:
        many = prompts(6, template)
        assert forward.score(batch_of(many), LABELS).tokens_computed == distinct_prefixes(many)
    for template in templates[:2]:
        many = prompts(5, template)
        found = forward.score(batch_of(many), LABELS)
        assert distinct_prefixes(many) - found.tokens_computed >= len(template)
        expected = [plain(llama.model, row)[0] for row in many]
        np.testing.assert_allclose(found.log_probs, expected, atol=1e-5)
    forward.score(batch_of(prompts(4, templates[2])), LABELS)  # pushes the oldest out
    many = prompts(6, templates[0])
    assert forward.score(batch_of(many), LABELS).tokens_computed == distinct_prefixes(many)


def test_a_batch_that_shares_nothing_leaves_the_kept_prefixes(llama: Case) -> None:
    forward = llama.forward()
    template = tuple(range(40, 60))
    many = prompts(6, template)
    forward.score(batch_of(many), LABELS)
    forward.score(batch_of([ScoreSequence((30, 31)), ScoreSequence((32, 31))]), LABELS)
    forward.score(batch_of([ScoreSequence((30, 31, 33)), ScoreSequence((30, 34))]), LABELS)
    again = forward.score(batch_of(many), LABELS)
    assert distinct_prefixes(many) - again.tokens_computed >= len(template)


def test_no_prefixes_are_kept_where_none_may_be(llama: Case) -> None:
    forward = llama.forward(24, 5, prefixes=0)
    shown = batch_of([row for row in llama.many if not row.hidden])
    first, again = (forward.score(shown, LABELS) for _ in range(2))
    assert first.tokens_computed == again.tokens_computed == first.tokens_distinct
    assert not forward._prefixes


def test_with_prefixes_of_their_own_scores_are_bit_equal_whatever_went_before(
    llama: Case,
) -> None:
    template = tuple(range(40, 60))
    many = batch_of(prompts(6, template))
    others = [
        prompts(5, template[:-3]),
        prompts(5, (*template, 30, 31)),
        prompts(9, template),
        prompts(4, (1, 2, 3)),
    ]
    expected = llama.forward().score(many, LABELS, own_prefix=True)
    forward = llama.forward()
    for other in others:
        forward.score(batch_of(other), LABELS)
        found = forward.score(many, LABELS, own_prefix=True)
        np.testing.assert_array_equal(found.log_probs, expected.log_probs)
        np.testing.assert_array_equal(found.log_z, expected.log_z)


# --- memory, formats --------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_running_out_of_memory_halves_the_piece(
    llama: Case, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Call `fails` fails: that of the prefix, the first piece or one in the middle."""
    calls = 0
    whole = llama.model.model.layers[1].mlp.down_proj.forward

    def scarce(h: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails + 1:
            raise RuntimeError("DefaultCPUAllocator: out of memory")
        return whole(h)

    shown = [i for i, row in enumerate(llama.many) if not row.hidden]
    many = batch_of([llama.many[i] for i in shown])
    forward = llama.forward(24, 5)
    monkeypatch.setattr(llama.model.model.layers[1].mlp.down_proj, "forward", scarce)
    found = forward.score(many, LABELS)
    assert forward.piece == 12
    assert found.tokens_computed == found.tokens_distinct
    np.testing.assert_allclose(found.log_probs, llama.log_probs[shown], atol=1e-5)


def test_pieces_shrink_to_a_block_and_then_it_is_an_error(
    llama: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(_: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    forward = llama.forward(64, 8)
    monkeypatch.setattr(llama.model.model.layers[1].mlp.down_proj, "forward", scarce)
    with pytest.raises(BackendOutOfMemoryError, match="CUDA out of memory"):
        forward.score(batch_of(llama.many), LABELS)
    assert forward.piece == 8


def test_another_error_is_not_taken_for_a_lack_of_memory(
    llama: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: torch.Tensor) -> Any:
        raise RuntimeError("device lost")

    monkeypatch.setattr(llama.model.model.layers[1].mlp.down_proj, "forward", lost)
    with pytest.raises(RuntimeError, match="device lost"):
        llama.forward().score(batch_of(llama.many), LABELS)


def test_the_models_own_attention_is_back_afterwards(llama: Case) -> None:
    before = plain(llama.model, llama.many[0])
    llama.forward().score(batch_of(llama.many), LABELS)
    assert plain(llama.model, llama.many[0]) == before
    assert "forward" not in vars(llama.model.model.layers[-1])


@pytest.mark.parametrize("tied", [False, True])
def test_prepacked_linear_layers_are_packed_too(tied: bool) -> None:
    model = build("llama")
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    case = case_of(model, all_sorts())
    assert prepack(model) is not None
    assert packing_checked(model, case.reading, 4) is not None
    found = case.forward(24, 5).score(batch_of(case.many), LABELS)
    np.testing.assert_allclose(found.log_probs, case.log_probs, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_half_precision_differs_by_its_rounding_only(family: str) -> None:
    """The distance to fp32 is that of the plain pass in bf16, up to a factor of two."""
    many = all_sorts()
    exact = case_of(build(family), many)
    half = build(family).to(torch.bfloat16)
    rounded = np.array([plain(half, row)[0] for row in many])
    forward = PackedForward(half, exact.reading, 8, 24, 5)
    found = forward.score(batch_of(many), LABELS).log_probs
    assert np.abs(found - exact.log_probs).max() < 2 * np.abs(rounded - exact.log_probs).max()
    assert np.abs(found - rounded).max() < 0.25


def quantised(bits: int, folder: Path) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.18)
    model.save_pretrained(folder)
    wanted = transformers.BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=wanted, dtype=torch.float32, device_map="cpu"
        ).eval()


@pytest.mark.parametrize(("bits", "bound"), [(4, 1e-4), (8, 0.25)])
@pytest.mark.filterwarnings("ignore")
def test_quantised_models_are_packed(
    bits: int, bound: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """4 bits store weights alone; 8 bits round each row of states too, a matter of 1/127."""
    pytest.importorskip("bitsandbytes")
    caplog.set_level(logging.ERROR, logger="bitsandbytes")
    model = quantised(bits, tmp_path)
    many = prompts(7)
    scorer, _ = make_scorer(model, 4)
    padded = scorer.score(many, LABELS)[0]
    found = packing_checked(model, scorer.reading, 4)
    assert found is not None
    forward = PackedForward(model, scorer.reading, 4, 24, 5)
    scores = forward.score(batch_of(many), LABELS)
    assert np.abs(scores.log_probs - padded).max() < bound
    assert scores.tokens_computed == distinct_prefixes(many)


# --- through a host ---------------------------------------------------------------------------


def served(folder: Path, family: str, **changes: Any) -> tuple[Host, Any]:
    """Return a host of a saved tiny model, and the model."""
    name, fields = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**(fields | changes))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, 0.25)
    model.save_pretrained(folder)
    host = Host(HostSpec(str(folder), precision="fp32", device="cpu", threads=1))
    host.load()
    return host, model


def ask(host: Host, many: Sequence[ScoreSequence]) -> Any:
    ids, hidden = [row.ids for row in many], [list(row.hidden) or None for row in many]
    return host.score(score_request([0] * len(many), ids, hidden, ScoreTask(LABELS)))


LONG_ROPE = {
    "rope_theta": 10000.0,
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 40,
}
"""Other frequencies for every token of a row that is longer than 40."""


@pytest.mark.parametrize(
    ("family", "changes", "limit"),
    [
        ("llama", {}, None),
        ("mistral", {}, None),  # a window this short is made to bind when it is tried
        ("mistral", {"sliding_window": 1500, "max_position_embeddings": 4000}, 1500),
        ("llama", {"rope_parameters": LONG_ROPE, "max_position_embeddings": 128}, 40),
    ],
)
def test_prompts_beyond_what_could_be_tried_are_not_packed(
    family: str, changes: dict[str, Any], limit: int | None, tmp_path: Path
) -> None:
    host, model = served(tmp_path, family, **changes)
    assert host._queue._backend._packed_up_to == limit
    # behind the limit lie more than 40 tokens, or nothing that this test has the time for
    many = [*prompts(8), ScoreSequence((*TEMPLATE, *range(20, 60), 16, 17))]
    expected = [plain(model, row)[0] for row in many]
    found = np.array(ask(host, many)["log_probs"].to_pylist())
    np.testing.assert_allclose(found, expected, atol=2e-5)
    host.stop()


def test_prompts_on_both_sides_of_the_limit_get_their_own_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, model = served(tmp_path, "llama")
    backend: Any = host._queue._backend
    packed_rows: list[int] = []
    whole = PackedForward.score

    def watching(self: PackedForward, batch: SequenceBatch, *args: Any, **named: Any) -> Any:
        packed_rows.extend(batch.sequences.lengths.tolist())
        return whole(self, batch, *args, **named)

    monkeypatch.setattr(PackedForward, "score", watching)
    many = prompts(12) + prompts(3, hide=True)
    limit = backend._packed_up_to = sorted(len(row.ids) for row in many)[6] + 2
    found = np.array(ask(host, many)["log_probs"].to_pylist())
    expected = [plain(model, row)[0] for row in many]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # the longest label has three tokens, two of which run
    assert sorted(packed_rows) == sorted(n for n in (len(r.ids) for r in many) if n + 2 <= limit)
    assert 0 < len(packed_rows) < len(many)
    host.stop()


def test_where_not_even_a_small_piece_fits_prompts_are_tried_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, model = served(tmp_path, "llama")
    loaded: Any = host._queue._backend
    whole = loaded._packed._model.base_model.forward

    def scarce(*args: Any, **inputs: Any) -> Any:
        rows, width = inputs["input_ids"].shape
        if inputs["attention_mask"].shape[1] > 20 or rows * width > 80:
            raise RuntimeError("can't allocate memory")
        return whole(*args, **inputs)

    def never(*_: Any) -> Any:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(loaded._packed._model.base_model, "forward", scarce)
    monkeypatch.setattr(loaded._packed, "_forward", never)
    many = [ScoreSequence((30, *range(40, 40 + n))) for n in (3, 5, 30, 8)]
    reply = ask(host, many)
    errors = reply["error"].to_pylist()
    assert [error is None for error in errors] == [True, True, False, True]
    assert "31 tokens" in errors[2]
    assert "memory" in errors[2]
    found = np.array([reply["log_probs"][i].as_py() for i in (0, 1, 3)])
    expected = [plain(model, many[i])[0] for i in (0, 1, 3)]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    host.stop()


# --- what falls back --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FALL_BACK)
def test_families_that_cannot_be_packed_are_scored_all_the_same(
    family: str, tmp_path: Path
) -> None:
    model = build(family)
    scorer, _ = make_scorer(model, 4)
    assert packing_checked(model, scorer.reading, 4) is None
    model.save_pretrained(tmp_path)
    host = Host(HostSpec(str(tmp_path), precision="fp32", device="cpu", threads=1))
    assert "packed+" not in host.load().scorer
    many = prompts(6)
    ids = [row.ids for row in many]
    reply = host.score(score_request([0] * 6, ids, [None] * 6, ScoreTask(LABELS)))
    expected = [plain(model, row)[0] for row in many]
    np.testing.assert_allclose(np.array(reply["log_probs"].to_pylist()), expected, atol=2e-5)
    host.stop()
