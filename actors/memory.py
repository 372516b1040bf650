"""What a host has answered before, found again by the content of the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from actors.backend import Backend, Scores, SequenceBatch
from engine.schema import ScoreTask

Words = npt.NDArray[np.uint64]


@dataclass(slots=True)
class _Answers:
    """Answers of one task, sorted by key.

    Attributes:
        keys: First half of the digests [N], ascending.
        checks: Second half [N].
        born: When each answer came, counted in calls [N].
    """

    keys: Words
    checks: Words
    log_probs: npt.NDArray[np.float32]
    log_z: npt.NDArray[np.float32]
    born: npt.NDArray[np.int64]

    @property
    def weight(self) -> int:
        """What an answer counts: one of many labels as several of two."""
        return max(1, int(self.log_probs.shape[1]) // 2)


@dataclass(slots=True)
class ScoreMemory:
    """Answers to the last prompts, bounded in number; the oldest are forgotten first.

    A task that asks for batches `by_example` is never answered from memory: its results are to be
    a function of its own request.

    Args:
        capacity: Most answers kept over all tasks, each counted as one a pair of labels; 0 keeps
            none.
    """

    capacity: int
    _answers: dict[object, _Answers] = field(default_factory=dict)
    _calls: int = 0

    def score(self, backend: Backend, batch: SequenceBatch, task: ScoreTask) -> tuple[Scores, int]:
        """Return the scores of all prompts, asking the backend for new ones only.

        Returns:
            The scores, and how many prompts were answered from memory.
        """
        if not self.capacity or task.by_example:
            return backend.score(batch, task), 0
        self._calls += 1
        keys, checks = digests(batch)
        known = self._answers.get((task.label_ids, task.adapter))
        places = np.full(len(keys), -1) if known is None else _find(known, keys, checks)
        new = np.flatnonzero(places < 0)
        if known is None or len(new) == len(keys):
            scores = backend.score(batch, task)
            self._add(task, keys, checks, scores)
            return scores, 0
        old = np.flatnonzero(places >= 0)
        log_probs = np.empty((len(keys), known.log_probs.shape[1]), dtype=np.float32)
        log_z = np.empty(len(keys), dtype=np.float32)
        log_probs[old], log_z[old] = known.log_probs[places[old]], known.log_z[places[old]]
        known.born[places[old]] = self._calls
        if not len(new):
            return Scores(log_probs, log_z, 0, 0, 0), len(old)
        scores = backend.score(batch.take(new), task)
        log_probs[new], log_z[new] = scores.log_probs, scores.log_z
        self._add(task, keys[new], checks[new], scores)
        errors = {int(new[i]): message for i, message in scores.errors.items()}
        return scores._replace(log_probs=log_probs, log_z=log_z, errors=errors), len(old)

    def _add(self, task: ScoreTask, keys: Words, checks: Words, scores: Scores) -> None:
        good = np.ones(len(keys), dtype=bool)
        good[list(scores.errors)] = False
        fresh = _Answers(
            keys[good],
            checks[good],
            scores.log_probs[good],
            scores.log_z[good],
            np.full(int(good.sum()), self._calls),
        )
        name = (task.label_ids, task.adapter)
        known = self._answers.get(name)
        self._answers[name] = fresh = _merge(known, fresh)
        if self._held() > self.capacity:
            self._forget()

    def _held(self) -> int:
        return sum(answers.weight * len(answers.keys) for answers in self._answers.values())

    def _forget(self) -> None:
        """Keep the younger half of the capacity."""
        every = list(self._answers.values())
        born = np.concatenate([answers.born for answers in every])
        weights = np.repeat([a.weight for a in every], [len(a.keys) for a in every])
        young = np.argsort(-born, kind="stable")
        kept = int((np.cumsum(weights[young]) <= max(self.capacity // 2, 1)).sum())
        oldest_kept = born[young[max(kept - 1, 0)]]
        for name, answers in list(self._answers.items()):
            keep = np.flatnonzero(answers.born >= oldest_kept)
            self._answers[name] = _take(answers, keep)
            if not len(keep):  # continuations make a task an example
                del self._answers[name]
        if self._held() > self.capacity:
            self._answers.clear()  # one call alone brought more than fits


def digests(batch: SequenceBatch) -> tuple[Words, Words]:
    """Return a digest of 128 bits of every prompt, in two halves [S].

    Each is the sum over the tokens of a mixed word of token, position and visibility: equal prompts
    have equal digests, and different ones equal digests by chance only.
    """
    sequences = batch.sequences
    lengths = sequences.lengths
    if not len(sequences.flat):
        return np.zeros(len(lengths), dtype=np.uint64), np.zeros(len(lengths), dtype=np.uint64)
    position = np.arange(len(sequences.flat)) - np.repeat(sequences.offsets[:-1], lengths)
    words = sequences.flat.astype(np.uint64) << np.uint64(32) | position.astype(np.uint64)
    if batch.hidden is not None:
        rows = np.repeat(np.arange(len(lengths)), batch.hidden.lengths)
        words[sequences.offsets[rows] + batch.hidden.flat] |= np.uint64(1 << 31)
    halves = []
    for salt in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
        sums = np.zeros(len(lengths), dtype=np.uint64)
        some = lengths > 0  # reduceat gives an empty row its neighbour's first word
        sums[some] = np.add.reduceat(_mix(words + np.uint64(salt)), sequences.offsets[:-1][some])
        halves.append(sums)
    return halves[0], halves[1]


def _mix(words: Words) -> Words:
    """Return words whose bits depend on all bits of the given ones (the splitmix64 finaliser)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed


def _find(known: _Answers, keys: Words, checks: Words) -> npt.NDArray[np.int64]:
    """Return where each digest stands, −1 where it does not."""
    if not len(known.keys):
        return np.full(len(keys), -1)
    places = np.minimum(np.searchsorted(known.keys, keys), len(known.keys) - 1)
    same = (known.keys[places] == keys) & (known.checks[places] == checks)
    return np.where(same, places, -1)


def _merge(known: _Answers | None, fresh: _Answers) -> _Answers:
    """Return both, sorted; of equal keys among the fresh ones the first counts."""
    _, first = np.unique(fresh.keys, return_index=True)
    fresh = _take(fresh, first)
    if known is None:
        return fresh
    places = np.searchsorted(known.keys, fresh.keys)
    return _Answers(
        np.insert(known.keys, places, fresh.keys),
        np.insert(known.checks, places, fresh.checks),
        np.insert(known.log_probs, places, fresh.log_probs, axis=0),
        np.insert(known.log_z, places, fresh.log_z),
        np.insert(known.born, places, fresh.born),
    )


def _take(answers: _Answers, rows: npt.NDArray[np.int64]) -> _Answers:
    return _Answers(
        answers.keys[rows],
        answers.checks[rows],
        answers.log_probs[rows],
        answers.log_z[rows],
        answers.born[rows],
    )
