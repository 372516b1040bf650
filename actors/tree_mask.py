"""A piece of a trie for families whose attention can't be replaced: a mask, and a cache.

Such a family (Falcon, GPT-J) still takes a mask of any shape and asks a cache for the keys that
came before. So a piece stands in the place of the cache: it hands the carried path's keys and
values over with the new ones and keeps what later pieces need. Unlike in `actors.tree_attention`
the mask spans the whole piece, nodes × keys, so pieces should be short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actors.transfer import on_device
from engine.packing import Piece

if TYPE_CHECKING:
    import torch

    from actors.tree_attention import Layer


def seen(piece: Piece) -> npt.NDArray[np.bool_]:
    """Return which local keys each node of a piece sees [nodes, keys].

    Node q sees key k if `k <= q < end[k]`; keys are the shared prefix, the carried path, and the
    piece's own nodes, in the order of their local numbers.
    """
    nodes = np.arange(piece.start, piece.stop)
    n_keys = int(piece.keys.max()) + 1
    key_nodes = np.zeros(n_keys, dtype=np.int64)
    key_ends = np.zeros(n_keys, dtype=np.int64)  # what no block looks at is seen by nothing
    real = piece.key_ends > 0
    key_nodes[piece.keys[real]] = piece.key_nodes[real]
    key_ends[piece.keys[real]] = piece.key_ends[real]
    visible: npt.NDArray[np.bool_] = (key_nodes <= nodes[:, None]) & (nodes[:, None] < key_ends)
    return visible


class MaskedPiece:
    """A piece on its way through the layers, in the place of transformers' cache.

    Args:
        piece: What runs.
        carried: Keys and values of the shared prefix and the carried path, by layer.
        device: Of the model.
        dtype: Of its states.

    Attributes:
        kept: Keys and values that the next piece is given, by layer.
        mask: Additive mask [1, 1, nodes, keys].
    """

    def __init__(
        self, piece: Piece, carried: dict[int, Layer], device: torch.device, dtype: torch.dtype
    ) -> None:
        import torch

        self._carried = carried
        self._carry = on_device(piece.carry, device)
        self.kept: dict[int, Layer] = {}
        visible = on_device(seen(piece), device)
        self.mask = torch.zeros(visible.shape, dtype=dtype, device=device)
        self.mask = self.mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values [1, heads, keys, width] that the mask is about."""
        import torch

        if layer in self._carried:
            before_k, before_v = self._carried[layer]
            key = torch.cat([before_k[None], key], dim=2)
            value = torch.cat([before_v[None], value], dim=2)
        if len(self._carry):
            self.kept[layer] = (
                key[0].index_select(1, self._carry),
                value[0].index_select(1, self._carry),
            )
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        """Return how many keys come before the piece's own."""
        return next((key.shape[1] for key, _ in self._carried.values()), 0)
