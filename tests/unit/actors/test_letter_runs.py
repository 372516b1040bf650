from __future__ import annotations

import itertools
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.letter_runs import letter_runs

# of lengths around the eight bytes that are compared at a time, with equal beginnings
WORDS = ["a", "abcdefg", "abcdefgh", "abcdefghi", "abcdefghabcdefgh", "abcdefghabcdefgha", "é", "'"]
texts = st.lists(
    st.lists(st.sampled_from([*WORDS, " ", ".", "1", "\n"]), max_size=10).map("".join), max_size=8
)


@given(texts)
def test_runs_are_found_in_order_and_told_apart(texts: list[str]) -> None:
    data = [text.encode() for text in texts]
    flat = np.frombuffer(b"".join(data), dtype=np.uint8)
    runs, row = letter_runs(flat, np.cumsum([0, *map(len, data)]))
    found = [runs.texts[i].decode() for i in runs.which]
    assert found == [run for text in texts for run in re.findall("[a-zé']+", text)]
    assert row.tolist() == [i for i, text in enumerate(texts) for _ in re.findall("[a-zé']+", text)]
    assert sorted(set(runs.which.tolist())) == list(range(len(runs.texts)))
    assert len(set(runs.texts)) == len(runs.texts)


def test_many_distinct_runs_share_slots() -> None:
    words = ["".join(letters) for letters in itertools.product("abcdefghijklmnopq", repeat=3)]
    data = " ".join(words * 2).encode()
    runs, _ = letter_runs(np.frombuffer(data, dtype=np.uint8), np.array([0, len(data)]))
    assert len(runs.texts) == len(words)
    assert [runs.texts[i].decode() for i in runs.which] == words * 2


def test_a_text_with_a_capital_sigma_is_one_run() -> None:
    data = ["so ΑΣ.Α it", "a b"]
    coded = [text.encode() for text in data]
    flat = np.frombuffer(b"".join(coded), dtype=np.uint8)
    runs, row = letter_runs(flat, np.cumsum([0, *map(len, coded)]))
    assert [runs.texts[i].decode() for i in runs.which] == [data[0], "a", "b"]
    assert row.tolist() == [0, 1, 1]
