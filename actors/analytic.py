"""Analytic models of text: log-odds that are known functions of the words, and their attributions.

A model is a bias, a weight for each occurrence of a word, and groups of words: an `all` group adds
its weight where all its words occur, an `any` group where one does. Shapley values of such games
are known in closed form, so explainers can be checked against them end to end.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.backend import digest_text
from actors.letter_runs import letter_runs
from actors.lexicon import NEGATIONS, SENTIMENT
from engine.errors import ConfigError

MODELS = ("fake:linear", "fake:and_or", "fake:planted")
"""`fake:linear`: a sentiment lexicon, each occurrence adds its weight. `fake:and_or`: the lexicon
and groups such as "not" with "good". `fake:planted`: only the words and groups of the options."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Group:
    """Words that count as one.

    Attributes:
        words: Lower-cased, distinct.
        weight: Added once, where the group is satisfied.
        every: Whether all words must occur, or one is enough.
    """

    words: tuple[str, ...]
    weight: float
    every: bool

    def satisfied(self, counts: Mapping[str, int]) -> bool:
        """Return whether a text with these words satisfies the group."""
        return (all if self.every else any)(word in counts for word in self.words)


@dataclass(frozen=True, slots=True)
class AnalyticModel:
    """A function of the words of a text, for L labels.

    With scalar weights there are two labels, and the sum is the log-odds of label 1. With a list a
    word, the sums are the logits of L labels.

    Attributes:
        weights: Word -> weight of each label [L], or of one column for two labels.
        bias: Of each column.
        groups: Two labels only.
    """

    weights: Mapping[str, tuple[float, ...]]
    bias: tuple[float, ...]
    groups: tuple[Group, ...]

    @property
    def n_labels(self) -> int:
        """Return L."""
        return max(2, len(self.bias))

    def log_probs(self, text: str) -> list[float]:
        """Return the log-probabilities of the labels [L]."""
        counts = Counter(words_of(text))
        sums = []
        for column, bias in enumerate(self.bias):
            terms = [n * self.weights[w][column] for w, n in counts.items() if w in self.weights]
            terms += [group.weight for group in self.groups if group.satisfied(counts)]
            # fsum is exact, so the order of the words can't change the last bit
            sums.append(math.fsum([bias, *terms]))
        return _log_softmax(sums if len(sums) > 1 else [0.0, sums[0]])

    def log_probs_batch(
        self, flat: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return the log-probabilities of many texts [S, L], as `log_probs` but for rounding.

        Args:
            flat: UTF-8 of all texts one after the other [T]; what is no UTF-8 reads as U+FFFD.
            offsets: Where each text starts in `flat`, and T at the end [S + 1].
        """
        n_texts = len(offsets) - 1
        runs, row = letter_runs(flat, offsets)
        sums = np.tile(np.array(self.bias, dtype=np.float64), (n_texts, 1))
        weights, members = self._tables(runs.texts)
        for column in range(len(self.bias)):
            weight = weights[:, column][runs.which]
            some = np.flatnonzero(weight)
            sums[:, column] += np.bincount(row[some], weight[some], minlength=n_texts)
        if members.size:
            has_any = members.sum(axis=1) > 0
            some = np.flatnonzero(has_any[runs.which])
            place, word = np.nonzero(members[runs.which[some]])
            occurs = np.zeros((n_texts, members.shape[1]), dtype=bool)
            occurs[row[some[place]], word] = True
            sums[:, 0] += self._group_sums(occurs)
        logits = sums
        if len(self.bias) == 1:
            logits = np.concatenate([np.zeros_like(sums), sums], axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits

    def _tables(
        self, texts: Sequence[bytes]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Return the weights [U, columns] of texts, and which words of groups each has [U, W]."""
        number = {word: i for i, word in enumerate(self._group_words())}
        weights = np.zeros((len(texts), len(self.bias)))
        members = np.zeros((len(texts), len(number)), dtype=bool)
        for index, text in enumerate(texts):
            for word in words_of(text.decode(errors="replace")):
                if word in self.weights:
                    weights[index] += self.weights[word]
                if word in number:
                    members[index, number[word]] = True
        return weights, members

    def _group_words(self) -> list[str]:
        return list(dict.fromkeys(word for group in self.groups for word in group.words))

    def _group_sums(self, occurs: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return what the groups add [S], given which of their words occur [S, W]."""
        number = {word: i for i, word in enumerate(self._group_words())}
        total = np.zeros(len(occurs))
        for group in self.groups:
            own = occurs[:, [number[word] for word in group.words]].sum(axis=1)
            total += group.weight * (own >= (len(group.words) if group.every else 1))
        return total

    def digest(self) -> str:
        """Return the digest of everything that sets the log-probabilities."""
        content = [
            sorted((word, list(weights)) for word, weights in self.weights.items()),
            list(self.bias),
            [[list(g.words), g.weight, g.every] for g in self.groups],
        ]
        return digest_text(json.dumps(content))


def words_of(text: str) -> list[str]:
    """Return the lower-cased words of a text, in order."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def analytic_model(name: str, options: Mapping[str, Any] | None = None) -> AnalyticModel:
    """Return an analytic model.

    Args:
        name: One of `MODELS`.
        options: `weights` {word: weight or list of L weights}, added to the model's own; `bias`, a
            number or a list of L; `groups` [{all: [words], weight: w} | {any: [words], weight: w}],
            in place of the model's own.

    Raises:
        ConfigError: The name is unknown or the options are wrong.
    """
    options = options or {}
    if name not in MODELS:
        raise ConfigError(f"unknown analytic model {name!r}: use one of {', '.join(MODELS)}")
    own_weights: Mapping[str, float] = {} if name == "fake:planted" else SENTIMENT
    own_groups = NEGATIONS if name == "fake:and_or" else ()
    given = {word.lower(): _row(word, w) for word, w in (options.get("weights") or {}).items()}
    bias = _row("bias", options.get("bias", 0.0))
    n_columns = max([len(bias), *(len(row) for row in given.values())])
    if n_columns > 1:
        own_weights = {}  # a lexicon of one column says nothing of several labels
        bias = bias if len(bias) > 1 else bias * n_columns
    if any(len(row) != n_columns for row in (bias, *given.values())):
        raise ConfigError(f"{name}: give every word, and the bias, {n_columns} weights")
    groups = tuple(_group(group) for group in options.get("groups", own_groups))
    if groups and n_columns > 1:
        raise ConfigError(f"{name}: groups need one weight a word (two labels)")
    if name == "fake:planted" and not given and not groups:
        raise ConfigError("fake:planted plants nothing: give options such as weights: {good: 1.5}")
    weights = {word: (weight,) for word, weight in own_weights.items()} | given
    return AnalyticModel(weights, bias, groups)


def closed_form(model: AnalyticModel, words: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the Shapley value of each word in the log-odds of label 1 [F].

    The players are the positions of `words`; a text has the words that are in the coalition. A
    linear word's value is its weight. In a group, a word g that stands at m_g positions is present
    with probability 1 − (1 − t)^{m_g} when every position is in with probability t, and a player's
    value is the integral over t in [0, 1] of the derivative of the group's multilinear extension
    (Owen 1972), a polynomial that Gauss–Legendre quadrature integrates exactly: for an `all` group
    of k words that stand once it is weight / k, for an `any` group of m positions weight / m.

    Args:
        model: A model of two labels with one weight a word.
        words: What each feature says; one with several words, such as "well-made", has them all.

    Raises:
        ValueError: The model has several columns: its log-odds aren't additive.
    """
    if len(model.bias) > 1:
        raise ValueError("only the log-odds of two labels with one weight a word are additive")
    parts = [words_of(word) for word in words]
    linear = [math.fsum(model.weights.get(part, (0.0,))[0] for part in found) for found in parts]
    values = np.array(linear, dtype=np.float64)
    for group in model.groups:
        at = [[i for i, found in enumerate(parts) if word in found] for word in group.words]
        positions = [i for places in at for i in places]
        if len(positions) != len(set(positions)):
            raise ValueError(f"a feature has several words of the group {group.words}")
        if group.every and all(at):
            for word, places in enumerate(at):
                counts = [len(p) for other, p in enumerate(at) if other != word]
                values[places] += group.weight * _all_share(len(places), counts)
        elif not group.every and positions:
            values[positions] += group.weight / len(positions)
    return values


def _all_share(own: int, others: Sequence[int]) -> float:
    """Return ∫ (1 − t)^{own−1} Π_h (1 − (1 − t)^{m_h}) dt over [0, 1]."""
    degree = own - 1 + sum(others)
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    out = (1 - nodes) / 2  # 1 − t
    integrand = out ** (own - 1)
    for count in others:
        integrand = integrand * (1 - out**count)
    return float(weights @ integrand) / 2


def _row(name: str, weight: Any) -> tuple[float, ...]:
    try:
        row = (
            tuple(float(w) for w in weight)
            if isinstance(weight, list | tuple)
            else (float(weight),)
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the weight of {name!r} isn't a number: {weight!r}") from error
    if not row or not all(math.isfinite(w) for w in row):
        raise ConfigError(f"the weight of {name!r} isn't a finite number: {weight!r}")
    return row


def _group(spec: Mapping[str, Any]) -> Group:
    kinds = [kind for kind in ("all", "any") if kind in spec]
    if len(kinds) != 1 or set(spec) != {kinds[0], "weight"} or not spec[kinds[0]]:
        raise ConfigError(f"a group is {{all: [words], weight: w}} or {{any: …}}, not {dict(spec)}")
    words = tuple(dict.fromkeys(str(word).lower() for word in spec[kinds[0]]))
    return Group(words, _row("group", spec["weight"])[0], kinds[0] == "all")


def _log_softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    log_sum = math.log(math.fsum(math.exp(logit - top) for logit in logits))
    return [logit - top - log_sum for logit in logits]
