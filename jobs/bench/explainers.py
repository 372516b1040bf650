"""`bench explainers`: a whole explanation, ours against lime, shap and captum on the same model.

The peers call what their users write: a function that tokenizes, pads and runs batches of 32 texts
in their order of arrival. Ours runs the whole path of a sweep in this process, on a host that is
loaded anew for every time that is taken, so that nothing is remembered. All times are of both
texts together; times of ours and theirs are taken in turn, and medians compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from actors.host import Host
from actors.loader import resolve_model
from engine.config import parse_config
from engine.context import Unit
from engine.errors import ConfigError
from engine.plan import Pair, build_plan
from engine.step import run_in_process
from engine.types import Example
from jobs.bench import over_hosts
from jobs.bench.devices import check_same
from jobs.bench.peers import PEERS, SEED, SHAP_SAMPLES, Floats, Peer, count_words
from jobs.bench.plain import PlainPredict
from jobs.facts import facts_of, host_spec
from jobs.stages import physical_cores

TEXTS = (
    "The film starts slowly and the plot is thin, but its two leads are so funny and warm that I "
    "left smiling.",
    "A handsome, expensive bore: the battles are loud, the dialogue is wooden, and nobody seems to "
    "care how any of it ends.",
)
"""Of 22 words each."""

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PROMPTS: dict[str, dict[str, Any]] = {
    "chat": {
        "chat": [
            {
                "role": "user",
                "content": "Is the sentiment of this review positive or negative? Answer in one "
                "word.\n\nReview: {text}",
            }
        ],
        "labels": {"negative": "Negative", "positive": "Positive"},
    },
    "short": {
        "template": "Review: {text}\nSentiment:",
        "labels": {"negative": " negative", "positive": " positive"},
    },
}

ERRORS = (0.10, 0.05)
"""Relative standard errors whose cost is reported."""
BUDGETS = (64, 128, 256, 512, 1024)
EXACT = 1e-9
"""Relative errors below it are rounding."""
SEEDS = 6
"""Draws that a standard error is estimated from."""


class Ours(NamedTuple):
    """What an explainer of a sweep returned for all texts, and what it cost.

    Attributes:
        weights: One array a text.
        seconds: Of all texts.
        evaluations: Asked of the host.
    """

    weights: list[Floats]
    seconds: float
    evaluations: int


class Bench:
    """The model, the prompt and the texts of one run of the benchmark.

    Args:
        model: As in a sweep.
        prompt: A key of `PROMPTS`.
        texts: What is explained.
        threads: Of either side.
        device: Of either side, as of a host.
    """

    def __init__(
        self, model: str, prompt: str, texts: Sequence[str], threads: int, device: str = "auto"
    ) -> None:
        self.texts = texts
        self._raw = {
            "models": [model],
            "data": "bundled:reviews",
            "prompt": PROMPTS[prompt],
            "metrics": {"faithfulness": False},
            "cluster": {"shard_size": len(texts)},
        }
        self._threads = threads
        pair, _ = self.pair({"name": "occlusion"})
        self._spec = replace(host_spec(pair.model, device), threads=threads)
        location = str(resolve_model(pair.model.path, pair.model.options).location)
        self.predict = PlainPredict(location, pair.context, threads, device)

    def sweep(self, *explainers: dict[str, Any]) -> dict[str, Any]:
        """Return the plain values of a sweep with these explainers; its data are a stand-in."""
        shared = {"target": "probability", "class": "positive", "seed": SEED}
        return {**self._raw, "explainers": [{**shared, **e} for e in explainers]}

    def pair(self, *explainers: dict[str, Any]) -> tuple[Pair, Unit]:
        """Return the pair and the unit of a sweep with these explainers."""
        config = parse_config(self.sweep(*explainers))
        examples = [Example(f"text-{i}", {"text": t}) for i, t in enumerate(self.texts)]
        facts, _ = facts_of(config)
        plan = build_plan(config, examples, facts, "store")
        [unit] = plan.units
        return plan.pairs[unit.pair], unit

    @contextmanager
    def host(self) -> Iterator[Host]:
        """Load a host that remembers nothing."""
        host = Host(self._spec)
        try:
            check_same(ours=host.load().device, theirs=self.predict.device)
            yield host
        finally:
            host.stop()

    def ours(self, *explainers: dict[str, Any], host: Host | None = None) -> list[Ours]:
        """Run explainers side by side; each has the seconds and evaluations of all."""
        if host is None:
            with self.host() as fresh:
                return self.ours(*explainers, host=fresh)
        pair, unit = self.pair(*explainers)
        before = host.stats()
        started = time.perf_counter()
        result = run_in_process(pair.context, unit, "bench", host.score)
        seconds = time.perf_counter() - started
        evaluations = host.stats().sequences - before.sequences
        if failures := result.tables["failures"].to_pylist():
            raise RuntimeError(f"{failures[0]['explainer']}: {failures[0]['message']}")
        weights: dict[str, list[Floats]] = {}
        for row in result.tables["attributions"].to_pylist():
            weights.setdefault(row["explainer"], []).append(np.array(row["values"]))
        return [Ours(found, seconds, evaluations) for found in weights.values()]


def run(
    samples: int | None = None,
    repeats: int = 3,
    model: str = MODEL,
    prompt: str = "chat",
    texts: Sequence[str] = TEXTS,
    errors: bool = True,
    device: str = "auto",
    hosts: Sequence[int] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Return how many times faster ours is, and the largest difference of weights.

    Args:
        samples: Of every explainer; each library's own default if not given (minutes a repeat).
        repeats: Times each is taken.
        model: With labels of one token under `prompt`.
        prompt: A key of `PROMPTS`.
        texts: What is explained.
        errors: Also measure the cost of equal errors; needs no peer.
        device: Of either side, as of a host.
        hosts: Numbers of hosts over which the cost of equal errors is measured through Ray too.
        say: Called with a line of progress.

    Raises:
        ConfigError: The prompt is unknown, or the texts need more samples.
        ValueError: The texts differ in their number of words.

    Returns:
        `device`: of both sides; `vs_lime`, `vs_shap_kernel`, `vs_captum`, `vs_shap_partition`:
        seconds of theirs ÷ ours;
        `vs_shap_kernel_equal_error`: seconds of shap at its samples ÷ ours at as many as have the
        same standard error; `max_abs_dw`: largest difference of weights from lime's and
        KernelExplainer's. Under `detail` each one's medians and evaluations, and under
        `to_relative_error` evaluations and seconds a text of `kernel_shap`, with `hosts` also its
        `seconds_by_hosts`.
    """
    words = {count_words(text) for text in texts}
    if len(words) > 1:
        raise ValueError(f"texts of as many words each are needed, not of {sorted(words)}")
    if samples is not None and samples < 2 * max(words) + 2:
        raise ConfigError(f"texts of {max(words)} words need {2 * max(words) + 2} samples or more")
    if prompt not in PROMPTS:
        raise ConfigError(f"unknown prompt {prompt!r}: use one of {', '.join(PROMPTS)}")
    bench = Bench(model, prompt, texts, physical_cores(), device)
    for peer in PEERS:  # imports and compilation are not what is measured
        peer.explain(texts[0], bench.predict, 2 * count_words(texts[0]))
    figures: dict[str, Any] = {"device": bench.predict.device}
    detail: dict[str, Any] = {}
    differences = [0.0]
    for peer in PEERS:
        found = _compare(bench, peer, samples, repeats, say)
        detail[peer.key] = found
        figures[peer.key] = found["theirs_seconds"] / found["ours_seconds"]
        if peer.same:
            differences.append(found["max_abs_dw"])
        say(f"{peer.key}: {figures[peer.key]:.1f}")
    figures["max_abs_dw"] = max(differences)
    if errors:
        found = _equal_error(bench, samples, repeats, say)
        seconds = detail["vs_shap_kernel"]["theirs_seconds"]
        figures["vs_shap_kernel_equal_error"] = seconds / found["seconds"]
        reached = found.pop("to_relative_error")
        figures["to_relative_error"] = reached
        for each in reached.values() if hosts else ():
            sweep = bench.sweep({"name": "kernel_shap", "num_samples": each["evaluations"]})
            over = over_hosts.run(sweep, texts, hosts, device)
            each["seconds_by_hosts"] = {str(n): s / len(texts) for n, s in over.items()}
        detail["vs_shap_kernel_equal_error"] = found
    return {**figures, "detail": detail}


