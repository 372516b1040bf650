"""What an evaluation costs outside the model: asking, masking, the request, the answers, the fit.

The model is a stand-in that answers at once, so that what is measured is the engine alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from engine import schema
from engine.answers import Answers, Lookup, lookups_table
from engine.context import ExplainerTask, FaithfulnessTask, StepContext, Unit
from engine.explainers import Explainer, build
from engine.features import split_features
from engine.masking import Masker, Operator
from engine.pool import CoalitionPool
from engine.prompts import LabelSet, PromptTemplate, Slot
from engine.step import run_in_process
from engine.target import transform
from engine.tokens import load_tokenizer
from engine.types import Example

TEXTS = (
    "the acting is fine but the story never quite finds a reason to exist , and it is too long .",
    "a charming and often affecting journey through the lives of a few people you come to love",
    "thoughtful , provocative and insistently humanizing , it has much to say and says it well",
    "bleak and desperate yet somehow funny , the film never loses its sense of who they are",
)
"""Reviews of about twenty words."""

TEMPLATE = PromptTemplate(
    (
        "<|im_start|>system\nYou are a helpful assistant that judges reviews.<|im_end|>\n"
        "<|im_start|>user\nIs the sentiment of this movie review positive or negative? "
        "Answer with one word.\nReview: ",
        Slot("text"),
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    add_special_tokens=False,
)

TASK = schema.ScoreTask(((0,), (1,)))

Score = Callable[[pa.Table], pa.Table]


def answer_at_once(request: pa.Table) -> pa.Table:
    """Answer a request of two labels with numbers that depend on the sequences' lengths alone."""
    lengths = np.diff(request.column("ids").combine_chunks().offsets.to_numpy())
    odds = (lengths % 7 - 3).astype(np.float32) / 2
    log_probs = -np.logaddexp(0, np.stack([odds, -odds], axis=1)).astype(np.float32)
    count = len(lengths)
    columns = [
        pa.ListArray.from_arrays(
            pa.array(2 * np.arange(count + 1, dtype=np.int32)), pa.array(log_probs.ravel())
        ),
        pa.array(np.zeros(count, dtype=np.float32)),
        pa.nulls(count, pa.string()),
    ]
    table = pa.Table.from_arrays(columns, schema=schema.SCORE_REPLY)
    cost = '{"seconds": 0.0, "tokens_computed": 0, "numerics": "none"}'
    return table.replace_schema_metadata({"cost": cost})


def run(
    tokenizer: str = "bytes", score: Score = answer_at_once, samples: int = 512, repeats: int = 5
) -> dict[str, Any]:
    """Measure what evaluations cost outside the model.

    Args:
        tokenizer: Specification for `engine.tokens.load_tokenizer`.
        score: Answers a request; a host's `score`, or the stand-in.
        samples: `num_samples` of each explainer.
        repeats: Of every measurement; the fastest counts, because what else the machine does only
            ever adds.

    Returns:
        `evaluations_per_second`: whole units, from the configuration's explainers to their result
        rows, in this process; `assemble_tokens_per_second`: token ids of masked prompts;
        `microseconds_per_evaluation`: CPU time a distinct coalition by phase (`ask`, `mask`,
        `request`, `score`, `tell`, `fit`), and `engine`, the sum of all but `score`.
    """
    load_tokenizer(tokenizer)
    runs = [_phases(tokenizer, score, samples) for _ in range(repeats)]
    phases = {name: min(costs[name] for costs, _ in runs) for name in runs[0][0]}
    phases["engine"] = sum(cost for name, cost in phases.items() if name != "score")
    return {
        "evaluations_per_second": max(_units(tokenizer, score, samples) for _ in range(repeats)),
        "assemble_tokens_per_second": max(rate for _, rate in runs),
        "microseconds_per_evaluation": phases,
    }


def _units(tokenizer: str, score: Score, samples: int) -> float:
    """Return evaluations a second of a unit of all texts, from nothing to its result rows."""
    context = _context(tokenizer, samples)
    examples = tuple(Example(f"e{i}", {"text": text}) for i, text in enumerate(TEXTS))
    counted: list[int] = []

    def count(request: pa.Table) -> pa.Table:
        counted.append(request.num_rows)
        return score(request)

    started = time.perf_counter()
    run_in_process(context, Unit("u", "p", examples), "none", count)
    return sum(counted) / (time.perf_counter() - started)


def _phases(tokenizer: str, score: Score, samples: int) -> tuple[dict[str, float], float]:
    """Return microseconds an evaluation by phase, and tokens a second of masking."""
    explainers = [build(name, num_samples=samples, seed=7) for name in ("lime", "kernel_shap")]
    clock = _Clock()
    evaluations = tokens = 0
    for index, text in enumerate(TEXTS):
        done = _one_text(clock, explainers, tokenizer, score, {"text": text}, f"e{index}")
        evaluations += done[0]
        tokens += done[1]
    costs = {name: 1e6 * seconds / evaluations for name, seconds in clock.seconds.items()}
    return costs, tokens / clock.seconds["mask"]


def _one_text(
    clock: _Clock,
    explainers: Sequence[Explainer],
    tokenizer: str,
    score: Score,
    fields: dict[str, str],
    example: str,
) -> tuple[int, int]:
    """Explain one text as a session does, and return its evaluations and their tokens."""
    with clock("mask"):
        features = split_features(fields, "words")
        masker = Masker(
            TEMPLATE, load_tokenizer(tokenizer), fields, features, Operator("delete"), "text", 4096
        )
    answers, empty = Answers(), CoalitionPool(len(features))
    evaluations = tokens = 0
    for explainer in explainers:
        with clock("ask"):
            wanted = explainer.ask(answers.pool(example, "s", len(features)))
        with clock("mask"):
            masked = masker.apply(wanted)
        with clock("request"):
            lengths = masked.sequences.lengths
            fresh = np.ones(len(wanted), dtype=bool)
            lookups = lookups_table(
                [Lookup(example, "s", wanted, masked.row, lengths[masked.row], fresh, "x")]
            )
            examples = np.zeros(masked.sequences.n_rows)
            request = schema.score_request(examples, masked.sequences, None, TASK)
        with clock("score"):
            reply = score(request)
        with clock("tell"):
            answers.add_round(lookups, reply)
        with clock("fit"):
            pool = answers.pool(example, "s", len(features))
            explainer.fit(pool.map(lambda raw: transform(raw[:, :-2], "log_odds")))
            explainer.ask(empty)  # for the account of what was used
        evaluations += len(wanted)
        tokens += len(masked.sequences.flat)
    return evaluations, tokens


class _Clock:
    """CPU seconds of this process by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[phase] += time.process_time() - started


def _context(tokenizer: str, samples: int) -> StepContext:
    budget = {"num_samples": samples}
    methods = {"lime": budget, "kernel_shap": budget, "occlusion": {}, "random": {}}
    return StepContext(
        factors=dict.fromkeys(schema.FACTORS, "none"),
        template=TEMPLATE,
        labels=LabelSet(("negative", "positive"), ("0", "1"), TASK.label_ids),
        tokenizer=tokenizer,
        max_tokens=4096,
        normaliser="labels",
        content_free=(),
        explainers=tuple(
            ExplainerTask(name, name, params, "words", "delete", None, "log_odds", "predicted", 0)
            for name, params in methods.items()
        ),
        faithfulness=FaithfulnessTask((0.01, 0.05, 0.10, 0.20, 0.50), 10, 20),
        seed=0,
        store="store",
    )
