"""Where labels are read, against reading every label in a run of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from actors import label_reads
from actors.label_reads import head_logits, label_sums, read_plan, read_states, reduce_logits

VOCABULARY = 6

label = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4).map(tuple)


def log_probs_behind(path: tuple[int, ...]) -> np.ndarray:
    """Return what a model might say behind a prompt that goes on with `path` [V]."""
    rng = np.random.default_rng([len(path), *path])
    logits = rng.normal(size=VOCABULARY)
    return logits - np.log(np.exp(logits).sum())


@given(st.lists(label, min_size=1, max_size=6))
def test_a_label_is_the_sum_over_its_tokens(labels: list[tuple[int, ...]]) -> None:
    plan = read_plan(labels)
    picked = np.zeros((1, len(plan.slots), len(plan.tokens)), dtype=np.float32)
    for slot, (cont, depth) in enumerate(plan.slots):
        picked[0, slot] = log_probs_behind(plan.continuations[cont][:depth])[plan.tokens]
    expected = [
        sum(log_probs_behind(ids[:i])[token] for i, token in enumerate(ids)) for ids in labels
    ]
    np.testing.assert_allclose(label_sums(picked, plan)[0], expected, atol=1e-5)


@given(st.lists(label, min_size=1, max_size=6))
def test_a_plan_has_no_place_twice_and_none_outside(labels: list[tuple[int, ...]]) -> None:
    plan = read_plan(labels)
    assert plan.slots[0] == (0, 0)
    assert len(set(plan.slots)) == len(plan.slots)
    assert [cont for cont, depth in plan.slots if depth == 0] == [0]
    for cont, depth in plan.slots:
        assert depth <= len(plan.continuations[cont])
    assert plan.tokens == sorted({token for ids in labels for token in ids})


def test_labels_of_one_token_are_read_at_the_prompts_end() -> None:
    plan = read_plan([(5,), (3,), (5,)])
    assert plan.continuations == [()]
    assert plan.slots == [(0, 0)]
    assert plan.tokens == [3, 5]
    assert plan.reads == [[(0, 1)], [(0, 0)], [(0, 1)]]


@pytest.mark.parametrize("labels", [[], [(1,), ()]])
def test_labels_without_tokens_are_refused(labels: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        read_plan(labels)


def test_logits_are_reduced_part_by_part_in_single_precision() -> None:
    torch.manual_seed(0)
    logits = 5 * torch.randn(7, 40, dtype=torch.bfloat16)
    log_z, picked = reduce_logits([logits[:3], logits[3:]], [2, 39])
    exact = logits.double()
    np.testing.assert_allclose(log_z, exact.logsumexp(-1), rtol=1e-6)
    np.testing.assert_allclose(picked, exact.log_softmax(-1)[:, [2, 39]], rtol=1e-5)
    assert log_z.dtype == picked.dtype == np.float32


def test_no_logits_are_reduced_to_nothing() -> None:
    log_z, picked = reduce_logits([], [1, 2])
    assert log_z.shape == (0,)
    assert picked.shape == (0, 2)


@pytest.mark.parametrize("at_a_time", [1, 100, 1 << 24])
def test_the_output_matrix_is_applied_in_parts_of_bounded_size(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_reads, "_LOGITS_AT_A_TIME", at_a_time)
    head, states = nn.Linear(4, 30), torch.randn(11, 4)
    parts = list(head_logits(head, states))
    torch.testing.assert_close(torch.cat(parts), head(states))
    assert all(part.numel() <= max(at_a_time, 30) for part in parts)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("at_a_time", [1, 100, 1 << 21])
def test_states_are_read_by_parts_of_the_vocabulary(
    bias: bool, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(label_reads, "_CACHED_LOGITS", at_a_time)
    head, states = nn.Linear(16, 31, bias=bias), 9 * torch.randn(5, 16)
    with torch.inference_mode():
        log_z, picked = read_states(head, states, [30, 2])
        exact = head(states).double()
    np.testing.assert_allclose(log_z, exact.logsumexp(-1), atol=1e-5)
    np.testing.assert_allclose(picked, exact.log_softmax(-1)[:, [30, 2]], atol=1e-5)
    assert log_z.dtype == picked.dtype == np.float32


def test_states_of_no_node_and_of_other_formats_are_read_too() -> None:
    head = nn.Linear(16, 31)
    with torch.inference_mode():
        log_z, picked = read_states(head, torch.zeros(0, 16), [30, 2])
        assert log_z.shape == (0,)
        assert picked.shape == (0, 2)
        states = torch.randn(3, 16, dtype=torch.bfloat16)
        log_z, _ = read_states(head.bfloat16(), states, [1])
        np.testing.assert_allclose(log_z, head(states).double().logsumexp(-1), atol=1e-5)
