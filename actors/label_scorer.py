"""Label log-probabilities of a batch of prompts by one pass through a causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actors.batching import Ids, ScoreSequence
from actors.bucketed import BatchScores
from actors.label_reads import (
    Reading,
    ReadPlan,
    label_sums,
    output_matrix,
    read_plan,
    read_states,
    reduce_logits,
)
from actors.prefix_cache import PrefixCache
from actors.transfer import on_device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class LabelScorer:
    """Scores batches with a loaded model.

    Args:
        model: A causal language model in evaluation mode.
        reading: See `Reading`.
        prefixes: Kept prefixes, or None to compute every prompt whole.
    """

    def __init__(
        self, model: PreTrainedModel, reading: Reading, prefixes: PrefixCache | None
    ) -> None:
        self._model = model
        self.reading = reading
        self._prefixes = prefixes
        self._head = output_matrix(model)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    def score(
        self,
        sequences: Sequence[ScoreSequence],
        label_ids: Sequence[Ids],
        prefix: int = 0,
        adapter: str = "",
    ) -> BatchScores:
        """Score B prompts.

        Args:
            sequences: Prompts within the model's window, no token outside its vocabulary.
            label_ids: Token ids of each of the L labels.
            prefix: Number of first tokens that all prompts share, none hidden.
            adapter: Digest of the adapter that is on: kept prefixes are its own.

        Returns:
            Log-probabilities [B, L], the sum over a label's tokens of theirs under the full
            vocabulary, in fp32; log Z [B]; tokens computed.
        """
        import torch

        plan = read_plan(label_ids)
        n_rows = len(sequences) * len(plan.continuations)
        with torch.inference_mode():
            past, computed = None, 0
            if prefix and self._prefixes:
                past, computed = self._prefixes.take(sequences[0].ids[:prefix], n_rows, adapter)
            start = prefix if past is not None else 0
            rows = self._rows(sequences, plan.continuations, start, past)
            index, position = _places(sequences, plan, start, self._model.device)
            log_z, picked = self._read(rows, index, position, plan.tokens)
        computed += int(rows["input_ids"].numel())
        shape = (len(sequences), len(plan.slots))
        return (
            label_sums(picked.reshape(*shape, -1), plan),
            np.ascontiguousarray(log_z.reshape(shape)[:, 0]),
            computed,
        )

    def _rows(
        self, sequences: Sequence[ScoreSequence], conts: list[Ids], prefix: int, past: Any
    ) -> dict[str, Any]:
        """Return the model's inputs: every prompt with every continuation, padded on the right."""
        import torch

        rows = [(s.ids[prefix:] + cont, s.hidden) for s in sequences for cont in conts]
        width = max(len(ids) for ids, _ in rows)
        ids_BT = np.zeros((len(rows), width), dtype=np.int64)
        mask_BT = np.zeros((len(rows), prefix + width), dtype=np.int64)
        for row, (ids, hidden) in enumerate(rows):
            ids_BT[row, : len(ids)] = ids
            mask_BT[row, : prefix + len(ids)] = 1
            mask_BT[row, list(hidden)] = 0
        device = self._model.device
        inputs: dict[str, Any] = {
            "input_ids": on_device(ids_BT, device),
            "attention_mask": on_device(mask_BT, device),
            "use_cache": past is not None,
        }
        if past is not None:
            inputs["past_key_values"] = past
        if self.takes_positions:
            positions = torch.arange(prefix, prefix + width, device=device)
            inputs["position_ids"] = positions.expand(len(rows), -1)
        return inputs

    def _read(
        self,
        inputs: dict[str, Any],
        index: torch.Tensor,
        position: torch.Tensor,
        tokens: list[int],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return log Z [N] and the log-probabilities of `tokens` [N, U] at N places."""
        import torch

        if self.reading == "gathered":
            states = self._model.base_model(**inputs).last_hidden_state[index, position]
            return read_states(self._head, states, tokens)
        if self.reading == "kept":
            kept, at = torch.unique(position, return_inverse=True)
            logits = self._model(**inputs, logits_to_keep=kept).logits[index, at]
        else:
            logits = self._model(**inputs).logits[index, position]
        return reduce_logits([logits], tokens)


def _places(
    sequences: Sequence[ScoreSequence], plan: ReadPlan, prefix: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and column [B·S] of every slot of every prompt in the computed part."""
    import torch

    n_conts = len(plan.continuations)
    index = [b * n_conts + cont for b in range(len(sequences)) for cont, _ in plan.slots]
    position = [
        len(sequence.ids) - prefix - 1 + depth for sequence in sequences for _, depth in plan.slots
    ]
    return torch.tensor(index, device=device), torch.tensor(position, device=device)
