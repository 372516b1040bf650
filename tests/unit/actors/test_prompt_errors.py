from __future__ import annotations

from actors.backend import SequenceBatch
from actors.prompt_errors import prompt_errors
from engine.ragged import Ragged
from engine.schema import ScoreTask


def test_each_prompt_has_an_error_of_its_own() -> None:
    rows = [[1, 2, 3], [], [1, 2, 3, 4], [9, 10], [-1], [0]]
    task = ScoreTask(((1,), (2, 3)))
    errors = prompt_errors(SequenceBatch(Ragged.of(rows), None), task, 4, 10)
    assert sorted(errors) == [1, 2, 3, 4]
    assert errors[1] == "the prompt is empty"
    assert "have 5 tokens, the model takes 4" in errors[2]
    assert "outside the vocabulary of 10" in errors[3]
    assert "outside the vocabulary of 10" in errors[4]


def test_a_model_without_a_window_takes_any_length() -> None:
    batch = SequenceBatch(Ragged.of([[1] * 9999]), None)
    assert prompt_errors(batch, ScoreTask(((1,),)), None, 10) == {}
