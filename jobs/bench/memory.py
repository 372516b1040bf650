"""How much more memory a host takes for thousands of perturbations of a text than for hundreds."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SAMPLES = (200, 5000)
"""Few perturbations, and as many as lime draws by default."""


class Peak(NamedTuple):
    """The resident memory of a process that scored one text's perturbations.

    Attributes:
        loaded: Its peak in bytes once the model was loaded.
        peak: At the end.
        tokens: Computed for the text.
    """

    loaded: int
    peak: int
    tokens: int


def run(
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    *,
    data: str = "bundled:reviews",
    field: str = "text",
    words: tuple[int, int] = (10, 25),
    samples: Sequence[int] = SAMPLES,
    prompt: str = "chat",
    device: str = "auto",
    threads: int = 0,
) -> dict[str, Any]:
    """Score the perturbations of one text, in a fresh process for each number, and return peaks.

    Args:
        model: As of `models.path`.
        data: Where the text is.
        field: Its column.
        words: Fewest and most words of the text.
        samples: Numbers of perturbations, drawn as lime draws them, in ascending order.
        prompt: `chat` or `short`.
        device: As of a host. What lies in a GPU's own memory is not counted.
        threads: As of a host; the physical cores if 0.

    Returns:
        By number of perturbations `peak_megabytes` of the whole process, `loaded_megabytes` (its
        peak before the first prompt) and `tokens_computed`; `growth_megabytes`, the peak of the
        most over that of the fewest. A megabyte has 10^6 bytes.
    """
    from jobs.stages import physical_cores

    threads = threads or physical_cores()
    found: dict[int, Peak] = {}
    for count in samples:
        # spawned: a forked child would begin with this process's memory
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            arguments = (model, data, field, words, count, prompt, device, threads)
            found[count] = fresh.submit(score_text, *arguments).result()
    return {
        "model": model,
        "peak_megabytes": {str(n): each.peak / 1e6 for n, each in found.items()},
        "loaded_megabytes": {str(n): each.loaded / 1e6 for n, each in found.items()},
        "tokens_computed": {str(n): each.tokens for n, each in found.items()},
        "growth_megabytes": (found[samples[-1]].peak - found[samples[0]].peak) / 1e6,
    }


def score_text(
    model: str,
    data: str,
    field: str,
    words: tuple[int, int],
    samples: int,
    prompt: str,
    device: str,
    threads: int,
) -> Peak:
    """Score one text's perturbations by a host in this process; arguments as of `run`.

    Raises:
        RuntimeError: The host can't score a prompt.
    """
    from actors.host import Host, HostSpec
    from actors.loader import load_tokenizer_spec, resolve_model
    from engine import schema
    from engine.tokens import load_tokenizer
    from jobs.bench.workload import LABELS, perturb, template_of, texts_of

    spec = load_tokenizer_spec(resolve_model(model))
    tokenizer = load_tokenizer(spec.json)
    label_ids = tuple(tuple(ids) for ids in tokenizer.encode_batch(list(LABELS.values()), False))
    host = Host(HostSpec(model, precision="fp32", device=device, threads=threads))
    host.load()
    try:
        loaded = peak_memory()
        template = template_of(prompt, spec.chat)
        window = spec.max_tokens or 1 << 30
        [one] = perturb(texts_of(data, field, words, 1), template, tokenizer, samples, window)
        rows = np.zeros(one.sequences.n_rows, dtype=np.int32)
        reply = host.score(
            schema.score_request(rows, one.sequences, None, schema.ScoreTask(label_ids))
        )
        if errors := reply.column("error").drop_null().to_pylist():
            raise RuntimeError(f"{model} can't score a prompt of the bench: {errors[0]}")
        return Peak(loaded, peak_memory(), schema.cost_of(reply).tokens_computed)
    finally:
        host.stop()


def peak_memory() -> int:
    """Return the most bytes that were resident in this process so far.

    Linux keeps in `ru_maxrss` what the process was before it became this program, thus the memory
    of the one that started it; `VmHWM` is of this program alone.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
