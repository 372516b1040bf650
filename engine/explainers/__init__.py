"""Explainers: `build` a perturbation explainer by name and `solve` a game with it.

Methods that need gradients of a model stand beside them: `build_method` makes either kind.

Stable seam:

>>> import numpy as np
>>> from engine.explainers import build, solve
>>> game = lambda z: z @ np.array([1.0, -2.0, 0.5])  # bool[C, F] -> float[C] or float[C, L]
>>> solve(build("kernel_shap", num_samples=200, seed=0), game, 3).values.round(6).tolist()
[[1.0, -2.0, 0.5]]
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from engine.errors import ConfigError
from engine.explainers.base import Explainer, solve
from engine.explainers.exact import Exact
from engine.explainers.gradients import (
    GradientMethod,
    GradientXInput,
    IgOcclusion,
    IntegratedGradients,
)
from engine.explainers.kernel_shap import KernelShap
from engine.explainers.lime import Lime
from engine.explainers.occlusion import Occlusion
from engine.explainers.permutation_shap import PermutationShap
from engine.explainers.random_order import RandomOrder

__all__ = [
    "Explainer",
    "GradientMethod",
    "build",
    "build_method",
    "method_names",
    "names",
    "parameters",
    "solve",
]

_METHODS: dict[str, type[Explainer]] = {
    method.name: method
    for method in (Exact, KernelShap, Lime, Occlusion, PermutationShap, RandomOrder)
}

_GRADIENTS: dict[str, type[GradientMethod]] = {
    method.name: method for method in (GradientXInput, IgOcclusion, IntegratedGradients)
}


def names() -> tuple[str, ...]:
    """Return the names of the explainers of games, sorted."""
    return tuple(sorted(_METHODS))


def method_names() -> tuple[str, ...]:
    """Return the names of all that a sweep can explain with, gradient methods included, sorted."""
    return tuple(sorted([*_METHODS, *_GRADIENTS]))


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of an explainer with their defaults.

    Raises:
        ConfigError: There is no such explainer.
    """
    method: Any = _method(name)
    return {field.name: field.default for field in dataclasses.fields(method)}


def build(name: str, **params: Any) -> Explainer:
    """Return an explainer of games.

    Args:
        name: One of `names()`.
        **params: As listed by `parameters(name)`.

    Raises:
        ConfigError: An unknown name or parameter, or a value the explainer can't take.
    """
    made = build_method(name, **params)
    if isinstance(made, GradientMethod):
        raise ConfigError(
            f"{name} needs the gradients of a model and can't explain a function of coalitions: "
            f"use it in a sweep, or one of {', '.join(names())}"
        )
    return made


def build_method(name: str, **params: Any) -> Explainer | GradientMethod:
    """Return an explainer of games or a gradient method.

    Args:
        name: One of `method_names()`.
        **params: As listed by `parameters(name)`.

    Raises:
        ConfigError: An unknown name or parameter, or a value the method can't take.
    """
    method: Any = _method(name)
    known = parameters(name)
    for parameter in params:
        if parameter not in known:
            raise ConfigError(_unknown(f"parameter of explainer {name}", parameter, known))
    made: Explainer | GradientMethod = method(**params)
    return made


def _method(name: str) -> type[Explainer] | type[GradientMethod]:
    known: dict[str, Any] = {**_METHODS, **_GRADIENTS}
    if name not in known:
        raise ConfigError(_unknown("explainer", name, known))
    method: type[Explainer] | type[GradientMethod] = known[name]
    return method


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what}: {name!r}; {hint}known are {', '.join(listed)}"
