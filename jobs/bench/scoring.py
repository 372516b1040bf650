"""How fast perturbations are scored: every rung from padded batches to the packed trie, and vLLM.

All rungs score the same prompts with the same model in one process, text by text in turn, so that a
machine whose speed drifts is as fast for one as for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from actors.backend import SequenceBatch
from actors.bucketed import score_in_buckets
from engine.errors import ModelError
from engine.packing import build_trie
from engine.ragged import Ragged, concatenate
from engine.schema import ScoreTask
from jobs.bench.dense import DenseRate
from jobs.bench.devices import check_same
from jobs.bench.rungs import (
    OURS,
    PADDED,
    Answer,
    Rung,
    Scorer,
    figures_of,
    headline,
    print_rungs,
)
from jobs.bench.workload import LABELS, Perturbed, perturb, template_of, texts_of

BATCH = 32
"""Sequences of a padded batch: what a loop over a Hugging Face model usually takes."""

Order = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows that are scored, in that order, and where among them each prompt [S] has its answer."""


def run(
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    *,
    data: str = "bundled:reviews",
    field: str = "text",
    words: tuple[int, int] = (10, 25),
    n_texts: int = 6,
    samples: int = 192,
    prompts: Sequence[str] = ("chat", "short"),
    most: int | None = None,
    device: str = "auto",
    threads: int = 0,
    vllm: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the rungs and return the figures.

    Args:
        model: As of `models.path`.
        data: Where the texts are.
        field: Their column.
        words: Fewest and most words of a text.
        n_texts: Number of texts.
        samples: Perturbations a text, drawn as lime draws them.
        prompts: `chat`, `short`.
        most: Most prompts a text that the padded rungs and vLLM run; the rest is counted at their
            rate.
        device: As of a host.
        threads: As of a host; the physical cores if 0.
        vllm: Whether vLLM takes part where it is installed.
        console: Where tables are printed; None prints nothing.
    """
    from jobs.stages import physical_cores

    bench = _Bench(model, device, threads or physical_cores(), most, vllm)
    figures: dict[str, Any] = {
        "model": model,
        "data": data,
        "texts": n_texts,
        "samples": samples,
        "most_of_padded": most,
        "device": str(bench.stock.device),
        "threads": bench.threads,
        "left_out": bench.left_out,
        "prompts": {},
    }
    if console and bench.left_out:
        console.print(f"without vllm: {bench.left_out}", markup=False)
    texts = texts_of(data, field, words, n_texts)
    for prompt in prompts:
        template = template_of(prompt, bench.chat)
        perturbed = perturb(texts, template, bench.tokenizer, samples, bench.max_tokens)
        figures["prompts"][prompt] = bench.measure(perturbed)
        if console:
            print_rungs(console, prompt, figures["prompts"][prompt])
    figures |= headline(figures["prompts"])
    return figures


class _Bench:
    """The models and rungs of one run."""

    def __init__(self, model: str, device: str, threads: int, most: int | None, vllm: bool) -> None:
        import torch

        from actors.backend import HostSpec
        from actors.hf_host import TransformersBackend
        from actors.loader import load_model, load_tokenizer_spec, resolve_model
        from engine.tokens import load_tokenizer

        torch.set_num_threads(threads)
        source = resolve_model(model)
        spec = load_tokenizer_spec(source)
        self.chat = spec.chat
        self.tokenizer = load_tokenizer(spec.json)
        self.max_tokens = spec.max_tokens or 1 << 30
        self.label_ids = tuple(
            tuple(ids) for ids in self.tokenizer.encode_batch(list(LABELS.values()), False)
        )
        self.stock = load_model(source, "fp32", device)
        options = {"remember": 0}
        self.product = TransformersBackend(
            HostSpec(model, precision="fp32", device=device, threads=threads, options=options)
        )
        check_same(stock=str(self.stock.device), product=self.product.load().device)
        self.dense, self.prepacked = DenseRate(self.stock), DenseRate(self.product.model)
        self.threads = torch.get_num_threads()
        self.most = most
        self.vllm: list[tuple[str, Scorer]] = []
        self.left_out = ""
        if vllm:
            where = str(self.stock.device)
            self.vllm, self.left_out = _vllm_rungs(source.location, self.label_ids, where)

    def rungs(self) -> list[Rung]:
        """Return fresh rungs, the slowest first."""
        from actors.label_scorer import LabelScorer
        from actors.packed_forward import PackedForward
        from actors.prefix_cache import PrefixCache

        task = ScoreTask(self.label_ids)
        buckets = LabelScorer(self.stock, "gathered", PrefixCache(self.stock, 8))
        packed = PackedForward(self.stock, "gathered")

        def in_buckets(sequences: Ragged) -> tuple[Answer, int]:
            batch = SequenceBatch(sequences, None)
            scores = score_in_buckets(buckets.score, batch, self.label_ids, 2048)
            return _log_odds(scores.log_probs), scores.tokens_computed

        def stock_packed(sequences: Ragged) -> tuple[Answer, int]:
            scores = packed.score(SequenceBatch(sequences, None), self.label_ids)
            return _log_odds(scores.log_probs), scores.tokens_computed

        def product(sequences: Ragged) -> tuple[Answer, int]:
            scores = self.product.score(SequenceBatch(sequences, None), task)
            return _log_odds(scores.log_probs), scores.tokens_computed

        return [
            Rung(PADDED, self._padded(_all), self.most),
            Rung("padded, distinct", self._padded(_distinct), self.most),
            Rung("padded, distinct, by length", self._padded(_by_length), self.most),
            Rung("buckets, template kept", in_buckets),
            Rung("packed", stock_packed),
            Rung(OURS, product),
            *[Rung(name, score, self.most) for name, score in self.vllm],
        ]

    def _padded(self, arrange: Callable[[Ragged], Order]) -> Scorer:
        def score(sequences: Ragged) -> tuple[Answer, int]:
            taken, place = arrange(sequences)
            rows = sequences.take(taken).to_lists()
            found, tokens = [], 0
            for start in range(0, len(rows), BATCH):
                answer, computed = padded_batch(self.stock, rows[start : start + BATCH], self)
                found.append(answer)
                tokens += computed
            return np.concatenate(found)[place], tokens

        return score

    def measure(self, perturbed: list[Perturbed]) -> dict[str, Any]:
        """Run all rungs over all texts, in turn."""
        rungs = self.rungs()
        # prompts that share nothing with the real ones, so that no rung has their template kept
        warm = Ragged.of([[1000 + 37 * row + 11 * i for i in range(24)] for row in range(8)])
        for rung in rungs:
            rung.score(warm)
        dense: list[float] = []
        prepacked: list[float] = []
        for one in perturbed:
            dense.append(self.dense())
            for rung in rungs:
                rung.run(one.sequences)
            prepacked.append(self.prepacked())
        everything = concatenate([one.sequences for one in perturbed])
        floor = build_trie(everything).n_nodes
        return figures_of(rungs, floor, len(everything.flat), dense, prepacked)


def padded_batch(model: Any, rows: list[list[int]], bench: _Bench) -> tuple[Answer, int]:
    """Score one batch as a loop over a Hugging Face model does: padded on the left, last position.

    Returns:
        Log-odds [B], and tokens computed.
    """
    import torch

    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.inference_mode():
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=1,
            use_cache=False,
        ).logits[:, -1]
        log_probs = logits.float().log_softmax(dim=-1)
    labels = [label[0] for label in bench.label_ids]
    return _log_odds(log_probs[:, labels].cpu().numpy()), ids.numel()


def _all(sequences: Ragged) -> Order:
    rows = np.arange(sequences.n_rows)
    return rows, rows


def _distinct(sequences: Ragged) -> Order:
    _, firsts, equal = np.unique(
        build_trie(sequences).row_of, return_index=True, return_inverse=True
    )
    order = np.argsort(firsts)
    return firsts[order], np.argsort(order)[equal]


def _by_length(sequences: Ragged) -> Order:
    firsts, place = _distinct(sequences)
    order = np.argsort(sequences.lengths[firsts], kind="stable")
    return firsts[order], np.argsort(order)[place]


def _log_odds(log_probs: npt.NDArray[np.float32]) -> Answer:
    return (log_probs[:, 1] - log_probs[:, 0]).astype(np.float64)


def _vllm_rungs(
    folder: str, label_ids: Sequence[tuple[int, ...]], device: str
) -> tuple[list[tuple[str, Scorer]], str]:
    """Return vLLM's rungs, or why there are none."""
    from jobs.bench.vllm_rung import vllm_scorer

    if find_spec("vllm") is None:
        return [], "vllm is not installed"
    try:
        return [
            (f"vllm, blocks of {size}", vllm_scorer(folder, label_ids, size, device))
            for size in (32, 128)
        ], ""
    except ModelError as error:  # built for another kind of device: nothing to compare
        return [], str(error)
