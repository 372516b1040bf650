"""Label scores of many sequences with every distinct prefix computed once.

`engine.packing` turns the sequences into pieces of a trie; each piece goes through the model as one
row of nodes, attending by `actors.tree_attention`. Labels are read at some nodes only, so the last
layer computes queries, attention's output and the feed-forward part there alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.backend import BackendOutOfMemoryError, Scores, SequenceBatch
from actors.batching import Ids
from actors.compiled import begin_pass, padded_to
from actors.label_reads import (
    Reading,
    ReadPlan,
    label_sums,
    output_matrix,
    read_plan,
    read_states,
    reduce_logits,
)
from actors.lean_layers import LeanLayers
from actors.out_of_memory import free_memory, is_out_of_memory
from actors.pruning import decoder_layers, pruned
from actors.transfer import on_device
from actors.tree_attention import NAME, Layer, PieceState, register, running
from actors.tree_mask import MaskedPiece
from engine.packing import Piece, Trie, block_at, build_trie, piece_at, shared_prefix
from engine.ragged import Ragged, concatenate

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PIECE = 3072
"""Nodes that go through the model as one, on a CPU. docs/performance.md has the sizes that were
tried. Less on either device where memory is short: `actors.memory_probe`."""

GPU_PIECE = 16_384
"""The same on a GPU. Not measured on a GPU."""

BLOCK = 32
"""Queries whose attention is one product, where paths are short. docs/performance.md has the sizes
that were tried."""

LONGER = 8
"""A batch whose common beginning is so much longer than a kept one gets a prefix of its own."""


MASKED_PIECE = 512
"""Nodes of a piece whose mask spans the whole of it. Not tuned."""

Route = Literal["lean", "pruned", "whole", "masked"]
"""How a piece goes through a model. `lean`: layers of our own, for the families they know.
`pruned`: tree attention, the last layer for the nodes that are read only. `whole`: tree attention
in all layers alike (families that take for granted that a layer returns as many states as it was
given). `masked`: the family's own attention under a mask."""


class _Prefix(NamedTuple):
    adapter: str
    tokens: npt.NDArray[np.int32]
    layers: dict[int, Layer]


class _Read(NamedTuple):
    """What a piece gave.

    Attributes:
        log_z: Of the nodes that are read [N].
        picked: Log-probabilities of the label tokens there [N, U].
        kept: Keys and values for the next piece, by layer.
    """

    log_z: npt.NDArray[np.float32]
    picked: npt.NDArray[np.float32]
    kept: dict[int, Layer]