def _compare(
    bench: Bench, peer: Peer, samples: int | None, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    count = peer.default(count_words(bench.texts[0]))
    count = count if samples is None else min(samples, count)
    own = {**peer.ours, peer.samples: count}
    ours, theirs = [], []
    for number in range(repeats):
        [found] = bench.ours(own)
        ours.append(found.seconds)
        before, started = bench.predict.evaluations, time.perf_counter()
        weights = [peer.explain(text, bench.predict, count) for text in bench.texts]
        theirs.append(time.perf_counter() - started)
        evaluations = bench.predict.evaluations - before
        say(f"{peer.key} {number + 1}/{repeats}: ours {ours[-1]:.1f} s, theirs {theirs[-1]:.1f} s")
    difference = max(
        float(np.abs(a - b).max()) if a.shape == b.shape else np.inf
        for a, b in zip(found.weights, weights, strict=True)
    )
    return {
        "samples": count,
        "ours_seconds": statistics.median(ours),
        "theirs_seconds": statistics.median(theirs),
        "ours_evaluations": found.evaluations,
        "theirs_evaluations": evaluations,
        **({"max_abs_dw": difference} if peer.same else {}),
    }


def _equal_error(
    bench: Bench, samples: int | None, repeats: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return how many samples of ours are as good as shap's, and what they take.

    The standard errors are those of the estimators of all features (shap's without its selection of
    ten): the spread over seeds, by our compat profile, whose values are shap's.
    """
    n = count_words(bench.texts[0])
    asked = 2 * n + SHAP_SAMPLES if samples is None else samples
    budgets = [b for b in BUDGETS if b <= max(asked, BUDGETS[1])]
    with bench.host() as host:
        shap = _spread(bench, host, {"compat": "shap", "l1_reg": False, "num_samples": asked})
        spreads = [_spread(bench, host, {"num_samples": budget}) for budget in budgets]
    say(f"relative standard error of shap at {asked}: {shap:.4f}")
    for budget, spread in zip(budgets, spreads, strict=True):
        say(f"relative standard error of ours at {budget}: {spread:.4f}")

    def cost(error: float) -> tuple[int, float]:
        budget = max(crossing(budgets, spreads, error), 2 * n + 2)
        times = [
            bench.ours({"name": "kernel_shap", "num_samples": budget})[0].seconds
            for _ in range(repeats)
        ]
        return budget, statistics.median(times)

    budget, seconds = cost(shap)
    reached = {}
    for error in ERRORS:
        evaluations, each = cost(error)
        reached[f"{error:.2f}"] = {
            "evaluations": evaluations,
            "seconds": each / len(bench.texts),
        }
    return {
        "shap_samples": asked,
        "shap_relative_error": shap,
        "samples": budget,
        "seconds": seconds,
        "relative_error_by_samples": dict(zip(map(str, budgets), spreads, strict=True)),
        "to_relative_error": reached,
    }


def _spread(bench: Bench, host: Host, params: dict[str, Any]) -> float:
    """Return the standard error of all values, relative to their norm; a mean over texts."""
    drawn = [
        bench.ours({"name": "kernel_shap", "seed": seed, **params}, host=host)[0].weights
        for seed in range(SEEDS)
    ]
    relative = []
    for of_text in zip(*drawn, strict=True):
        values = np.stack(of_text)
        variance = values.var(axis=0, ddof=1).sum()
        relative.append(float(np.sqrt(variance) / np.linalg.norm(values.mean(axis=0))))
    return float(np.mean(relative))


def crossing(budgets: Sequence[int], spreads: Sequence[float], error: float) -> int:
    """Return the number of samples where an error is reached, by a power law through the measured.

    Errors of samples fall at least as their number to the power of −1/2; what seems slower is the
    noise of few seeds.
    """
    x, y = np.log(budgets), np.log(np.maximum(spreads, EXACT))
    slope = min(float(np.polyfit(x, y, 1)[0]), -0.5)
    return int(np.ceil(np.exp(x.mean() + (np.log(max(error, EXACT)) - y.mean()) / slope)))
