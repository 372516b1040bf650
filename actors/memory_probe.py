"""How many nodes go through a model as one, by what a short pass was seen to take.

What a pass takes beside the weights depends on a family's widths, its number format, an adapter and
the route of its attention, and none of it can be told from outside. Two short passes tell it: their
difference is what a node takes, and the rest is what a pass takes however short it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from actors.backend import BackendOutOfMemoryError, SequenceBatch
from actors.compiled import sizes_up_to
from actors.memory_need import device_memory
from engine.ragged import Ragged

if TYPE_CHECKING:
    import torch

    from actors.packed_forward import PackedForward

SHARE = 0.5
"""Of the memory that is free once the model is loaded, what a piece may take. The rest is for kept
prefixes, for adapters, and for what one piece takes more than another."""

PROBED = (256, 512)
"""Nodes of the two passes."""

LEAST = 64
"""Nodes of the smallest piece that is begun with; where that doesn't fit either, it is halved."""

_STEM, _BRANCH = 8, 24  # tokens of the probe's common beginning, and of each of its branches


def fit_piece(packed: PackedForward, vocabulary: int, free: int | None = None) -> int:
    """Set the nodes of a piece by the memory that is free, and return them.

    The size that a scorer has is only made smaller: it is the fastest, as far as known. Smaller
    ones are powers of two, so that a little more or less free memory seldom changes how sums are
    rounded.

    Args:
        packed: A scorer that has passed its check.
        vocabulary: Number of token ids that the model takes.
        free: Bytes; None for what the model's device has.
    """
    most = packed.piece
    if most <= PROBED[1]:  # a probe would take as much as what it is to guard
        return most
    room = SHARE * (free_bytes(packed.device) if free is None else free)
    taken = []
    try:
        for nodes in PROBED:
            packed.piece = nodes
            batch = _probe(vocabulary, nodes)
            taken.append(peak_bytes(partial(_score, packed, batch), packed.device))
            if packed.piece < nodes:  # memory ran out, and the scorer has halved it
                return packed.piece
    except BackendOutOfMemoryError:
        packed.piece = LEAST
        return LEAST
    each = max(taken[1] - taken[0], 1) / (PROBED[1] - PROBED[0])
    fixed = max(taken[0] - each * PROBED[0], 0)
    packed.piece = fitting_nodes(room, each, fixed, most)
    if packed.sizes:
        packed.sizes = sizes_up_to(packed.piece)
    return packed.piece


def fitting_nodes(room: float, each: float, fixed: float, most: int) -> int:
    """Return the nodes whose pass takes at most `room`: `most`, or else a power of two.

    Args:
        room: Bytes.
        each: Bytes of a node.
        fixed: Bytes of a pass however short.
        most: Nodes.
    """
    fitting = (room - fixed) / each
    if fitting >= most:
        return most
    return max(LEAST, 1 << max(int(fitting), 1).bit_length() - 1)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that a device has left."""
    import torch

    if device.type == "cuda":
        # what torch has freed is its own to give again
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return device_memory("cpu")


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of tensors that a call holds at once beyond those before it."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    from actors.held_memory import HeldMemory

    with HeldMemory() as held:
        run()
    peak: int = held.peak
    return peak


def _score(packed: PackedForward, batch: SequenceBatch) -> None:
    packed.score(batch, ((3,),), own_prefix=True)


def _probe(vocabulary: int, nodes: int) -> SequenceBatch:
    """Return prompts of a trie of about so many nodes, of which one in 24 is read."""
    stem = [(7919 * i + 13) % vocabulary for i in range(_STEM)]
    rows = [
        # a first token of its own tells each branch from the others
        (*stem, (branch + 1) % vocabulary, *((104729 * i + 7) % vocabulary for i in range(_BRANCH)))
        for branch in range(max(nodes // (_BRANCH + 1), 1))
    ]
    return SequenceBatch(Ragged.of(rows), None)
