"""How alike two models answer: the columns `answer_correlation` and `control_gain` of shifts.

Attributions alone don't tell how far one model's evaluations would serve another one: answers do,
over the same coalitions. A run folder has none; those that its steps asked stand in the store.
Which of them an explainer asked follows from its seed, so that what other runs have added to the
store changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from analysis.levels import Level
from analysis.load import RunTables
from analysis.shift_examples import ANSWERS, Shift
from engine.answers import Answers, space_key
from engine.commits import CommittedPart
from engine.config import SweepConfig
from engine.control_variate import answer_correlation, control_gain, unexplained
from engine.data import example_key, shown_key
from engine.errors import ExampleError
from engine.explainers import GradientMethod, build_method
from engine.guests.names import is_guest
from engine.plan import explainer_tasks
from engine.pool import CoalitionPool
from engine.schema import FACTORS, GAME
from engine.store import index_store, read_parts
from engine.target import normalise, transform
from engine.types import BoolCF, Feature, FloatCL, Span

LINEAR = 1e-5
"""Share of the answers' spread; what a linear game leaves below it is rounding."""

Row: TypeAlias = Mapping[str, Any]
Where: TypeAlias = tuple[Level, tuple[str, ...]]
"""A level and a game."""


class Asked(NamedTuple):
    """What one explainer asked of one example at one level.

    Attributes:
        coalitions: [C, F].
        values: Of the explained target [C, L].
        labels: Names of the L labels.
    """

    coalitions: BoolCF
    values: FloatCL
    labels: tuple[str, ...]


class StoredAnswers:
    """What a run's models answered, as far as its store still has it.

    Args:
        store: Its root folder; need not exist.
        fingerprints: Names of the pairs' folders by `model|precision|adapter|prompt`.
        config: Of the run.
    """

    def __init__(self, store: Path, fingerprints: Mapping[str, str], config: SweepConfig) -> None:
        self._store = store
        self._fingerprints = fingerprints
        self._tasks = {task.label: task for task in explainer_tasks(config)}
        self._prompts = {prompt.name: prompt for prompt in config.prompts}
        self._parts: dict[Level, tuple[Path, Mapping[str, tuple[CommittedPart, ...]]]] = {}

    def draws(self, explainer: str) -> bool:
        """Whether an explainer's coalitions can be drawn again."""
        task = self._tasks.get(explainer)
        if task is None or is_guest(task.name):
            return False
        return not isinstance(build_method(task.name, **task.params), GradientMethod)

    def of_example(self, level: Level, inputs: Mapping[str, str], numerics: str) -> Answers:
        """Return the answers to an example that were computed as the run's."""
        if level not in self._parts:
            name = self._fingerprints.get("|".join(level[1:]))
            folder = self._store / (name or "-")
            self._parts[level] = folder, index_store(folder) if name else {}
        folder, index = self._parts[level]
        key, answers = example_key(inputs), Answers()
        answers.add_stored(read_parts(folder, index.get(key, ())), numerics, {key})
        return answers

    def asked(self, level: Level, row: Row, said: Row, answers: Answers) -> Asked | None:
        """Return what an explainer asked, or None where the store lacks some of it.

        Args:
            level: Where it was asked.
            row: Of the run's attributions.
            said: Of its predictions, of the same example.
            answers: From `of_example`.
        """
        task = self._tasks[row["explainer"]]
        inputs = json.loads(said["inputs"])
        key = example_key(inputs)
        drawn_by = shown_key(inputs, self._prompts[level.prompt].variables)
        features = _features(row["spans"])
        space = space_key(features, f"{row['operator']}/{row['masked_on']}")
        seed = task.coalition_seed(drawn_by, space)
        explainer = build_method(task.name, **{**task.params, "seed": seed})
        assert not isinstance(explainer, GradientMethod)

        def value(raw: FloatCL) -> FloatCL:
            log_probs = raw[:, :-2]
            if said["calibration"] is not None:
                log_probs = normalise(log_probs - np.asarray(said["calibration"]))
            return transform(log_probs, task.target, self._prompts[level.prompt].normaliser)

        pool = answers.pool(key, space, len(features)).map(value)
        try:
            if len(explainer.ask(pool)):
                return None
        except ExampleError:
            return None
        used = explainer.used(pool)
        return Asked(used, pool.lookup(used), tuple(said["labels"]))


