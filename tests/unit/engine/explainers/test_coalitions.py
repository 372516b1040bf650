from __future__ import annotations

import math

import numpy as np
import pytest

from engine.errors import ConfigError, ExampleError
from engine.explainers import coalitions as sets


def test_everything_is_indexed_by_bits() -> None:
    assert sets.everything(2).tolist() == [
        [False, False],
        [True, False],
        [False, True],
        [True, True],
    ]
    assert sets.everything(0).shape == (1, 0)


@pytest.mark.parametrize(("n", "size"), [(5, 1), (5, 2), (6, 3), (1, 1), (4, 4)])
def test_of_size_has_all_subsets_once(n: int, size: int) -> None:
    found = sets.of_size(n, size)
    assert len(np.unique(found, axis=0)) == len(found) == math.comb(n, size)
    assert (found.sum(axis=1) == size).all()


def test_uniform_subsets_have_their_sizes_and_every_member_equally_often() -> None:
    uniforms = np.random.default_rng(0).random((6000, 4))
    sizes = np.arange(6000) % 5
    subsets = sets.uniform_subsets(uniforms, sizes)
    np.testing.assert_array_equal(subsets.sum(axis=1), sizes)
    pairs, counts = np.unique(subsets[sizes == 2], axis=0, return_counts=True)
    assert len(pairs) == 6
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)
    assert (sets.uniform_subsets(uniforms, 3).sum(axis=1) == 3).all()


def test_distinct_keeps_first_appearances_and_counts() -> None:
    rows = np.array([[1, 0], [0, 0], [1, 0], [1, 1], [1, 0]], dtype=bool)
    found, counts = sets.distinct(rows)
    assert found.astype(int).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert counts.tolist() == [3, 1, 1]


def test_too_few_samples_names_what_was_given_and_what_works() -> None:
    with pytest.raises(ExampleError, match=r"num_samples = 5 .* 9 features; .* is 20") as caught:
        sets.require_samples("kernel_shap", 5, 9, 20)
    assert caught.value.code == "too_few_samples"


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_whole_numbers_are_checked(value: object) -> None:
    with pytest.raises(ConfigError, match=r"lime: num_samples .* at least 1"):
        sets.check_integer("lime", "num_samples", value, 1)
    sets.check_integer("lime", "num_samples", np.int64(3), 1)
