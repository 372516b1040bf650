"""What a host says to OpenMP before torch is there."""

from __future__ import annotations

import os

import pytest

from actors.waiting import SPINS, wait_briefly

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", SPINS)),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
    ],
)
def test_what_the_user_says_comes_first(
    given: dict[str, str], expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", dict(given))
    wait_briefly()
    assert tuple(map(os.environ.get, NAMES)) == expected
