"""How fast perturbations are scored: every rung from padded batches to the packed trie, and vLLM.

All rungs score the same prompts with the same model in one process, text by text in turn, so that a
machine whose speed drifts is as fast for one as for the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from actors.backend import SequenceBatch
from actors.bucketed import score_in_buckets
from engine.packing import build_trie
from engine.ragged import Ragged, concatenate
from engine.schema import ScoreTask
from jobs.bench.dense import DenseRate
from jobs.bench.workload import LABELS, Perturbed, perturb, template_of, texts_of

BATCH = 32
"""Sequences of a padded batch: what a loop over a Hugging Face model usually takes."""

PADDED = "padded"
"""The rung that is what the model says: the others' log-odds are held against its."""

OURS = "packed: a host as it is"
"""The rung that is a host as it is: what the others are held against."""

Answer = npt.NDArray[np.float64]
"""Log-odds of the second label [S]."""

Order = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Rows that are scored, in that order, and where among them each prompt [S] has its answer."""


@dataclass
class Rung:
    """One way to score, and what it took.

    Attributes:
        score: Prompts -> (their log-odds in their order, tokens computed).
        most: Most prompts of a text that are really run, the rest counted at the same rate; None
            runs all.
    """

    name: str
    score: Callable[[Ragged], tuple[Answer, int]]
    most: int | None = None
    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    answers: list[Answer] = field(default_factory=list)

    def run(self, sequences: Ragged) -> None:
        """Score one text's prompts."""
        n_rows = sequences.n_rows
        taken = n_rows if self.most is None else min(self.most, n_rows)
        some = sequences if taken == n_rows else sequences.take(np.arange(taken))
        started = time.perf_counter()
        answer, tokens = self.score(some)
        self.seconds.append((time.perf_counter() - started) * n_rows / taken)
        self.tokens += round(tokens * n_rows / taken)
        self.rows += n_rows
        self.answers.append(answer)

    @property
    def rate(self) -> float:
        """Prompts a second over all texts."""
        return self.rows / sum(self.seconds)


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
        "prompts": {},
    }
    texts = texts_of(data, field, words, n_texts)
    for prompt in prompts:
        template = template_of(prompt, bench.chat)
        perturbed = perturb(texts, template, bench.tokenizer, samples, bench.max_tokens)
        figures["prompts"][prompt] = bench.measure(perturbed)
        if console:
            _print(console, prompt, figures["prompts"][prompt])
    figures |= _headline(figures["prompts"])
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
        self.product.load()
        self.dense, self.prepacked = DenseRate(self.stock), DenseRate(self.product.model)
        self.threads = torch.get_num_threads()
        self.most = most
        self.vllm = _vllm_rungs(source.location, self.label_ids) if vllm else []

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

    def _padded(self, arrange: Callable[[Ragged], Order]) -> Callable[..., tuple[Answer, int]]:
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
        return _figures(rungs, floor, len(everything.flat), dense, prepacked)


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
    folder: str, label_ids: Sequence[tuple[int, ...]]
) -> list[tuple[str, Callable[[Ragged], tuple[Answer, int]]]]:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        return []
    from jobs.bench.vllm_rung import vllm_scorer

    return [(f"vllm, blocks of {n}", vllm_scorer(folder, label_ids, n)) for n in (32, 128)]


def _figures(
    rungs: list[Rung], floor: int, asked: int, dense: list[float], prepacked: list[float]
) -> dict[str, Any]:
    best, best_prepacked = float(np.median(dense)), float(np.median(prepacked))
    plain = next(rung for rung in rungs if rung.name == PADDED)
    product = next(rung for rung in rungs if rung.name == OURS)
    figures: dict[str, Any] = {
        "tokens_asked": asked,
        "floor": floor,
        "dense_tokens_per_second": best,
        "dense_tokens_per_second_prepacked": best_prepacked,
        "rungs": {},
    }
    for rung in rungs:
        ratios = [theirs / ours for theirs, ours in zip(rung.seconds, product.seconds, strict=True)]
        tokens_per_second = rung.tokens / sum(rung.seconds)
        figures["rungs"][rung.name] = {
            "sequences_per_second": rung.rate,
            "tokens_computed": rung.tokens,
            "tokens_over_floor": rung.tokens / floor,
            "tokens_per_second": tokens_per_second,
            "dense_rate_fraction": tokens_per_second / best,
            "dense_rate_fraction_prepacked": tokens_per_second / best_prepacked,
            "max_abs_dlogodds": max(map(_gap, plain.answers, rung.answers)),
            "product_is_faster_by": sum(rung.seconds) / sum(product.seconds),
            "product_is_faster_by_median": float(np.median(ratios)),
        }
    return figures


def _gap(one: Answer, other: Answer) -> float:
    """Return the largest difference of a text's log-odds, over the prompts that both scored."""
    both = min(len(one), len(other))
    return float(np.abs(one[:both] - other[:both]).max())


def _headline(prompts: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that a release is judged by, the worst over the prompts."""
    head: dict[str, Any] = {
        f"packed_vs_padded_{name}": figures["rungs"][PADDED]["product_is_faster_by"]
        for name, figures in prompts.items()
    }
    for name, figures in prompts.items():
        others = [r for rung, r in figures["rungs"].items() if rung.startswith("vllm")]
        if others:
            head[f"packed_vs_vllm_{name}"] = min(r["product_is_faster_by"] for r in others)
    ours = [figures["rungs"][OURS] for figures in prompts.values()]
    head["tokens_over_floor"] = max(rung["tokens_over_floor"] for rung in ours)
    head["dense_rate_fraction"] = min(rung["dense_rate_fraction"] for rung in ours)
    head["dense_rate_fraction_prepacked"] = min(
        rung["dense_rate_fraction_prepacked"] for rung in ours
    )
    head["max_abs_dlogodds"] = max(rung["max_abs_dlogodds"] for rung in ours)
    return head


def _print(console: Console, prompt: str, figures: dict[str, Any]) -> None:
    table = Table(title=f"{prompt} prompt", title_justify="left")
    table.add_column("rung")
    for column in (
        "sequences/s",
        "tokens ÷ floor",
        "tokens/s ÷ dense",
        "÷ prepacked",
        "ours is faster by",
        "off by",
    ):
        table.add_column(column, justify="right")
    for name, rung in figures["rungs"].items():
        table.add_row(
            name,
            f"{rung['sequences_per_second']:.1f}",
            f"{rung['tokens_over_floor']:.4f}",
            f"{rung['dense_rate_fraction']:.3f}",
            f"{rung['dense_rate_fraction_prepacked']:.3f}",
            f"{rung['product_is_faster_by']:.2f}×",
            f"{rung['max_abs_dlogodds']:.1e}",
        )
    console.print(table)
    console.print(
        f"floor {figures['floor']:,} tokens of {figures['tokens_asked']:,} asked; dense "
        f"{figures['dense_tokens_per_second']:.0f} tokens/s, with prepacked weights "
        f"{figures['dense_tokens_per_second_prepacked']:.0f}; off by: the largest difference in "
        f"log-odds from the first rung"
    )
