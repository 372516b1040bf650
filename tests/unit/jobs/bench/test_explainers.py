from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ConfigError
from jobs.bench.explainers import PROMPTS, TEXTS, crossing, run
from jobs.bench.peers import PEERS, count_words


def test_texts_are_as_long_as_is_said() -> None:
    assert [count_words(text) for text in TEXTS] == [22, 22]
    assert PROMPTS.keys() == {"chat", "short"}


def test_samples_are_the_libraries_defaults() -> None:
    found = {peer.key: peer.default(20) for peer in PEERS}
    assert found == {
        "vs_lime": 5000,
        "vs_shap_kernel": 2088,
        "vs_captum": 2088,
        "vs_shap_partition": 500,
    }


@pytest.mark.parametrize("power", [-0.5, -0.8])
def test_crossing_of_a_power_law(power: float) -> None:
    budgets = [64, 128, 256]
    spreads = [2.0 * budget**power for budget in budgets]
    assert crossing(budgets, spreads, 2.0 * 1000**power) == pytest.approx(1000, abs=1)


def test_errors_that_hardly_fall_are_taken_for_noise() -> None:
    assert crossing([64, 256], [0.2, 0.2], 0.1) == pytest.approx(4 * np.sqrt(64 * 256), abs=1)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="as many words"):
        run(texts=("one two", "one two three"))
    with pytest.raises(ConfigError, match="need 46 samples"):
        run(samples=20)
    with pytest.raises(ConfigError, match="chat, short"):
        run(prompt="long")


def test_short_texts_have_no_error_to_reach() -> None:
    assert crossing([64, 128], [0.0, 0.0], 0.05) < 12
    assert crossing([64, 128], [0.0, 0.0], 0.0) < 200
