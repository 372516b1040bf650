"""Guests a user could have written; `guest:tests.unit.engine.guests.own_guests:NAME`."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np

PLACE = "guest:tests.unit.engine.guests.own_guests"


def leave_one_out(text: str, predict: Any, labels: tuple[str, ...], word: str = "") -> Any:
    """Two calls: the text, then each word in turn replaced by `word`."""
    spans = [match.span() for match in re.finditer(r"\w+", text)]
    full = predict([text])[0]
    without = predict([text[:start] + word + text[end:] for start, end in spans])
    return spans, (full - without).T.reshape(len(labels), len(spans))


def walk(text: str, predict: Any, labels: tuple[str, ...], steps: int = 6) -> Any:
    """A call a step, of a text that the generators and the last answer choose."""
    words = text.split()
    values = np.zeros((len(labels), len(words)))
    last = predict([text])[0]
    for _ in range(steps):
        kept = [w for w in words if np.random.rand() < 0.3 + 0.5 * last[1]]
        random.shuffle(kept)
        last = predict([" ".join(kept)])[0]
        values[:, int(np.random.randint(len(words)))] += last
    starts = [match.span() for match in re.finditer(r"\S+", text)]
    return starts, values


def forgets_its_seed(text: str, predict: Any, labels: tuple[str, ...]) -> Any:
    """Draws from a generator of its own."""
    generator = np.random.default_rng()
    for _ in range(2):
        predict([f"{text} {generator.integers(2**60)}"])
    return [(0, len(text))], np.zeros((len(labels), 1))


def seeded(text: str, predict: Any, labels: tuple[str, ...], seed: int) -> Any:
    """Returns its seed as the value."""
    return [(0, len(text))], np.full((len(labels), 1), float(seed))


def raises(text: str, predict: Any, labels: tuple[str, ...]) -> Any:
    """Fails after an answer."""
    predict([text + "!"])
    raise LookupError("nothing to see")


def insatiable(text: str, predict: Any, labels: tuple[str, ...]) -> Any:
    """Never ends of itself."""
    number = 0
    while True:
        predict([f"{text} {number + i}" for i in range(10)])
        number += 10


def exits(text: str, predict: Any, labels: tuple[str, ...]) -> Any:
    """Would end the process."""
    raise SystemExit(3)


def returns(text: str, predict: Any, labels: tuple[str, ...], kind: str = "") -> Any:
    """Returns what is wrong in the way that `kind` says."""
    values = np.zeros((len(labels), 1))
    return {
        "none": None,
        "shape": ([(0, 1)], [0.0]),
        "nan": ([(0, 1)], values * np.nan),
        "outside": ([(0, len(text) + 1)], values),
        "overlap": ([(0, 2), (1, 3)], np.zeros((len(labels), 2))),
    }[kind]


def wants_strings(text: str, predict: Any, labels: tuple[str, ...]) -> Any:
    """Forgets the list."""
    return predict(text)


not_callable = 3
