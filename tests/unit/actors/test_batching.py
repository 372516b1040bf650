from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.batching import (
    ScoreSequence,
    by_length,
    continuations,
    shared_prefix,
    token_batches,
    tokens_to_run,
)

ids = st.lists(st.integers(0, 3), min_size=1, max_size=8).map(tuple)


@st.composite
def sequences(draw: st.DrawFn) -> list[ScoreSequence]:
    made = []
    for row in draw(st.lists(ids, max_size=12)):
        hidden = draw(st.sets(st.integers(0, len(row) - 1), max_size=2))
        made.append(ScoreSequence(row, tuple(sorted(hidden))))
    return made


@given(sequences(), st.randoms())
def test_order_is_a_function_of_the_set(many: list[ScoreSequence], random: object) -> None:
    shuffled = list(many)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordered = [many[i] for i in by_length(many)]
    assert ordered == [shuffled[i] for i in by_length(shuffled)]
    lengths = [len(sequence.ids) for sequence in ordered]
    assert lengths == sorted(lengths)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 64))
def test_batches_cover_all_in_order_within_the_budget(sizes: list[int], budget: int) -> None:
    batches = token_batches(sizes, budget)
    assert [i for batch in batches for i in batch] == list(range(len(sizes)))
    for batch in batches:
        padded = max(sizes[i] for i in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 64))
def test_no_batch_could_have_taken_the_next_item(sizes: list[int], budget: int) -> None:
    for batch in token_batches(sizes, budget)[:-1]:
        assert max(sizes[batch.start : batch.stop + 1]) * (len(batch) + 1) > budget


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        token_batches([3], 0)


@given(sequences())
def test_the_shared_prefix_is_the_longest_allowed(many: list[ScoreSequence]) -> None:
    length = shared_prefix(many)

    def allowed(n: int) -> bool:
        heads = {sequence.ids[:n] for sequence in many}
        return (
            len(many) > 1
            and len(heads) == 1
            and all(len(sequence.ids) > n for sequence in many)
            and all(position >= n for sequence in many for position in sequence.hidden)
        )

    assert length == 0 or allowed(length)
    assert not allowed(length + 1)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([(5,), (6,)], [()]),
        ([(5,), (6, 7)], [(6,)]),
        ([(1, 2), (1, 3), (4,)], [(1,)]),
        ([(1, 2), (3, 4)], [(1,), (3,)]),
        ([(1, 2, 3, 4), (1, 2, 5), (1, 9)], [(1, 2, 3)]),
        ([(1, 2, 3), (1, 4, 5), (1,)], [(1, 2), (1, 4)]),
    ],
)
def test_only_the_maximal_inner_prefixes_are_run(
    labels: list[tuple[int, ...]], expected: list[tuple[int, ...]]
) -> None:
    assert continuations(labels) == expected


@given(st.lists(ids, min_size=1, max_size=6))
def test_every_label_can_be_read_from_one_continuation(labels: list[tuple[int, ...]]) -> None:
    conts = continuations(labels)
    for label in labels:
        assert any(cont[: len(label) - 1] == label[:-1] for cont in conts)
    for cont in conts:
        others = [other for other in conts if other != cont]
        assert not any(other[: len(cont)] == cont for other in others)


@pytest.mark.parametrize("labels", [[], [(1,), ()]])
def test_labels_without_tokens_are_refused(labels: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        continuations(labels)


def test_a_prompt_runs_once_with_each_continuation() -> None:
    assert tokens_to_run(10, [()]) == 10
    assert tokens_to_run(10, [(1,), (3, 4)]) == 23
