"""vLLM as a rung of the scoring benchmark: in process, prefix caching on, labels by token id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.vllm_engine import Read, VllmEngine
from engine.ragged import Ragged
from jobs.bench.rungs import Answer, Scorer

KV_BYTES = 512 << 20


def vllm_scorer(
    folder: str, label_ids: Sequence[tuple[int, ...]], block_size: int, device: str
) -> Scorer:
    """Return a scorer.

    Prompts are handed over as they come, equal ones too: what vLLM does by itself.

    Args:
        folder: Of the model.
        label_ids: Two labels of one token.
        block_size: Tokens of a block of its prefix cache.
        device: That the other rungs are on.

    Raises:
        ModelError: This vLLM is built for another kind of device.
    """
    options = {"block_size": block_size, "kv_cache_memory_bytes": KV_BYTES, "max_model_len": 2048}
    engine = VllmEngine(folder, "fp32", device, options=options)
    first, second = (label[0] for label in label_ids)

    def score(sequences: Ragged) -> tuple[Answer, int]:
        reads = [Read(row, (first, second)) for row in sequences.to_lists()]
        found, computed = engine.read(reads)
        return np.array([after - before for before, after in found]), computed

    return score
