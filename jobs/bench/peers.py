"""The explainers that are measured: each library as its user calls it, and ours in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.deletion import cut_spans, delete_spans
from engine.features import split_features

Floats = npt.NDArray[np.float64]
Predict = Callable[[Sequence[str]], Floats]

SEED = 3
POSITIVE = 1
"""Index of the label that is explained."""
SHAP_SAMPLES = 2048
"""shap's `auto` is this and twice the number of features."""
LIME_SAMPLES = 5000
PARTITION_SAMPLES = 500


class Peer(NamedTuple):
    """A library's explainer and what stands for it in a sweep.

    Attributes:
        key: Of its ratio.
        explain: Text, predict, samples or None for its own default -> weights by word, in order.
        ours: The explainer of a sweep, without its number of samples.
        samples: Name of the number of samples in `ours`.
        default: Number of features -> the library's own number of samples.
        same: The weights are the same numbers, up to the models' rounding.
    """

    key: str
    explain: Callable[[str, Predict, int], Floats]
    ours: dict[str, Any]
    samples: str
    default: Callable[[int], int]
    same: bool


def count_words(text: str) -> int:
    """Return the number of words of a text."""
    return len(_spans(text))


def lime(text: str, predict: Predict, samples: int) -> Floats:
    """Return the weights of `LimeTextExplainer`, a word type each."""
    from lime.lime_text import LimeTextExplainer

    found = LimeTextExplainer(random_state=SEED).explain_instance(
        text, predict, labels=(POSITIVE,), num_samples=samples
    )
    weights = np.zeros(found.domain_mapper.indexed_string.num_words())
    for feature, weight in found.local_exp[POSITIVE]:
        weights[feature] = weight
    return weights


def shap_kernel(text: str, predict: Predict, samples: int) -> Floats:
    """Return the values of `KernelExplainer`, a word each, blanks left where words go."""
    import shap

    n = count_words(text)
    value = _value(text, predict, keep_separators=True)
    np.random.seed(SEED)
    explainer = shap.KernelExplainer(value, np.zeros((1, n)))
    found = explainer.shap_values(np.ones((1, n)), nsamples=samples, silent=True)
    return np.asarray(found, dtype=np.float64).reshape(n)


def shap_partition(text: str, predict: Predict, samples: int) -> Floats:
    """Return the values of `PartitionExplainer` on shap's text masker."""
    import shap

    np.random.seed(SEED)
    explainer = shap.PartitionExplainer(predict, shap.maskers.Text(r"\W+"))
    found = explainer([text], max_evals=samples, silent=True)
    return np.asarray(found.values[0][:, POSITIVE], dtype=np.float64)


def captum_kernel_shap(text: str, predict: Predict, samples: int) -> Floats:
    """Return the values of `KernelShap` with 32 samples a call."""
    import torch
    from captum.attr import KernelShap

    n = count_words(text)
    value = _value(text, predict, keep_separators=False)
    torch.manual_seed(SEED)
    found = KernelShap(lambda rows: torch.from_numpy(value(rows.numpy()))).attribute(
        torch.ones(1, n), baselines=0, n_samples=samples, perturbations_per_eval=32
    )
    return np.asarray(found[0], dtype=np.float64)


PEERS = (
    Peer(
        "vs_lime",
        lime,
        {"name": "lime", "compat": "lime"},
        "num_samples",
        lambda n: LIME_SAMPLES,
        True,
    ),
    Peer(
        "vs_shap_kernel",
        shap_kernel,
        {"name": "kernel_shap", "compat": "shap"},
        "num_samples",
        lambda n: 2 * n + SHAP_SAMPLES,
        True,
    ),
    Peer(
        "vs_captum",
        captum_kernel_shap,
        {"name": "kernel_shap"},
        "num_samples",
        lambda n: 2 * n + SHAP_SAMPLES,
        False,
    ),
    Peer(
        "vs_shap_partition",
        shap_partition,
        {"name": "guest:shap.partition"},
        "max_evals",
        lambda n: PARTITION_SAMPLES,
        False,
    ),
)


def _spans(text: str) -> list[tuple[int, int]]:
    return [f.spans[0][:2] for f in split_features({"text": text}, "words")]


def _value(text: str, predict: Predict, *, keep_separators: bool) -> Callable[[Any], Floats]:
    spans = _spans(text)

    def remaining(row: Any) -> str:
        gone = [span for span, keep in zip(spans, row, strict=True) if not keep]
        return cut_spans(text, gone, "") if keep_separators else delete_spans(text, gone)

    return lambda rows: predict([remaining(row) for row in rows])[:, POSITIVE]
