from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.id_masking import IdMasker


@st.composite
def _tokens_of_features(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    n_tokens = draw(st.integers(1, 9))
    one = st.lists(st.integers(0, n_tokens - 1), min_size=1, max_size=4, unique=True).map(sorted)
    return list(range(100, 100 + n_tokens)), draw(st.lists(one, max_size=5))


@given(_tokens_of_features(), st.lists(st.integers(0, 9), max_size=2), st.data())
def test_ids_are_masked_token_by_token(
    case: tuple[list[int], list[list[int]]], replacement: list[int], data: st.DataObject
) -> None:
    """Whatever tokens the features share and however they are scattered."""
    ids, positions = case
    made = IdMasker(ids, positions, replacement)
    coalitions = data.draw(arrays(bool, (3, len(positions))))
    deleted, replaced = (made.apply(coalitions, replace).to_lists() for replace in (False, True))
    hidden = made.hidden(coalitions).to_lists()
    for row, kept in enumerate(coalitions):
        removed = [own for own, keep in zip(positions, kept, strict=True) if not keep]
        gone = {p for own in removed for p in own}
        begins = {p for own in removed for p in own if p - 1 not in own}
        assert deleted[row] == [token for p, token in enumerate(ids) if p not in gone]
        expected: list[int] = []
        for p, token in enumerate(ids):
            expected += replacement if p in begins else [token] * (p not in gone)
        assert replaced[row] == expected
        assert hidden[row] == sorted(gone)
