"""Keys and values of the prompts' common beginning, computed once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel

    Layers = list[tuple[torch.Tensor, torch.Tensor]]


class Prefix(NamedTuple):
    """A prefix ready for a batch.

    Attributes:
        cache: A cache of the batch's own, to be given to one forward pass.
        tokens_computed: Tokens that were computed for it now: 0 where they were kept.
    """

    cache: DynamicCache
    tokens_computed: int


class PrefixCache:
    """The last few prefixes of one model; the kept tensors are never written to.

    Args:
        model: A causal model of a family for which `supports_prefixes` holds.
        size: Number of prefixes kept.
    """

    def __init__(self, model: PreTrainedModel, size: int) -> None:
        self._model = model
        self._size = size
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], Layers] = OrderedDict()

    def take(self, ids: Sequence[int], n_rows: int, adapter: str = "") -> Prefix:
        """Return the keys and values of `ids`, at positions 0, 1, …, for `n_rows` rows.

        Args:
            ids: The prefix.
            n_rows: Rows of the batch it is for.
            adapter: Digest of the adapter that is on.
        """
        from transformers import DynamicCache

        key = adapter, tuple(ids)
        computed = 0
        if key not in self._kept:
            self._kept[key] = self._compute(key[1])
            computed = len(ids)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        # a cache grows by concatenation, so views of the kept tensors stay as they are
        wide = [
            (keys.expand(n_rows, -1, -1, -1), values.expand(n_rows, -1, -1, -1))
            for keys, values in self._kept[key]
        ]
        return Prefix(DynamicCache(ddp_cache_data=wide), computed)

    def _compute(self, ids: tuple[int, ...]) -> Layers:
        import torch
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self._model.config)
        row = torch.tensor([ids], device=self._model.device)
        self._model.base_model(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            past_key_values=cache,
            use_cache=True,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]


def supports_prefixes(config: Any) -> bool:
    """Return whether every layer of a family keeps all keys and values.

    Layers with a sliding window drop the oldest, recurrent ones keep a state instead; neither can
    be widened to other continuations by concatenation alone.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
