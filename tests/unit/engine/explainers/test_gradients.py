from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.explainers import build, build_method, method_names, names, parameters
from engine.explainers.gradients import GradientMethod, nothing_to_explain
from engine.gradients import GradientAnswer
from engine.tokens import ByteTokenizer

GRADIENTS = ("gradient_x_input", "ig_occlusion", "integrated_gradients")


def ask(name: str, target: Any = "log_odds", **params: Any) -> Any:
    made = build_method(name, **params)
    assert isinstance(made, GradientMethod)
    return made.ask("k", [1, 2, 3], [(1,), (2,)], ByteTokenizer(), target, "labels", None)


def test_both_kinds_are_listed_and_told_apart() -> None:
    assert set(method_names()) == {*names(), *GRADIENTS}
    assert not set(names()) & set(GRADIENTS)
    for name in GRADIENTS:
        made = build_method(name)
        assert isinstance(made, GradientMethod)
        assert made.name == name
        assert build_method(name, **parameters(name)) == made
        with pytest.raises(ConfigError, match=f"{name} needs the gradients of a model"):
            build(name)


def test_defaults() -> None:
    assert parameters("integrated_gradients") == {
        "baseline": "mean",
        "mask": "[MASK]",
        "seed": 0,
        "steps": 20,
        "max_steps": 320,
        "value_range": None,
    }
    assert parameters("gradient_x_input") == {"baseline": "mean", "mask": "[MASK]", "seed": 0}
    extra = set(parameters("ig_occlusion")) - set(parameters("integrated_gradients"))
    assert extra == {"occlusion_steps"}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("integrated_gradients", {"steps": 0}, "steps must be a whole number"),
        ("integrated_gradients", {"steps": 40, "max_steps": 20}, r"max_steps \(20\) is less than"),
        ("integrated_gradients", {"baseline": "noise"}, "baseline must be one of"),
        ("integrated_gradients", {"mask": ""}, "mask must be a text"),
        ("integrated_gradients", {"value_range": 0}, "value_range must be a positive"),
        ("integrated_gradients", {"value_range": True}, "value_range must be a positive"),
        ("integrated_gradients", {"value_range": float("nan")}, "value_range must be a positive"),
        ("integrated_gradients", {"num_samples": 3}, "unknown parameter of explainer integrated"),
        ("gradient_x_input", {"steps": 3}, "unknown parameter of explainer gradient_x_input"),
        ("ig_occlusion", {"occlusion_steps": 0}, "occlusion_steps must be a whole number"),
    ],
)
def test_impossible_values_are_refused(name: str, params: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_method(name, **params)


def test_what_is_asked() -> None:
    row = ask("ig_occlusion", steps=10, max_steps=30, occlusion_steps=4)
    assert (row.method, row.steps, row.max_steps, row.occlusion_steps) == (
        "ig_occlusion",
        10,
        30,
        4,
    )
    assert (row.ids, row.positions, row.baseline_ids) == ((1, 2, 3), ((1,), (2,)), ())
    assert ask("gradient_x_input").steps == 1
    assert ask("integrated_gradients", baseline="mask", mask="ab").baseline_ids == (97, 98)


def test_the_floor_is_one_percent_of_the_range() -> None:
    assert ask("integrated_gradients", "probability").floor == 0.01
    assert ask("integrated_gradients").floor == pytest.approx(0.06)
    assert ask("integrated_gradients", value_range=3).floor == pytest.approx(0.03)


def test_the_residual_is_the_completeness_error() -> None:
    values = np.array([[1.0, -0.5], [-1.0, 0.5]])
    curve = np.array([[2.0, 1.5], [-2.0, -1.5]])
    ends = np.array([1.5, -1.5]), np.array([2.1, -2.1])
    answer = GradientAnswer(values, *ends, 20, 22, 66, True, curve)
    made = build_method("ig_occlusion")
    assert isinstance(made, GradientMethod)
    found = made.attribution(answer, 1)
    np.testing.assert_allclose(found.residual, [0.1, -0.1])
    assert found.evaluations == 22
    assert found.diagnostics == {
        "baseline": "mean",
        "converged": True,
        "steps": 20,
        "curve": (-2.0, -1.5),
    }


def test_without_features_the_value_is_the_base() -> None:
    found = nothing_to_explain(np.array([0.5, -0.5]))
    assert found.values.shape == (2, 0)
    np.testing.assert_array_equal(found.base, [0.5, -0.5])
