from __future__ import annotations

import numpy as np

from engine.not_a_number import CODE, MESSAGE, failure_code, no_numbers


def test_a_probability_of_zero_is_a_number_and_an_unknown_normaliser_does_no_harm() -> None:
    log_probs = np.array([[-1.0, -2.0], [-np.inf, -2.0], [-np.inf, -np.inf], [-1.0, -1.0]])
    log_z = np.array([0.0, 3.0, np.nan, -np.inf])
    assert not no_numbers(log_probs, log_z).any()


def test_no_numbers() -> None:
    log_probs = np.array([[np.nan, -2.0], [-1.0, np.nan], [-np.inf, -np.inf]])
    assert no_numbers(log_probs, np.array([0.0, np.nan, np.inf])).all()
    assert no_numbers(np.zeros((0, 2)), np.zeros(0)).shape == (0,)


def test_codes() -> None:
    assert failure_code(MESSAGE, "not_scored") == CODE
    assert failure_code("the prompt is empty", "not_scored") == "not_scored"
    assert "not a number: use bf16 or fp32" in MESSAGE
