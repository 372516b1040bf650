"""What a user of a library writes without rayxai, on the same analytic model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.analytic import analytic_model
from engine.deletion import delete_spans
from engine.features import split_features
from engine.target import transform
from tests.unit.fake_sweep import TEMPLATE, run_texts, sweep

MODEL = "fake:and_or"
TEXTS = (
    "Not bad, not bad at all: the cast is good and the script is fun, fun, fun!",
    "“Never dull” – a great, great film that I would not call awful.",
    "superb",
)


def predict(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the probabilities of the labels [n, 2], rounded to floats as a host's reply is."""
    model = analytic_model(MODEL)
    prompts = [TEMPLATE.replace("{text}", str(text)) for text in texts]
    log_probs = np.array([model.log_probs(prompt) for prompt in prompts], dtype=np.float32)
    return transform(log_probs.astype(np.float64), "probability")


def coalitions_of(text: str) -> tuple[int, Any]:
    """Return the number of words, and the probabilities of what a coalition leaves."""
    spans = [f.spans[0][:2] for f in split_features({"text": text}, "words")]

    def value(rows: Any) -> npt.NDArray[np.float64]:
        return predict(
            [
                delete_spans(text, [s for s, keep in zip(spans, row, strict=True) if not keep])
                for row in np.asarray(rows, dtype=bool)
            ]
        )

    return len(spans), value


def ours(text: str, **explainer: Any) -> dict[str, Any]:
    """Return the attribution row of a guest in a sweep."""
    rows = run_texts(sweep(explainer, models=[{"path": MODEL}]), text)
    assert rows["failures"] == []
    [row] = rows["attributions"]
    return row
