"""Label log-probabilities of a batch of prompts by one pass through a causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.backend import Scores
from actors.batching import Ids, ScoreSequence, continuations
from actors.prefix_cache import PrefixCache

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Reading = Literal["gathered", "kept", "full"]
"""How logits are had at the positions that need them. `gathered`: the base model's states there,
through the output matrix. `kept`: the model's own `logits_to_keep` (families that scale or cap
their logits). `full`: all logits (families without that argument)."""

_LOGITS_AT_A_TIME = 1 << 26  # elements of one product with the output matrix


class ReadPlan(NamedTuple):
    """Where the labels of a task are read, the same for every prompt.

    A prompt runs once with each continuation; a slot is a position in one of them.

    Attributes:
        continuations: K token strings appended to the prompt.
        slots: (continuation, tokens past the prompt's last) of each of the S slots; slot 0 is at
            the prompt's last token.
        tokens: The U distinct label tokens.
        reads: For each label, the (slot, index into `tokens`) whose log-probabilities add up to it.
    """

    continuations: list[Ids]
    slots: list[tuple[int, int]]
    tokens: list[int]
    reads: list[list[tuple[int, int]]]


def read_plan(label_ids: Sequence[Ids]) -> ReadPlan:
    """Return where labels are read.

    Raises:
        ValueError: There is no label, or one without tokens.
    """
    conts = continuations(label_ids)
    tokens = sorted({token for label in label_ids for token in label})
    slots = {(0, 0): 0}
    reads = []
    for label in label_ids:
        inner = tuple(label[:-1])
        cont = next(k for k, ids in enumerate(conts) if ids[: len(inner)] == inner)
        places = [(0 if depth == 0 else cont, depth) for depth in range(len(label))]
        reads.append(
            [
                (slots.setdefault(place, len(slots)), tokens.index(token))
                for place, token in zip(places, label, strict=True)
            ]
        )
    return ReadPlan(conts, list(slots), tokens, reads)


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
        self._reading = reading
        self._prefixes = prefixes
        self._head = output_matrix(model)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def score(
        self, sequences: Sequence[ScoreSequence], label_ids: Sequence[Ids], prefix: int = 0
    ) -> Scores:
        """Score B prompts.

        Args:
            sequences: Prompts within the model's window, no token outside its vocabulary.
            label_ids: Token ids of each of the L labels.
            prefix: Number of first tokens that all prompts share, none hidden.

        Returns:
            `log_probs` [B, L]: the sum over a label's tokens of their log-probabilities under the
            full vocabulary, in fp32; `log_z` [B].
        """
        import torch

        plan = read_plan(label_ids)
        n_rows = len(sequences) * len(plan.continuations)
        with torch.inference_mode():
            past, computed = None, 0
            if prefix and self._prefixes:
                past, computed = self._prefixes.take(sequences[0].ids[:prefix], n_rows)
            start = prefix if past is not None else 0
            rows = self._rows(sequences, plan.continuations, start, past)
            index, position = _places(sequences, plan, start, self._model.device)
            log_z, picked = _reduce(self._logits(rows, index, position), plan.tokens)
        computed += int(rows["input_ids"].numel())
        shape = (len(sequences), len(plan.slots))
        return Scores(
            _sum_labels(picked.reshape(*shape, -1), plan),
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
            "input_ids": torch.from_numpy(ids_BT).to(device),
            "attention_mask": torch.from_numpy(mask_BT).to(device),
            "use_cache": past is not None,
        }
        if past is not None:
            inputs["past_key_values"] = past
        if self.takes_positions:
            positions = torch.arange(prefix, prefix + width, device=device)
            inputs["position_ids"] = positions.expand(len(rows), -1)
        return inputs

    def _logits(
        self, inputs: dict[str, Any], index: torch.Tensor, position: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Yield the logits [N, V] at N places, in parts of bounded size."""
        import torch

        if self._reading == "gathered":
            states = self._model.base_model(**inputs).last_hidden_state[index, position]
            head: Any = self._head
            for part in states.split(max(1, _LOGITS_AT_A_TIME // head.weight.shape[0])):
                yield head(part)
        elif self._reading == "kept":
            kept, at = torch.unique(position, return_inverse=True)
            yield self._model(**inputs, logits_to_keep=kept).logits[index, at]
        else:
            yield self._model(**inputs).logits[index, position]


def output_matrix(model: Any) -> Any:
    """Return the module that turns states into logits, or None."""
    return model.get_output_embeddings()


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


def _reduce(
    parts: Iterable[torch.Tensor], tokens: list[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return log Z [N] and the log-probabilities of `tokens` [N, U] of logits [N, V]."""
    import torch

    log_z, picked = [], []
    for part in parts:
        logits = part.float()
        total = logits.logsumexp(dim=-1)
        log_z.append(total)
        picked.append(logits[:, tokens] - total[:, None])
    return torch.cat(log_z).cpu().numpy(), torch.cat(picked).cpu().numpy()


def _sum_labels(picked_BSU: npt.NDArray[np.float32], plan: ReadPlan) -> npt.NDArray[np.float32]:
    """Return the log-probabilities of the labels [B, L]."""
    log_probs = np.zeros((len(picked_BSU), len(plan.reads)), dtype=np.float32)
    for label, reads in enumerate(plan.reads):
        for slot, token in reads:
            log_probs[:, label] += picked_BSU[:, slot, token]
    return log_probs
