from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.ragged
from engine.ragged import Ragged, _hashes, concatenate, distinct, one_chunk, side_by_side

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=8)


@given(ROWS)
def test_rows_survive_every_form(rows: list[list[int]]) -> None:
    ragged = Ragged.of(rows)
    assert ragged.to_lists() == rows
    assert ragged.n_rows == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert [ragged.row(i).tolist() for i in range(len(rows))] == rows
    assert ragged.to_arrow().to_pylist() == rows
    assert Ragged.from_arrow(ragged.to_arrow()).to_lists() == rows


@given(ROWS, st.data())
def test_take_gathers_rows_in_the_order_asked(rows: list[list[int]], data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1))) if rows else []
    assert Ragged.of(rows).take(indices).to_lists() == [rows[i] for i in indices]


@given(ROWS, ROWS)
def test_concatenate_keeps_all_rows(first: list[list[int]], second: list[list[int]]) -> None:
    assert concatenate([Ragged.of(first), Ragged.of(second)]).to_lists() == first + second


def test_a_slice_of_an_arrow_column_with_a_null_is_read_from_its_own_start() -> None:
    column = pa.chunked_array([pa.array([[9], [1, 2], None, [3]], pa.list_(pa.int32()))])
    assert Ragged.from_arrow(column.slice(1)).to_lists() == [[1, 2], [], [3]]


def test_a_single_chunk_is_not_copied_and_many_become_one() -> None:
    values = pa.array([1, 2, 3])
    single = pa.chunked_array([values])
    assert one_chunk(single).buffers()[1].address == values.buffers()[1].address
    many = pa.chunked_array([values, values[1:]])
    assert one_chunk(many).to_pylist() == [1, 2, 3, 2, 3]
    assert one_chunk(pa.chunked_array([], pa.int64())).to_pylist() == []


def test_no_parts_give_no_rows() -> None:
    assert concatenate([]).to_lists() == []
    assert np.array_equal(concatenate([]).offsets, [0])


@given(st.lists(st.lists(st.integers(-3, 3), max_size=3), max_size=12))
def test_distinct_rows_are_those_of_a_dictionary(rows: list[list[int]]) -> None:
    seen: dict[tuple[int, ...], int] = {}
    index = [seen.setdefault(tuple(row), len(seen)) for row in rows]
    found = distinct(Ragged.of(rows))
    assert found.which.tolist() == index
    assert [rows[i] for i in found.first] == [list(row) for row in seen]


def test_rows_of_one_hash_are_told_apart() -> None:
    """The hash counts from v + 1, so that −1 at the end of a row adds nothing to it."""
    rows = [[7], [7, -1], [7], [-1], []]
    assert len(set(_hashes(Ragged.of(rows)).tolist())) == 2
    found = distinct(Ragged.of(rows))
    assert found.which.tolist() == [0, 1, 0, 2, 3]
    assert found.first.tolist() == [0, 1, 3, 4]


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=30), st.integers(1, 8))
def test_many_values_are_worked_on_in_blocks(rows: list[list[int]], block: int) -> None:
    backwards = list(range(len(rows)))[::-1]
    whole, hashes = Ragged.of(rows), _hashes(Ragged.of(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.ragged, "_BLOCK", block)
        assert np.array_equal(_hashes(whole), hashes)
        assert whole.take(backwards).to_lists() == rows[::-1]


def test_a_longer_text_than_any_before_has_its_powers() -> None:
    flat = np.arange(200_001, dtype=np.int32)
    long = Ragged(flat, np.array([0, 1, 200_001]))
    base = engine.ragged._BASE
    wanted = sum((v + 1) * pow(base, i, 1 << 64) for i, v in enumerate(range(1, 200_001)))
    assert _hashes(long).tolist() == [1, wanted % (1 << 64)]


@given(ROWS, st.randoms(use_true_random=False))
def test_rows_side_by_side(rows: list[list[int]], random: random.Random) -> None:
    others = random.sample(rows, len(rows))
    pairs = [a + b for a, b in zip(rows, others, strict=True)]
    assert side_by_side(Ragged.of(rows), Ragged.of(others)).to_lists() == pairs


def test_empty_rows_are_null_on_request() -> None:
    array = Ragged.of([[1], [], [2, 3]]).to_arrow(empty_is_null=True)
    assert array.to_pylist() == [[1], None, [2, 3]]
    assert Ragged.from_arrow(array).to_lists() == [[1], [], [2, 3]]
