"""Where labels are read behind a prompt, and how logits become their log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actors.batching import Ids, continuations
from actors.prepacked import product_of

if TYPE_CHECKING:
    import torch

Reading = Literal["gathered", "kept", "full"]
"""How logits are had at the positions that need them. `gathered`: the base model's states there,
through the output matrix. `kept`: the model's own `logits_to_keep` (families that scale or cap
their logits). `full`: all logits (families without that argument)."""

_LOGITS_AT_A_TIME = 1 << 24  # elements of one product with the output matrix
_CACHED_LOGITS = 1 << 21  # the same where the vocabulary is cut: what a CPU's cache holds


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


def output_matrix(model: Any) -> Any:
    """Return the module that turns states into logits, or None."""
    return model.get_output_embeddings()


def read_states(
    head: Any, states: torch.Tensor, tokens: list[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return log Z [N] and the log-probabilities of `tokens` [N, U] of states [N, H].

    A plain single-precision output matrix on a CPU is multiplied by parts of the vocabulary, so
    that logits are summed up while they are in the cache, and by oneDNN: it needs no second layout
    of so tall a matrix, which most models share with their embeddings.

    Logits in bf16 lie 1/8 apart at their usual size, further than most words move them. So the
    tokens' own are computed in single precision, and stand in for the rounded ones in the sum too.
    """
    import torch
    from torch.nn import functional

    product = product_of(head)
    if product is None or not len(states):
        return reduce_logits(_with_exact(head, states, tokens), tokens)
    columns = max(1, _CACHED_LOGITS // len(states))
    parts = [
        product(states, start, start + columns).logsumexp(dim=-1)
        for start in range(0, head.out_features, columns)
    ]
    total = torch.stack(parts).logsumexp(dim=0)
    offset = None if head.bias is None else head.bias[tokens]
    picked = functional.linear(states, head.weight[tokens], offset) - total[:, None]
    return total.numpy(), picked.numpy()


def _with_exact(head: Any, states: torch.Tensor, tokens: list[int]) -> Iterator[torch.Tensor]:
    import torch
    from torch.nn import Linear, functional

    if type(head) is not Linear or head.weight.dtype not in (torch.float16, torch.bfloat16):
        yield from head_logits(head, states)
        return
    columns = torch.tensor(tokens, dtype=torch.int64, device=states.device)
    weight = head.weight.index_select(0, columns).float()
    offset = None if head.bias is None else head.bias.index_select(0, columns).float()
    start = 0
    for part in head_logits(head, states):
        stop = start + len(part)
        exact = functional.linear(states[start:stop].float(), weight, offset)
        yield part.float().index_copy_(1, columns, exact)
        start = stop


def head_logits(head: Any, states: torch.Tensor) -> Iterable[torch.Tensor]:
    """Yield the logits [n, V] of states [N, H], in parts of bounded size."""
    rows = max(1, _LOGITS_AT_A_TIME // head.out_features)
    for start in range(0, len(states), rows):
        yield head(states[start : start + rows])


def reduce_logits(
    parts: Iterable[torch.Tensor], tokens: list[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return log Z [N] and the log-probabilities of `tokens` [N, U] of logits [N, V]."""
    import torch

    log_z = [np.zeros(0, dtype=np.float32)]
    picked = [np.zeros((0, len(tokens)), dtype=np.float32)]
    for part in parts:
        logits = part.float()
        total = logits.logsumexp(dim=-1)
        log_z.append(total.cpu().numpy())
        columns = torch.tensor(tokens, dtype=torch.int64, device=logits.device)
        picked.append((logits.index_select(1, columns) - total[:, None]).cpu().numpy())
    return np.concatenate(log_z), np.concatenate(picked)


def label_sums(picked_BSU: npt.NDArray[np.float32], plan: ReadPlan) -> npt.NDArray[np.float32]:
    """Return the labels' log-probabilities [B, L] from their tokens' [B, slots, U]."""
    log_probs = np.zeros((len(picked_BSU), len(plan.reads)), dtype=np.float32)
    for label, reads in enumerate(plan.reads):
        for slot, token in reads:
            log_probs[:, label] += picked_BSU[:, slot, token]
    return log_probs
