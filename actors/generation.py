"""A loaded model's own continuation of a prompt."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.out_of_memory import free_memory, is_out_of_memory
from engine import not_a_number
from engine.generations import GenerationAnswer, GenerationAsk

if TYPE_CHECKING:
    import torch


def continue_greedily(model: Any, ask: GenerationAsk) -> GenerationAnswer:
    """Return the greedy continuation: at each place the token of the highest logit.

    Nothing else that the model's own generation settings ask for is applied, such as a penalty on
    repetitions: the probabilities that are explained know nothing of it. Only the tokens that end a
    text are taken from there.

    Args:
        model: A causal language model in evaluation mode.
        ask: A prompt within the model's window, with room for the continuation.

    Raises:
        ValueError: It doesn't fit into memory, or the logits are not a number.
    """
    import torch

    started = time.perf_counter()
    ids = torch.tensor([ask.ids], dtype=torch.int64, device=model.device)
    try:
        with torch.inference_mode(), _plain_settings(model, ask.max_new_tokens) as ends:
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), logits_processor=[_numbers_only]
            )
        new = found[0, len(ask.ids) :].tolist()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).splitlines()[0]
    else:
        kept = new[:-1] if new and new[-1] in ends else new
        # the last token is never fed
        tokens = len(ask.ids) + max(len(new) - 1, 0)
        return GenerationAnswer(tuple(kept), tokens, time.perf_counter() - started)
    free_memory()  # outside the handler, whose traceback would hold the tensors
    raise ValueError(f"generating after {len(ask.ids)} tokens ran out of memory ({message})")


def _numbers_only(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return the logits as they are; the token of the highest means nothing among no numbers."""
    if not bool((logits < math.inf).all()):
        raise ValueError(not_a_number.MESSAGE)
    return logits


@contextmanager
def _plain_settings(model: Any, max_new_tokens: int) -> Iterator[frozenset[int]]:
    """Let a model generate greedily; yields the tokens that end a text."""
    from transformers import GenerationConfig

    own = model.generation_config
    end = own.eos_token_id
    if end is None:
        end = model.config.eos_token_id
    ends = [] if end is None else [end] if isinstance(end, int) else list(end)
    # what a call leaves open is filled in from the model's, so it is the model's that changes
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    try:
        yield frozenset(ends)
    finally:
        model.generation_config = own