def with_correlations(
    found: Sequence[Shift], run: RunTables, stored: StoredAnswers | None
) -> list[Shift]:
    """Return the comparisons with `ANSWERS` where both sides' answers are at hand.

    ρ is that of `engine.control_variate` over the coalitions that the explainer asked at both
    levels, for the class that is compared. Undefined for guests and gradients; for two seeds of one
    explainer, which ask other coalitions; of continuations; with fewer than 2(F + 1) common
    coalitions; and where a linear game leaves nothing.
    """
    if stored is None:
        return list(found)
    wanted = [
        number
        for number, shift in enumerate(found)
        if shift.comparison.explainers is None and stored.draws(shift.game[0])
    ]
    if not wanted:
        return list(found)
    rho: dict[int, dict[str, float]] = {number: {} for number in wanted}
    classes = {
        number: dict(
            found[number]
            .frame.filter(pl.col("refused").is_null())
            .select("example", "class_name")
            .iter_rows()
        )
        for number in wanted
    }
    said_of = _by_example(run.predictions, ["inputs", "calibration", "labels", "continuation"])
    columns = [*GAME, "spans", "masked_on", "numerics"]
    for example, rows in _by_example(run.attributions, columns).items():
        here = [number for number in wanted if example in classes[number]]
        if not here:
            continue
        one = _Example(stored, rows, said_of[example])
        for number in here:
            comparison, game = found[number].comparison, found[number].game
            sides = (comparison.other, game), (comparison.reference, game)
            rho[number][example] = one.correlation(*sides, classes[number][example])
    return [
        _filled(shift, rho[number]) if number in rho else shift
        for number, shift in enumerate(found)
    ]


class _Example:
    """One example at all levels; each side is read once."""

    def __init__(self, stored: StoredAnswers, rows: pl.DataFrame, said: pl.DataFrame) -> None:
        self._stored = stored
        self._rows: dict[Where, Row] = {}
        for row in rows.iter_rows(named=True):
            self._rows[_level(row), tuple(str(row[name]) for name in GAME)] = row
        self._said = {_level(row): row for row in said.iter_rows(named=True)}
        self._answers: dict[Level, Answers] = {}
        self._asked: dict[Where, Asked | None] = {}
        self._left: dict[tuple[Where, bytes], FloatCL] = {}

    def correlation(self, one: Where, two: Where, class_name: str) -> float:
        a, b = self._ask(one), self._ask(two)
        if a is None or b is None or not {class_name} <= {*a.labels} & {*b.labels}:
            return np.nan
        known = CoalitionPool(b.coalitions.shape[1])
        known.tell(b.coalitions, b.values)
        common = a.coalitions[known.rows(a.coalitions) >= 0]
        if len(common) < 2 * (common.shape[1] + 1):
            return np.nan
        sides = []
        for where, side in ((one, a), (two, b)):
            place = side.labels.index(class_name)
            left = self._unexplained(where, side, common)[:, [place]]
            spread = np.linalg.norm(side.values[:, place] - side.values[:, place].mean())
            if np.linalg.norm(left) <= LINEAR * spread:
                return np.nan
            sides.append(left)
        return float(answer_correlation(*sides)[0])

    def _ask(self, where: Where) -> Asked | None:
        if where not in self._asked:
            level, _ = where
            row, said = self._rows[where], self._said[level]
            if said["continuation"] is not None or not row["spans"]:
                self._asked[where] = None
                return None
            if level not in self._answers:
                inputs = json.loads(said["inputs"])
                self._answers[level] = self._stored.of_example(level, inputs, row["numerics"])
            self._asked[where] = self._stored.asked(level, row, said, self._answers[level])
        return self._asked[where]

    def _unexplained(self, where: Where, side: Asked, common: BoolCF) -> FloatCL:
        key = where, common.tobytes()
        if key not in self._left:
            pool = CoalitionPool(common.shape[1])
            pool.tell(side.coalitions, side.values)
            self._left[key] = unexplained(common, pool.lookup(common))
        return self._left[key]


def _filled(shift: Shift, rho: Mapping[str, float]) -> Shift:
    values = np.array([rho.get(name, np.nan) for name in shift.frame["example"]], dtype=float)
    columns = dict(zip(ANSWERS, (values, control_gain(values)), strict=True))
    frame = shift.frame.with_columns(
        pl.Series(name, column).fill_nan(None) for name, column in columns.items()
    )
    return shift._replace(frame=frame)


def _by_example(frame: pl.DataFrame, columns: Sequence[str]) -> dict[str, pl.DataFrame]:
    parts = frame.select("example", *FACTORS, *columns).partition_by("example", as_dict=True)
    return {str(name): part for (name,), part in parts.items()}


def _level(row: Row) -> Level:
    return Level(*(row[name] for name in FACTORS))


def _features(spans: Sequence[Row]) -> tuple[Feature, ...]:
    """Return features of these spans; their texts are not known here and make no difference."""
    grouped: dict[int, list[Span]] = {}
    for span in spans:
        grouped.setdefault(span["feature"], []).append(
            Span(span["start"], span["end"], span["field"])
        )
    return tuple(Feature(tuple(own), "") for _, own in sorted(grouped.items()))
