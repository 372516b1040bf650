"""vLLM as a rung of the scoring benchmark: in process, prefix caching on, labels by token id."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engine.ragged import Ragged

KV_BYTES = 512 << 20


def vllm_scorer(
    folder: str, label_ids: Sequence[tuple[int, ...]], block_size: int
) -> Callable[[Ragged], tuple[npt.NDArray[np.float64], int]]:
    """Return a scorer: prompts -> (log-odds of the second label, tokens asked).

    vLLM doesn't tell how many tokens it computes, so those asked are returned.

    Args:
        folder: Of the model.
        label_ids: Two labels of one token.
        block_size: Tokens of a block of its prefix cache.
    """
    # in process: a second process would cost a copy of every request
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm import LLM, SamplingParams

    model = LLM(
        model=folder,
        dtype="float32",
        enforce_eager=True,
        block_size=block_size,
        kv_cache_memory_bytes=KV_BYTES,
        enable_prefix_caching=True,
        max_model_len=2048,
        disable_log_stats=True,
    )
    tokens = [label[0] for label in label_ids]
    params = SamplingParams(
        max_tokens=1, temperature=0.0, logprob_token_ids=tokens, detokenize=False
    )

    def score(sequences: Ragged) -> tuple[npt.NDArray[np.float64], int]:
        prompts = [{"prompt_token_ids": row} for row in sequences.to_lists()]
        outputs = model.generate(prompts, params, use_tqdm=False)
        found = []
        for output in outputs:
            (log_probs,) = output.outputs[0].logprobs
            found.append(log_probs[tokens[1]].logprob - log_probs[tokens[0]].logprob)
        return np.array(found), len(sequences.flat)

    return score
