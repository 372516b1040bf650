"""A host without a model: analytic answers at a chosen cost, for tests, dry runs and chaos."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.analytic import AnalyticModel, analytic_model, words_of
from actors.backend import HostInfo, HostSpec, Scores, digest_text
from actors.batching import ScoreSequence
from engine.errors import ConfigError, ModelError
from engine.schema import ScoreTask

MAX_TOKENS = 4096
BATCH_TOKENS = 8192

_MODEL_OPTIONS = {"bias", "weights", "groups"}
_HOST_OPTIONS = {"noise", "seconds_per_token", "fail_on", "crash_on", "max_tokens"}
_OPTIONS = _MODEL_OPTIONS | _HOST_OPTIONS | {"batch_tokens", "admit_tokens"}


class FakeBackend:
    """An analytic model behind the contract of a real one; token ids are UTF-8 bytes.

    Labels count, not their names: the model answers for as many as it has. Hidden bytes read as
    spaces.

    Args:
        spec: Its `model` is one of `actors.analytic.MODELS`; its options are those of
            `analytic_model` and
            `noise`: amplitude of an error that depends on what else is in the batch, 0 for none;
            `seconds_per_token`: simulated cost;
            `fail_on`: a word that makes its row an error;
            `crash_on`: a word on which the process ends at once, as on a fault of the device;
            `max_tokens`: longest prompt; `batch_tokens`: size of a batch.

    Raises:
        ConfigError: The model or an option is unknown or wrong.
    """

    def __init__(self, spec: HostSpec) -> None:
        unknown = sorted(set(spec.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"{spec.model} has no option {unknown[0]!r}: use {', '.join(sorted(_OPTIONS))}"
            )
        self._spec = spec
        self._model = analytic_model(spec.model, spec.options)
        self._noise = float(spec.options.get("noise", 0.0))
        self._seconds_per_token = float(spec.options.get("seconds_per_token", 0.0))
        self._fail_on = str(spec.options.get("fail_on", "")).lower()
        self._crash_on = str(spec.options.get("crash_on", "")).lower()
        self._max_tokens = int(spec.options.get("max_tokens", MAX_TOKENS))
        self.batch_tokens = int(spec.options.get("batch_tokens", BATCH_TOKENS))

    def load(self) -> HostInfo:
        """Return what the model is; there is nothing to load."""
        numerics = f"{self._spec.model} analytic-1"
        if self._noise:
            numerics += f" noise={self._noise} batch_tokens={self.batch_tokens}"
        return HostInfo(
            model=self._spec.model,
            weights=fake_digest(self._spec.model, self._spec.options),
            parameters=_count(self._model),
            memory_bytes=0,
            load_seconds=0.0,
            device="cpu",
            scorer="analytic",
            numerics=digest_text(numerics),
            numerics_text=numerics,
            max_tokens=self._max_tokens,
        )

    def check(self, sequence: ScoreSequence, task: ScoreTask) -> None:
        """Raise ValueError for a prompt that is empty, too long, no bytes, or planted to fail."""
        if task.adapter:
            raise ModelError(f"{self._spec.model} takes no adapter; run it without one")
        if len(task.label_ids) != self._model.n_labels:
            raise ModelError(
                f"{self._spec.model} answers for {self._model.n_labels} labels, the prompt has "
                f"{len(task.label_ids)}; give a list of weights a word for more than two"
            )
        if not sequence.ids:
            raise ValueError("the prompt is empty")
        if len(sequence.ids) > self._max_tokens:
            raise ValueError(
                f"the prompt has {len(sequence.ids)} tokens, the model takes {self._max_tokens}"
            )
        if min(sequence.ids) < 0 or max(sequence.ids) > 255:
            raise ValueError("the prompt has token ids outside 0..255: use the tokenizer `bytes`")
        if self._fail_on and self._fail_on in words_of(_text(sequence)):
            raise ValueError(f"the prompt has the word {self._fail_on!r}, which is set to fail")

    def score(self, sequences: Sequence[ScoreSequence], task: ScoreTask, prefix: int) -> Scores:
        """Return the analytic log-probabilities [B, L]; log Z is 0, all mass is on the labels."""
        texts = [_text(sequence) for sequence in sequences]
        if self._crash_on and any(self._crash_on in words_of(text) for text in texts):
            os._exit(1)
        log_probs = np.array([self._model.log_probs(text) for text in texts], dtype=np.float64)
        tokens = sum(len(sequence.ids) for sequence in sequences)
        if self._noise:
            log_probs += self._noise * _batch_noise(sequences, log_probs.shape)
        if self._seconds_per_token:
            time.sleep(self._seconds_per_token * tokens)
        return Scores(
            log_probs.astype(np.float32), np.zeros(len(sequences), dtype=np.float32), tokens
        )


def fake_digest(model: str, options: Mapping[str, Any]) -> str:
    """Return the digest of all that decides an analytic model's answers and errors.

    Raises:
        ConfigError: The model or an option is unknown or wrong.
    """
    rest = [(name, options[name]) for name in ("fail_on", "max_tokens", "noise") if name in options]
    return digest_text(f"{analytic_model(model, options).digest()} {rest}")


def _text(sequence: ScoreSequence) -> str:
    content = bytearray(sequence.ids)
    for position in sequence.hidden:
        content[position] = ord(" ")
    return content.decode(errors="replace")


def _batch_noise(
    sequences: Sequence[ScoreSequence], shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """Return numbers in [−1, 1] that are a function of the whole batch."""
    content = repr(list(sequences)).encode()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


def _count(model: AnalyticModel) -> int:
    return sum(len(row) for row in model.weights.values()) + len(model.bias) + len(model.groups)
