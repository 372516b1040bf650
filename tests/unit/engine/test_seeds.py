from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.seeds import derive, digest, generator

PARTS = st.one_of(st.text(max_size=8), st.integers(-(2**70), 2**70))


class TestGoldens:
    """Coalitions of every stored evaluation hang on these: they must never change."""

    def test_derive(self) -> None:
        assert derive() == 8203414616412130826
        assert derive("a") == 5476949362331446667
        assert derive("explainer", 0, "0123", "lime", "words") == 2258491948821162747

    def test_generator(self) -> None:
        assert generator("random_orders", 7, 0).integers(0, 2**32, 3).tolist() == [
            354055841,
            4264693991,
            4029257730,
        ]
        assert generator("x").permutation(8).tolist() == [7, 1, 3, 4, 5, 6, 2, 0]

    def test_digest(self) -> None:
        assert digest({"b": [1, 2.5, None], "a": "é"}) == "d764fee2563da33e"
        assert digest([]) == "4f53cda18c2baa0c"


def test_another_process_with_another_hash_seed_derives_the_same() -> None:
    code = (
        "from engine.seeds import derive, digest; print(derive('a', 1), digest({'b': 1, 'a': 2}))"
    )
    root = Path(__file__).resolve().parents[3]
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.split() == [str(derive("a", 1)), digest({"a": 2, "b": 1})]


@given(st.lists(PARTS, max_size=4), st.lists(PARTS, max_size=4))
def test_keys_that_differ_give_other_seeds(one: list[str | int], other: list[str | int]) -> None:
    assert (derive(*one) == derive(*other)) == (one == other)
    assert 0 <= derive(*one) < 2**63


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a", "b"), ("b", "a")), ((1,), ("1",)), (("ab",), ("a", "b")), (("a", ""), ("a",))],
)
def test_order_type_and_borders_of_a_key_count(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    assert derive(*one) != derive(*other)


def test_each_call_gives_a_fresh_generator() -> None:
    first = generator("a", 1)
    first.random(100)
    assert generator("a", 1).random() == generator("a", 1).random()


@given(st.dictionaries(st.text(max_size=4), st.integers(), max_size=5))
def test_digest_depends_on_content_not_on_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)
    assert digest({**value, "a longer key": 0}) != digest(value)
    assert len(digest(value)) == 16
