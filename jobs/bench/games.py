"""Texts as games with all their values: what estimators of Shapley values are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.explainers.coalitions import everything
from engine.types import BoolCF, FloatCL


class Game(NamedTuple):
    """A text and the values of all its coalitions.

    Attributes:
        text: What is explained.
        n_features: Its words F.
        values: Log-odds of the second label [2^F, 1], in the order of `everything`.
    """

    text: str
    n_features: int
    values: FloatCL

    def value(self, coalitions: BoolCF) -> FloatCL:
        """Return the values [C, 1] of coalitions [C, F]: no model is called."""
        return self.values[coalitions @ (1 << np.arange(self.n_features))]


def score_games(
    texts: Sequence[str], model: str, prompt: str, device: str, threads: int
) -> Iterator[Game]:
    """Yield each text with the model's values of all its coalitions, words being deleted.

    Args:
        texts: Of few words F: 2^F prompts each.
        model: As of `models.path`.
        prompt: `chat` or `short`.
        device: As of a host.
        threads: As of a host.

    Raises:
        RuntimeError: The host can't score a prompt.
    """
    from actors.host import Host, HostSpec
    from actors.loader import load_tokenizer_spec, resolve_model
    from engine import schema
    from engine.features import split_features
    from engine.masking import Masker, Operator
    from engine.target import transform
    from engine.tokens import load_tokenizer
    from jobs.bench.workload import LABELS, template_of

    spec = load_tokenizer_spec(resolve_model(model))
    tokenizer = load_tokenizer(spec.json)
    template = template_of(prompt, spec.chat)
    label_ids = tuple(tuple(ids) for ids in tokenizer.encode_batch(list(LABELS.values()), False))
    host = Host(HostSpec(model, precision="fp32", device=device, threads=threads))
    host.load()
    try:
        for text in texts:
            fields = {"text": text}
            features = split_features(fields, "words", template=template)
            window = spec.max_tokens or 1 << 30
            masker = Masker(
                template, tokenizer, fields, features, Operator("delete"), "text", window
            )
            masked = masker.apply(everything(len(features)))
            rows = np.zeros(masked.sequences.n_rows, dtype=np.int32)
            request = schema.score_request(
                rows, masked.sequences, None, schema.ScoreTask(label_ids)
            )
            reply = host.score(request)
            for error in reply.column("error").to_pylist():
                if error is not None:
                    raise RuntimeError(f"{model} can't score a prompt of the bench: {error}")
            log_probs = np.array(reply.column("log_probs").to_pylist(), dtype=np.float64)
            values = transform(log_probs[masked.row], "log_odds")
            yield Game(text, len(features), values[:, 1:2])
    finally:
        host.stop()