class PackedForward:
    """Packed scoring with a loaded model.

    Args:
        model: A causal language model in evaluation mode, of a family whose attention transformers
            lets be replaced; the load's self-check says whether it is.
        reading: How logits are had at the nodes that are read.
        prefixes: Most shared prefixes kept; 0 computes them with every batch.
        piece: Nodes of a piece.
        block: Queries of a block, where paths are short.
        route: How pieces go through the model.
        sizes: Numbers of nodes that pieces are padded to, ascending; none if empty. Only of the
            routes `pruned` and `whole`.

    Raises:
        ValueError: The model can't be run by this route.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reading: Reading,
        prefixes: int = 8,
        piece: int = PIECE,
        block: int = BLOCK,
        route: Route = "pruned",
        sizes: tuple[int, ...] = (),
    ) -> None:
        register()
        self._model = model
        self._reading = reading
        self._head = output_matrix(model)
        self.route = route
        if route == "lean" and reading != "gathered":
            raise ValueError(f"lean layers give states, so logits can't be read {reading}")
        self._lean = LeanLayers(model) if route == "lean" else None
        self._last = decoder_layers(model)[-1] if route == "pruned" else None
        self._most_prefixes = prefixes
        self._prefixes: list[_Prefix] = []  # the last used one is the last
        self.piece = piece
        self.block = block
        if sizes and route not in ("pruned", "whole"):
            raise ValueError(f"pieces of the route {route} are not padded")
        self.sizes = sizes
        self._padding = 0  # nodes, of the batch that runs

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._model.device

    def score(
        self,
        batch: SequenceBatch,
        label_ids: Sequence[Ids],
        own_prefix: bool = False,
        adapter: str = "",
    ) -> Scores:
        """Score S prompts.

        Args:
            batch: Prompts within the model's window, no token outside its vocabulary.
            label_ids: Token ids of each of the L labels.
            own_prefix: Use a kept prefix only where it is just the batch's own, so that the last
                bits of the scores are a function of the batch and not of what came before.
            adapter: Digest of the adapter that is on: kept prefixes are its own.

        Raises:
            BackendOutOfMemoryError: Not even the smallest piece fits into memory.
        """
        import torch

        sequences, hidden = batch
        if not batch.n_rows:
            none = np.zeros(0, dtype=np.float32)
            return Scores(none.reshape(0, len(label_ids)), none, 0, 0, 0)
        plan = read_plan(label_ids)
        self._padding = 0
        with torch.inference_mode(), self._attending():
            carried, prefix, computed = self._take_prefix(sequences, hidden, own_prefix, adapter)
            rows, row_hidden = with_continuations(sequences, hidden, plan.continuations)
            trie = build_trie(rows, row_hidden, prefix)
            nodes = _read_nodes(trie, plan, sequences.n_rows)
            wanted, place = np.unique(nodes, return_inverse=True)
            read = list(self._run(trie, wanted, plan, carried))
        log_z = np.concatenate([part.log_z for part in read])
        picked = np.concatenate([part.picked for part in read])
        shape = (sequences.n_rows, len(plan.slots))
        place = place.reshape(shape)
        return Scores(
            label_sums(picked[place], plan),
            np.ascontiguousarray(log_z[place[:, 0]]),
            computed + trie.n_nodes + self._padding,
            prefix + trie.n_nodes,
            len(np.unique(place[:, 0])),
        )

    def _run(
        self,
        trie: Trie,
        wanted: npt.NDArray[np.int64],
        plan: ReadPlan,
        carried: dict[int, Layer],
        keep_all: bool = False,
    ) -> Iterator[_Read]:
        """Yield what is read at the wanted nodes, piece after piece.

        A piece that doesn't fit into memory is tried again at half the size, which then stays.

        Args:
            trie: What runs.
            wanted: Nodes that are read, ascending.
            plan: What is read there.
            carried: Keys and values of the shared prefix.
            keep_all: Keep keys and values of all nodes of a trie that is a single path.
        """
        start = 0
        while start < trie.n_nodes:
            block = self.block
            if self.route != "masked":
                block = block_at(trie, start, self.piece, block)
            piece = piece_at(trie, start, self.piece, block)
            if keep_all:
                piece = piece._replace(carry=np.arange(piece.stop))
            first, last = np.searchsorted(wanted, [piece.start, piece.stop])
            reads = wanted[first:last] - piece.start
            state = self._state(piece, carried, reads, trie.prefix)
            try:
                found = self._forward(trie, piece, state, reads, plan)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                found, reason = None, str(error).splitlines()[0]
            if found is None:  # outside the handler, whose traceback would hold the tensors
                del state
                free_memory()
                if self.piece <= self.block:
                    raise BackendOutOfMemoryError(reason)
                self.piece = max(self.piece // 2, self.block)
                continue
            yield _Read(*found, state.kept)
            carried, start = state.kept, piece.stop

    def _state(
        self, piece: Piece, carried: dict[int, Layer], reads: npt.NDArray[np.int64], prefix: int
    ) -> PieceState | MaskedPiece:
        if self.route == "masked":
            return MaskedPiece(piece, carried, self._model.device, self._model.dtype)
        return PieceState(piece, carried, reads, self._model.device, self._model.dtype, prefix)

    def _forward(
        self,
        trie: Trie,
        piece: Piece,
        state: PieceState | MaskedPiece,
        reads: npt.NDArray[np.int64],
        plan: ReadPlan,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        device = self._model.device
        nodes = slice(piece.start, piece.stop)
        at = on_device(reads, device)
        if self._lean is not None:
            assert isinstance(state, PieceState)
            tokens, positions = (
                on_device(values[nodes].astype(np.int64), device)
                for values in (trie.tokens, trie.positions)
            )
            states = self._lean.run(tokens, positions, state, at)
            return read_states(self._head, states, plan.tokens)
        padding = padded_to(piece.stop - piece.start, self.sizes) - (piece.stop - piece.start)
        self._padding += padding
        tokens, positions = (
            on_device(np.pad(values[nodes].astype(np.int64), (0, padding))[None], device)
            for values in (trie.tokens, trie.positions)
        )
        inputs: dict[str, Any] = {
            "input_ids": tokens,
            "position_ids": positions,
            "use_cache": False,
        }
        if self.sizes:
            begin_pass(self._model)
        with ExitStack() as stack:
            if isinstance(state, MaskedPiece):
                inputs |= {"attention_mask": state.mask, "past_key_values": state}
            else:
                stack.enter_context(running(state))
                if self._last is not None:
                    stack.enter_context(pruned(self._last, state, at))
            if self._reading == "gathered":
                states = self._model.base_model(**inputs).last_hidden_state[0]
                if self._last is None:
                    states = states.index_select(0, at)
                return read_states(self._head, states, plan.tokens)
            # a pruned last layer has left the nodes that are read, so all that comes out is kept
            kept = at if self._last is None else 0
            logits = self._model(**inputs, logits_to_keep=kept).logits[0]
            return reduce_logits([logits], plan.tokens)

    def _take_prefix(
        self, sequences: Ragged, hidden: Ragged | None, own: bool, adapter: str
    ) -> tuple[dict[int, Layer], int, int]:
        """Return keys and values of a prefix of all sequences, its length, and tokens computed."""
        length = shared_prefix(sequences, hidden) if self._most_prefixes else 0
        if not length:
            return {}, 0, 0
        tokens = sequences.flat[:length]
        shared = [
            _common(tokens, kept.tokens) if kept.adapter == adapter else 0
            for kept in self._prefixes
        ]
        best = int(np.argmax(shared)) if shared else -1
        if own:
            same = [
                n
                for n, kept in enumerate(self._prefixes)
                if kept.adapter == adapter and np.array_equal(kept.tokens, tokens)
            ]
            best = same[0] if same else -1
        computed = 0
        if best >= 0 and shared[best] and length - shared[best] <= LONGER:
            prefix = self._prefixes.pop(best)
            length = shared[best]
        else:
            prefix = _Prefix(adapter, tokens.copy(), self._layers_of(tokens))
            computed = length
        self._prefixes = [*self._prefixes, prefix][-self._most_prefixes :]
        cut_off = {i: (k[:, :length], v[:, :length]) for i, (k, v) in prefix.layers.items()}
        return cut_off, length, computed

    def _layers_of(self, tokens: npt.NDArray[np.int32]) -> dict[int, Layer]:
        """Compute the keys and values of a prefix."""
        trie = build_trie(Ragged(tokens, np.array([0, len(tokens)], dtype=np.int64)))
        none = np.zeros(0, dtype=np.int64)
        layers: dict[int, Layer] = {}
        for read in self._run(trie, none, ReadPlan([()], [], [], []), {}, keep_all=True):
            layers = read.kept
        return layers

    @contextmanager
    def _attending(self) -> Iterator[None]:
        if self.route in ("lean", "masked"):
            yield
            return
        config: Any = self._model.base_model.config
        before = config._attn_implementation
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = before


def with_continuations(
    sequences: Ragged, hidden: Ragged | None, conts: Sequence[Ids]
) -> tuple[Ragged, Ragged | None]:
    """Return each sequence once with every continuation, continuation by continuation."""
    if len(conts) == 1 and not conts[0]:
        return sequences, hidden
    rows = concatenate([append(sequences, cont) for cont in conts])
    return rows, None if hidden is None else concatenate([hidden] * len(conts))


def append(sequences: Ragged, cont: Ids) -> Ragged:
    """Return each sequence followed by `cont`."""
    if not cont:
        return sequences
    ends = np.repeat(sequences.offsets[1:], len(cont))
    flat = np.insert(sequences.flat, ends, np.tile(cont, sequences.n_rows).astype(np.int32))
    grown = sequences.offsets + len(cont) * np.arange(sequences.n_rows + 1)
    return Ragged(flat, grown)


def _read_nodes(trie: Trie, plan: ReadPlan, n_sequences: int) -> npt.NDArray[np.int64]:
    """Return the node of every slot of every sequence [S, slots]."""
    nodes = np.empty((n_sequences, len(plan.slots)), dtype=np.int64)
    for slot, (cont, depth) in enumerate(plan.slots):
        back = len(plan.continuations[cont]) - depth
        rows = slice(cont * n_sequences, (cont + 1) * n_sequences)
        nodes[:, slot] = trie.nodes_at(back)[rows]
    return nodes


def _common(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length
