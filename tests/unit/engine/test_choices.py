from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from engine.choices import Choice, ChoiceFrame, Question, choice_frame, choose
from engine.errors import ConfigError, ExampleError
from engine.prompts import parse_template
from engine.schema import ScoreCost, ScoreTask, score_reply, task_of
from engine.tokens import Tokenizer, load_tokenizer

TEMPLATE = "{who} takes A: {option_a} or B: {option_b}\nAnswer:"
WORTH = {"tea": 1.5, "coffee": 0.5, "water": -0.25, "tea with milk": 1.5}
LEAN = 3.0
"""In nats towards the letter A, more than any two options differ by."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("bytes")


@pytest.fixture(scope="module")
def frame(tokenizer: Tokenizer) -> ChoiceFrame:
    return choice_frame(parse_template(TEMPLATE), tokenizer)


class Chooser:
    """A host that knows what options are worth and leans towards A."""

    def __init__(self, lean: float = LEAN, fail_on: str | None = None) -> None:
        self.lean = lean
        self.fail_on = fail_on
        self.tasks: list[ScoreTask] = []

    def __call__(self, request: pa.Table) -> pa.Table:
        self.tasks.append(task_of(request))
        rows, errors = [], {}
        for row, ids in enumerate(request.column("ids").to_pylist()):
            text = bytes(ids).decode()
            if self.fail_on and self.fail_on in text:
                errors[row] = "set to fail"
            match = re.search(r"A: (.*) or B: (.*)\n", text)
            assert match
            odds = WORTH[match[1]] - WORTH[match[2]] + self.lean
            rows.append([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))])
        log_probs = np.array(rows, dtype=np.float32)
        return score_reply(
            log_probs, np.zeros(len(rows), np.float32), errors, ScoreCost(0.0, 0, "")
        )


def ask(*options: tuple[str, str]) -> list[Question]:
    return [Question({"who": "Ada"}, pair) for pair in options]


def test_the_lean_towards_a_letter_cancels_out(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    pairs = [("tea", "coffee"), ("water", "tea"), ("coffee", "water")]
    found = choose(ask(*pairs), frame, tokenizer, Chooser())
    for choice, (first, second) in zip(found, pairs, strict=True):
        assert isinstance(choice, Choice)
        assert choice.log_odds == pytest.approx(WORTH[first] - WORTH[second], abs=1e-5)
        assert choice.lean == pytest.approx(LEAN, abs=1e-5)
        assert choice.chosen == int(WORTH[first] < WORTH[second])
        assert not choice.orders_agree


def test_orders_agree_without_a_lean(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    for choice in choose(ask(("tea", "water"), ("water", "tea")), frame, tokenizer, Chooser(0.0)):
        assert isinstance(choice, Choice)
        assert choice.orders_agree
        assert choice.lean == pytest.approx(0.0, abs=1e-5)


def test_swapping_the_options_swaps_the_choice(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    one, other = choose(ask(("tea", "water"), ("water", "tea")), frame, tokenizer, Chooser())
    assert isinstance(one, Choice)
    assert isinstance(other, Choice)
    assert (one.log_odds, one.lean) == pytest.approx((-other.log_odds, other.lean), abs=1e-5)
    assert (one.chosen, other.chosen) == (0, 1)


def test_equal_options_give_the_first(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    [choice] = choose(ask(("tea", "tea with milk")), frame, tokenizer, Chooser())
    assert isinstance(choice, Choice)
    assert choice.log_odds == pytest.approx(0.0, abs=1e-5)
    assert Choice(0.0, 1.0, -1.0).chosen == 0


def test_a_row_that_fails_fails_its_question(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    host = Chooser(fail_on="A: water")
    good, bad = choose(ask(("tea", "coffee"), ("tea", "water")), frame, tokenizer, host)
    assert isinstance(good, Choice)
    assert bad == "set to fail"


def test_what_a_host_is_asked(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    host = Chooser()
    choose(ask(("tea", "coffee")), frame, tokenizer, host, adapter="abc")
    assert host.tasks == [ScoreTask(((32, 65), (32, 66)), "abc")]
    assert choose([], frame, tokenizer, host) == []
    assert len(host.tasks) == 1


def test_frames_that_can_not_be_asked(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"no slot \{option_b\}"):
        choice_frame(parse_template("A: {option_a}\nAnswer:"), tokenizer)
    with pytest.raises(ConfigError, match="two letters"):
        choice_frame(parse_template(TEMPLATE), tokenizer, {"A": " A"})
    with pytest.raises(ConfigError, match=r"the same|beginning"):
        choice_frame(parse_template(TEMPLATE), tokenizer, {"A": " A", "B": " A!"})


def test_a_missing_field_is_named(tokenizer: Tokenizer, frame: ChoiceFrame) -> None:
    with pytest.raises(ExampleError, match="'who'"):
        choose([Question({}, ("tea", "water"))], frame, tokenizer, Chooser())
