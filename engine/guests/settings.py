"""What the configuration says of guests, checked without importing a user's module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from engine.errors import ConfigError
from engine.guests.names import asks, check_name, check_parameters, is_builtin, parameters


def check_guest(name: str, params: Mapping[str, Any], features: str, operator: str) -> None:
    """Check a guest's name and, where it ships with the project, its parameters.

    Args:
        name: Of the explainer.
        params: Keys beside those that all explainers have.
        features: Of the explainer; left at its default where the guest splits by itself.
        operator: The same, where it masks by itself.

    Raises:
        ValueError: One of them is wrong.
    """
    try:
        _check(name, params, features, operator)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _check(name: str, params: Mapping[str, Any], features: str, operator: str) -> None:
    check_name(name)
    if not is_builtin(name):
        return
    known = parameters(name)
    for key in params:
        if key not in known:
            raise ConfigError(f"{name} has no parameter {key!r}; it has {', '.join(sorted(known))}")
    check_parameters(name, params)
    if asks(name) == "texts":
        for key, value, default in (
            ("features", features, "words"),
            ("operator", operator, "delete"),
        ):
            if value != default:
                raise ConfigError(f"{name} splits and masks the text by itself: leave out `{key}`")


def check_guest_inputs(name: str, params: Mapping[str, Any], inputs: Collection[str]) -> None:
    """Check that the text a guest explains is named where there are several.

    Raises:
        ValueError: It isn't, or there is no such input.
    """
    field = params.get("field")
    if asks(name) == "coalitions":
        return
    if field is None and len(inputs) > 1:
        raise ValueError(f"{name} explains one text: add `field:` with one of {', '.join(inputs)}")
    if field is not None and field not in inputs:
        raise ValueError(
            f"{name}: there is no input {field!r}; field is one of {', '.join(inputs)}"
        )
