from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.pool import CoalitionPool, keys, marks, pack, unpack

coalition_arrays = st.tuples(st.integers(0, 20), st.integers(0, 20)).flatmap(
    lambda shape: arrays(bool, shape)
)


@given(coalition_arrays)
def test_unpack_undoes_pack(coalitions: np.ndarray) -> None:
    bits = pack(coalitions)
    assert bits.shape == (len(coalitions), (coalitions.shape[1] + 7) // 8)
    np.testing.assert_array_equal(unpack(bits, coalitions.shape[1]), coalitions)


@given(coalition_arrays)
def test_keys_tell_coalitions_apart_exactly(coalitions: np.ndarray) -> None:
    found = keys(coalitions)
    for i in range(len(coalitions)):
        for j in range(i):
            assert (found[i] == found[j]) == bool((coalitions[i] == coalitions[j]).all())


@given(coalition_arrays)
def test_missing_lists_each_unknown_coalition_once_in_order(coalitions: np.ndarray) -> None:
    pool = CoalitionPool(coalitions.shape[1])
    known = coalitions[::3]
    pool.tell(known, np.zeros(len(known)))
    missing = pool.missing(coalitions)
    have = set(keys(known))
    expected = list(dict.fromkeys(key for key in keys(coalitions) if key not in have))
    assert keys(missing) == expected


@given(coalition_arrays)
def test_told_values_are_found_whatever_the_order_of_telling(coalitions: np.ndarray) -> None:
    pool = CoalitionPool(coalitions.shape[1])
    weights = np.arange(1.0, coalitions.shape[1] + 1)
    for part in (coalitions[::2], coalitions[1::2]):
        pool.tell(part, part @ weights)
    assert len(pool.missing(coalitions)) == 0
    assert len(pool) == len(set(keys(coalitions))) == len(pool.coalitions) == len(pool.values)
    if len(coalitions):
        np.testing.assert_array_equal(pool.lookup(coalitions)[:, 0], coalitions @ weights)


def test_a_coalition_keeps_its_first_value() -> None:
    pool = CoalitionPool(2)
    pool.tell(np.array([[True, False], [True, False]]), [1.0, 2.0])
    pool.tell(np.array([[True, False], [False, False]]), [3.0, 4.0])
    assert pool.values.tolist() == [[1.0], [4.0]]


def test_values_of_several_labels() -> None:
    pool = CoalitionPool(1)
    pool.tell(np.array([[True], [False]]), [[1.0, 2.0], [3.0, 4.0]])
    assert pool.lookup(np.array([[False], [True], [False]])).tolist() == [[3, 4], [1, 2], [3, 4]]


def test_lookup_of_an_unknown_coalition_fails() -> None:
    pool = CoalitionPool(1)
    pool.tell(np.array([[True]]), [1.0])
    with pytest.raises(KeyError):
        pool.lookup(np.array([[False]]))


def test_tell_wants_a_value_a_coalition() -> None:
    with pytest.raises(ValueError, match="2 coalitions but 1 values"):
        CoalitionPool(1).tell(np.array([[True], [False]]), [1.0])


def test_map_transforms_the_values_and_leaves_the_pool_alone() -> None:
    pool = CoalitionPool(1)
    pool.tell(np.array([[True], [False]]), [1.0, 2.0])
    mapped = pool.map(lambda values: np.hstack([values, -values]))
    mapped.tell(np.array([[True]]), [[9.0, 9.0]])
    assert mapped.lookup(np.array([[True]])).tolist() == [[1.0, -1.0]]
    assert pool.values.tolist() == [[1.0], [2.0]]
    assert len(CoalitionPool(3).map(lambda values: values)) == 0


def test_a_game_without_features_has_one_coalition() -> None:
    pool = CoalitionPool(0)
    empty = np.zeros((2, 0), dtype=bool)
    assert pool.missing(empty).shape == (1, 0)
    pool.tell(empty[:1], [5.0])
    assert pool.missing(empty).shape == (0, 0)
    assert pool.lookup(empty).tolist() == [[5.0], [5.0]]


def test_an_empty_pool_has_shapes() -> None:
    pool = CoalitionPool(4)
    assert pool.coalitions.shape == (0, 4)
    assert pool.values.shape == (0, 0)
    assert len(pool) == 0


class DictPool:
    """What a pool means, with a dictionary."""

    def __init__(self) -> None:
        self.values: dict[bytes, float] = {}

    def missing(self, coalitions: np.ndarray) -> list[bytes]:
        return list(dict.fromkeys(key for key in keys(coalitions) if key not in self.values))

    def tell(self, coalitions: np.ndarray, values: np.ndarray) -> None:
        for key, value in zip(keys(coalitions), values.tolist(), strict=True):
            self.values.setdefault(key, value)


@st.composite
def _batches(draw: st.DrawFn) -> list[np.ndarray]:
    # around the widths where marks change from integers to bytes, with zero bytes in between
    n_features = draw(st.sampled_from([0, 1, 2, 7, 8, 9, 63, 64, 65, 72, 90]))
    rows = st.lists(st.integers(0, n_features), max_size=3).map(
        lambda on: np.isin(np.arange(n_features), on)
    )
    batch = st.lists(rows, max_size=6).map(
        lambda found: np.array(found, dtype=bool).reshape(len(found), n_features)
    )
    return draw(st.lists(batch, min_size=1, max_size=5))


@given(_batches())
def test_a_pool_is_a_dictionary_in_order_of_arrival(batches: list[np.ndarray]) -> None:
    pool, plain = CoalitionPool(batches[0].shape[1]), DictPool()
    value = 0
    for batch in batches:
        assert keys(pool.missing(batch)) == plain.missing(batch)
        values = np.arange(value, value + len(batch), dtype=np.float64)
        value += len(batch)
        before = pool.map(lambda v: v)
        pool.tell(batch, values)
        plain.tell(batch, values)
        assert len(before) <= len(pool)
        assert keys(pool.coalitions) == list(plain.values)
        assert pool.values.ravel().tolist() == list(plain.values.values())
        expected = [plain.values[key] for key in keys(batch)]
        assert pool.lookup(batch).ravel().tolist() == expected
    assert len(pool) == len(plain.values)


@pytest.mark.parametrize("n_features", [3, 64, 65, 200])
def test_marks_tell_all_leave_one_out_coalitions_apart(n_features: int) -> None:
    coalitions = np.concatenate([~np.eye(n_features, dtype=bool), np.eye(n_features, dtype=bool)])
    assert len(np.unique(marks(coalitions))) == 2 * n_features
