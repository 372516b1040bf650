"""`interpretability_metrics.json`: statistics of |φ| before and after fine-tuning, and compared.

The original's keys. Its |φ| hides changes of sign and its cosine is high by construction: the table
`attribution_shift` has the signed comparison with the noise beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.metrics import agreement, complexity
from engine.metrics.ranking import top_share

Floats = npt.NDArray[np.float64]
Magnitudes = Mapping[str, Floats]
"""Example -> |φ| of its words [F]."""

TOP_TOKENS = 5
OVERLAPS = (5, 10)

DEFINITION = {
    "|φ|": "of the last label's row, over the text's words; the original's is over the prompt's "
    "tokens, instructions included, which inflates cosine and overlap",
    "mean_token_gini": "Hurley & Rickard 2009 × n/(n−1)",
    "mean_token_entropy": "of the shares of |φ|, in nats",
    "top_tokens": "words of the largest |φ| summed over the examples",
    "cohens_d_abs_importance": "unpaired, as the original's, of the per-example means",
    "d_z_abs_importance": "paired: mean difference ÷ standard deviation of the differences",
    "pairs": "examples explained in both phases with the same words",
    "undefined": "a statistic of an example without a defined value leaves it out",
}


def phase_statistics(magnitudes: Magnitudes, words: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return one phase's statistics: of per-example means, and an entry an example."""
    means = np.array([each.mean() for each in magnitudes.values() if len(each)])
    spreads = [float(each.std()) for each in magnitudes.values() if len(each)]
    totals: dict[str, float] = {}
    for example, each in magnitudes.items():
        for word, size in zip(words[example], each.tolist(), strict=True):
            totals[word] = totals.get(word, 0.0) + size
    top = sorted(totals, key=lambda word: (-totals[word], word))[:TOP_TOKENS]
    return {
        "mean_absolute_token_importance": _mean(means),
        "std_absolute_token_importance": float(means.std()) if len(means) else None,
        "median_absolute_token_importance": float(np.median(means)) if len(means) else None,
        "mean_token_importance_std": _mean(spreads),
        "mean_token_gini": _mean([complexity.gini(each) for each in magnitudes.values()]),
        "mean_token_entropy": _mean([_nats(each) for each in magnitudes.values()]),
        "top_tokens": top,
        "top_token_scores": [totals[word] for word in top],
        "per_example": [_example(name, each, words[name]) for name, each in magnitudes.items()],
    }


def comparison(zero_shot: Magnitudes, fine_tuned: Magnitudes) -> dict[str, Any]:
    """Return what the phases have in common over the examples explained in both."""
    shared = [
        (zero_shot[name], fine_tuned[name])
        for name in zero_shot
        if name in fine_tuned and len(zero_shot[name]) == len(fine_tuned[name]) > 0
    ]
    before = np.array([a.mean() for a, _ in shared])
    after = np.array([b.mean() for _, b in shared])
    lengths = [len(a) for a, _ in shared]
    top = {
        key: (k, sum(n > k for n in lengths))
        for key, k in (
            ("mean_top_token_jaccard", TOP_TOKENS),
            *((f"mean_top{k}_overlap", k) for k in OVERLAPS),
        )
    }
    return {
        "mean_token_cosine_similarity": _mean([agreement.cosine(a, b) for a, b in shared]),
        "mean_top_token_jaccard": _mean([_jaccard(a, b, TOP_TOKENS) for a, b in shared]),
        **{f"mean_top{k}_overlap": _mean([_overlap(a, b, k) for a, b in shared]) for k in OVERLAPS},
        "mean_abs_importance_difference": _mean(after - before),
        "cohens_d_abs_importance": _cohens_d(before, after),
        "d_z_abs_importance": _d_z(after - before),
        "mean_token_importance_correlation": _mean([_pearson(a, b) for a, b in shared]),
        "mean_spearman_correlation": _mean([agreement.spearman(a, b) for a, b in shared]),
        "mean_zero_shot_gini": _mean([complexity.gini(a) for a, _ in shared]),
        "mean_fine_tuned_gini": _mean([complexity.gini(b) for _, b in shared]),
        "mean_zero_shot_entropy": _mean([_nats(a) for a, _ in shared]),
        "mean_fine_tuned_entropy": _mean([_nats(b) for _, b in shared]),
        "pairs": len(shared),
        "definition": DEFINITION
        | {key: _says(key, k, counted, len(shared)) for key, (k, counted) in top.items()},
        "reason": {
            key: f"no text explained in both phases has more than {k} words"
            for key, (k, counted) in top.items()
            if not counted
        },
    }


def _says(key: str, k: int, counted: int, pairs: int) -> str:
    what = "|∩| / |∪|" if key.endswith("jaccard") else f"|∩| / {k}"
    return (
        f"{what} of the {k} words of the largest |φ|, words tied for the last places in part; over "
        f"{counted} of {pairs} texts, those of more than {k} words: a shorter one has all its "
        "words on both sides"
    )


def _example(name: str, each: Floats, words: Sequence[str]) -> dict[str, Any]:
    order = np.lexsort((np.arange(len(each)), -each))[:TOP_TOKENS]
    return {
        "example": name,
        "mean_abs_importance": float(each.mean()) if len(each) else None,
        "std_abs_importance": float(each.std()) if len(each) else None,
        "token_count": len(each),
        "top_tokens": [words[i] for i in order],
    }


def _mean(values: Sequence[float | None] | Floats) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _nats(each: Floats) -> float | None:
    share = complexity.entropy(each)
    return None if share is None else share * float(np.log(len(each)))


def _jaccard(a: Floats, b: Floats, k: int) -> float | None:
    common = _common(a, b, k)
    return None if common is None else common / (2 * k - common)


def _overlap(a: Floats, b: Floats, k: int) -> float | None:
    common = _common(a, b, k)
    return None if common is None else common / k


def _common(a: Floats, b: Floats, k: int) -> float | None:
    """Return how many of the k largest both have; None where every word is among them."""
    if len(a) <= k:
        return None
    return float(np.minimum(top_share(a, k), top_share(b, k)).sum())


def _pearson(a: Floats, b: Floats) -> float | None:
    return agreement.cosine(a - a.mean(), b - b.mean())


def _cohens_d(a: Floats, b: Floats) -> float | None:
    """Return (mean b − mean a) / pooled standard deviation (Cohen 1988); None if undefined."""
    if len(a) < 2:
        return None
    pooled = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    return float((b.mean() - a.mean()) / pooled) if pooled > 0 else None


def _d_z(differences: Floats) -> float | None:
    """Return mean / standard deviation of paired differences (Cohen 1988); None if undefined."""
    if len(differences) < 2:
        return None
    spread = float(differences.std(ddof=1))
    return float(differences.mean() / spread) if spread > 0 else None
