"""A host without a model: analytic answers at a chosen cost, for tests, dry runs and chaos."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.analytic import AnalyticModel, analytic_model, words_of
from actors.backend import HostInfo, HostSpec, Scores, SequenceBatch, digest_text
from actors.batching import Ids, ScoreSequence
from actors.bucketed import BatchScores, score_in_buckets
from engine.errors import ConfigError, ModelError
from engine.ragged import Ragged
from engine.schema import ScoreTask

MAX_TOKENS = 4096
BATCH_TOKENS = 8192

_MODEL_OPTIONS = {"bias", "weights", "groups"}
_HOST_OPTIONS = {"noise", "seconds_per_token", "fail_on", "crash_on", "max_tokens"}
_OPTIONS = _MODEL_OPTIONS | _HOST_OPTIONS | {"batch_tokens", "admit_tokens", "remember"}


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

    def check(self, batch: SequenceBatch, task: ScoreTask) -> dict[int, str]:
        """Return the errors of prompts that are empty, too long, no bytes, or planted to fail."""
        if task.adapter:
            raise ModelError(f"{self._spec.model} takes no adapter; run it without one")
        if len(task.label_ids) != self._model.n_labels:
            raise ModelError(
                f"{self._spec.model} answers for {self._model.n_labels} labels, the prompt has "
                f"{len(task.label_ids)}; give a list of weights a word for more than two"
            )
        lengths, flat = batch.sequences.lengths, batch.sequences.flat
        errors = dict.fromkeys(np.flatnonzero(lengths == 0).tolist(), "the prompt is empty")
        for row in np.flatnonzero(lengths > self._max_tokens).tolist():
            errors[row] = (
                f"the prompt has {lengths[row]} tokens, the model takes {self._max_tokens}"
            )
        for place in np.flatnonzero((flat < 0) | (flat > 255)).tolist():
            row = int(np.searchsorted(batch.sequences.offsets, place, side="right")) - 1
            errors[row] = "the prompt has token ids outside 0..255: use the tokenizer `bytes`"
        if self._fail_on:
            for row, text in enumerate(_texts(batch)):
                if row not in errors and self._fail_on in words_of(text):
                    errors[row] = f"the prompt has the word {self._fail_on!r}, which is set to fail"
        return errors

    def score(self, batch: SequenceBatch, task: ScoreTask) -> Scores:
        """Return the analytic log-probabilities [S, L]; log Z is 0, all mass is on the labels."""
        if self._crash_on and any(self._crash_on in words_of(text) for text in _texts(batch)):
            os._exit(1)
        tokens = len(batch.sequences.flat)
        if self._seconds_per_token:
            time.sleep(self._seconds_per_token * tokens)
        if self._noise:
            return score_in_buckets(self._noisy, batch, task.label_ids, self.batch_tokens)
        log_probs = self._log_probs(batch)
        none = np.zeros(batch.n_rows, dtype=np.float32)
        return Scores(log_probs.astype(np.float32), none, tokens, tokens, batch.n_rows)

    def _log_probs(self, batch: SequenceBatch) -> npt.NDArray[np.float64]:
        return self._model.log_probs_batch(_content(batch), batch.sequences.offsets)

    def _noisy(
        self, prompts: list[ScoreSequence], label_ids: Sequence[Ids], prefix: int
    ) -> BatchScores:
        """Score one batch, with an error that is a function of the whole of it."""
        ids = Ragged.of([prompt.ids for prompt in prompts])
        hidden = Ragged.of([prompt.hidden for prompt in prompts])
        log_probs = self._log_probs(SequenceBatch(ids, hidden))
        seed = int.from_bytes(hashlib.sha256(repr(prompts).encode()).digest()[:8], "little")
        noise = np.random.default_rng(seed).uniform(-1.0, 1.0, log_probs.shape)
        none = np.zeros(len(prompts), dtype=np.float32)
        return (log_probs + self._noise * noise).astype(np.float32), none, len(ids.flat)


def fake_digest(model: str, options: Mapping[str, Any]) -> str:
    """Return the digest of all that decides an analytic model's answers and errors.

    Raises:
        ConfigError: The model or an option is unknown or wrong.
    """
    rest = [(name, options[name]) for name in ("fail_on", "max_tokens", "noise") if name in options]
    return digest_text(f"{analytic_model(model, options).digest()} {rest}")


def _content(batch: SequenceBatch) -> npt.NDArray[np.uint8]:
    """Return the bytes of all prompts, hidden ones as spaces."""
    content = batch.sequences.flat.astype(np.uint8)
    if batch.hidden is not None:
        rows = np.repeat(np.arange(batch.n_rows), batch.hidden.lengths)
        content[batch.sequences.offsets[rows] + batch.hidden.flat] = ord(" ")
    return content


def _texts(batch: SequenceBatch) -> list[str]:
    data, bounds = _content(batch).tobytes(), batch.sequences.offsets.tolist()
    return [data[a:b].decode(errors="replace") for a, b in itertools.pairwise(bounds)]


def _count(model: AnalyticModel) -> int:
    return sum(len(row) for row in model.weights.values()) + len(model.bias) + len(model.groups)
