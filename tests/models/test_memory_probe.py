"""The size of pieces that memory allows, against what passes of it really take."""

from __future__ import annotations

import pytest
import torch

from actors.backend import HostSpec, SequenceBatch
from actors.host import Host
from actors.memory_probe import LEAST, SHARE, fit_piece, fitting_nodes, free_bytes, peak_bytes
from actors.packed_forward import PIECE, PackedForward
from engine.ragged import Ragged
from tests.models.tiny import VOCABULARY, build

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
MEGABYTE = 1 << 20


def _prompts(n_rows: int) -> SequenceBatch:
    """Return prompts of 40 tokens that share nothing but the first."""
    torch.manual_seed(5)
    tokens = torch.randint(VOCABULARY, (n_rows, 39)).tolist()
    return SequenceBatch(Ragged.of([(7, *row) for row in tokens]), None)


@pytest.fixture(params=["lean", "pruned"])
def packed(request: pytest.FixtureRequest) -> PackedForward:
    return PackedForward(build("llama"), "gathered", route=request.param)


def test_a_peak_is_what_is_held_at_once() -> None:
    def one_after_another() -> None:
        for _ in range(3):
            torch.empty(4 * MEGABYTE, dtype=torch.uint8)

    def side_by_side() -> None:
        kept = [torch.empty(4 * MEGABYTE, dtype=torch.uint8) for _ in range(3)]
        del kept

    before = torch.empty(16 * MEGABYTE, dtype=torch.uint8)
    assert peak_bytes(one_after_another, CPU) == pytest.approx(4 * MEGABYTE, rel=0.01)
    assert peak_bytes(side_by_side, CPU) == pytest.approx(12 * MEGABYTE, rel=0.01)
    assert peak_bytes(lambda: None, CPU) == 0
    assert len(before)


def test_with_room_enough_pieces_stay_as_they_are(packed: PackedForward) -> None:
    assert fit_piece(packed, VOCABULARY) == PIECE == packed.piece


@pytest.mark.parametrize("megabytes", [2, 4, 8])
def test_pieces_take_no_more_than_their_share(packed: PackedForward, megabytes: int) -> None:
    free = megabytes * MEGABYTE
    nodes = fit_piece(packed, VOCABULARY, free)
    assert nodes == packed.piece
    assert LEAST < nodes < PIECE
    assert nodes & (nodes - 1) == 0, "no power of two"
    batch = _prompts(3 * nodes // 40)
    taken = peak_bytes(lambda: packed.score(batch, ((3,),)), CPU)
    # the share, and what the answers and the tokens of all pieces take
    assert taken < free, f"{taken / free:.2f} of the memory"
    assert taken > 0.2 * SHARE * free, "more would have fitted"


def test_scores_stay(packed: PackedForward) -> None:
    batch = _prompts(30)
    before = packed.score(batch, ((3,), (5, 7)))
    fit_piece(packed, VOCABULARY, 2 * MEGABYTE)
    after = packed.score(batch, ((3,), (5, 7)))
    assert after.log_probs == pytest.approx(before.log_probs, abs=1e-5)


def test_without_room_the_least_is_begun_with(packed: PackedForward) -> None:
    assert fit_piece(packed, VOCABULARY, 0) == LEAST


def test_a_small_piece_is_left_alone(packed: PackedForward) -> None:
    packed.piece = 100
    assert fit_piece(packed, VOCABULARY, 0) == 100


@pytest.mark.parametrize(
    ("room", "nodes"),
    [(10_000, 3000), (3100, 3000), (3099, 2048), (2148, 2048), (2147, 1024), (99, LEAST)],
)
def test_nodes_by_closed_form(room: int, nodes: int) -> None:
    """A node takes 1 and a pass 100."""
    assert fitting_nodes(room, 1.0, 100.0, 3000) == nodes


def test_memory_that_is_free_is_some() -> None:
    assert free_bytes(CPU) > 100 * MEGABYTE


def test_a_host_says_how_large_its_pieces_are() -> None:
    host = Host(HostSpec("smollm2-135m", precision="fp32", device="cpu", threads=1))
    try:
        assert host.load().piece == PIECE
    finally:
        host.stop()
