"""The names of guests: those that ship with the project, and any `module:callable`.

The ones that ship are found by the same `module:callable`, so that nothing here imports the
libraries they adapt.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from engine.errors import ConfigError

PREFIX = "guest:"
MAX_EVALUATIONS = 10_000
"""Distinct evaluations one explanation of a guest may ask for, unless `max_evaluations` says
otherwise: twice the largest default of those that ship (lime's 5000)."""

Asks: TypeAlias = Literal["texts", "coalitions"]


class _Builtin(NamedTuple):
    place: str
    asks: Asks


_BUILTIN = {
    "lime": _Builtin("guests.lime_text:explain", "texts"),
    "shap.partition": _Builtin("guests.shap_partition:explain", "texts"),
    "shap.kernel": _Builtin("guests.shap_kernel:explain", "coalitions"),
    "captum.kernel_shap": _Builtin("guests.captum_kernel_shap:explain", "coalitions"),
}
_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_GIVEN = {"texts": ("text", "predict", "labels"), "coalitions": ("n_features", "value", "labels")}


def is_guest(name: str) -> bool:
    """Return whether an explainer's name is that of a guest."""
    return name.startswith(PREFIX)


def names() -> tuple[str, ...]:
    """Return the names of the guests that ship with the project, sorted."""
    return tuple(sorted(PREFIX + name for name in _BUILTIN))


def is_builtin(name: str) -> bool:
    """Return whether a guest ships with the project."""
    return name.removeprefix(PREFIX) in _BUILTIN


def asks(name: str) -> Asks:
    """Return what a guest asks values of: whole texts, or coalitions of our features.

    Raises:
        ConfigError: It is no guest's name.
    """
    return _entry(name).asks


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a guest that ships with the project, with their defaults.

    Raises:
        ConfigError: There is no such guest.
    """
    found = inspect.signature(load(name)).parameters.values()
    own = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY and p.name != "seed"}
    shared: dict[str, Any] = {"max_evaluations": MAX_EVALUATIONS}
    if asks(name) == "texts":
        shared["field"] = None
    return {**own, **shared}


def check_name(name: str) -> None:
    """Check a guest's name without importing anything.

    Raises:
        ConfigError: It is neither one that ships nor `guest:module:callable`.
    """
    _entry(name)


def check_parameters(name: str, params: Mapping[str, Any]) -> None:
    """Check that a guest can be imported and takes these parameters.

    Raises:
        ConfigError: It can't, or does not.
    """
    limit = params.get("max_evaluations", MAX_EVALUATIONS)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigError(f"{name}: max_evaluations must be a whole number from 1, not {limit!r}")
    function = load(name)
    try:
        inspect.signature(function).bind(*_GIVEN[asks(name)], **arguments(function, params, 0))
    except TypeError as error:
        takes = ", ".join(_GIVEN[asks(name)])
        raise ConfigError(f"{name} is called with ({takes}, parameters): {error}") from None


def arguments(function: Callable[..., Any], params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the keyword arguments of a guest: its parameters, and the seed if it takes one."""
    own = {key: value for key, value in params.items() if key not in ("max_evaluations", "field")}
    if "seed" in inspect.signature(function).parameters:
        own["seed"] = seed
    return own


def load(name: str) -> Callable[..., Any]:
    """Return the callable of a guest.

    Raises:
        ConfigError: It can't be imported.
    """
    place = _entry(name).place
    module, _, attribute = place.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may fail with anything
        raise ConfigError(
            f"{name}: {place} can't be imported ({type(error).__name__}: {error}); its folder must "
            "be on PYTHONPATH on every node"
        ) from None
    if not callable(function):
        raise ConfigError(f"{name}: {place} is not callable")
    return function


def game_of(name: str, params: Mapping[str, Any]) -> Any:
    """Return the `engine.guests.explanation.Game` of a guest that splits and masks by itself.

    Raises:
        ConfigError: It can't be imported.
    """
    function = load(name)
    module = importlib.import_module(function.__module__)
    return module.game(**arguments(module.game, params, 0))


def _entry(name: str) -> _Builtin:
    own = name.removeprefix(PREFIX)
    if own in _BUILTIN:
        return _BUILTIN[own]
    if name.startswith(PREFIX) and _PLACE.fullmatch(own):
        return _Builtin(own, "texts")
    raise ConfigError(
        f"unknown guest {name!r}: use one of {', '.join(names())}, or guest:module:callable"
    )
