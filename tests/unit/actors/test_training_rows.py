from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.training_rows import IGNORED, LengthGroups, TrainingRow, collate, encode
from engine.labels import resolve_labels
from engine.prompts import parse_template
from engine.tokens import load_tokenizer
from engine.types import Example
from tests.unit.fake_sweep import CountingHost, examples_of, plan_of, sweep

TEMPLATE = parse_template("{text} =>")
LABELS = resolve_labels(TEMPLATE, load_tokenizer("bytes"), {"no": " bad", "yes": " good"})
EXAMPLES = [Example("a", {"text": "dull"}, 0), Example("b", {"text": "so very fine"}, 1)]


def test_rows_are_what_scoring_asks_and_reads() -> None:
    """The first sequence that a step asks of an example is its prompt, word for word."""
    config = sweep("occlusion")
    plan = plan_of(config, examples_of(["A good film.", "dull"], [1, 0]))
    [pair] = plan.pairs.values()
    context = pair.context
    with CountingHost(pair) as host:
        for unit in plan.units:
            host.run(pair, unit)
    rows = encode(
        plan.examples, context.template, context.labels, context.tokenizer, context.max_tokens
    )
    for example, row in zip(plan.examples, rows, strict=True):
        assert row.ids[: row.prompt] in host.sequences
        assert example.label is not None
        assert row.ids[row.prompt :] == context.labels.token_ids[example.label]


def test_those_that_do_not_fit_are_left_out_whole() -> None:
    rows = encode(EXAMPLES, TEMPLATE, LABELS, "bytes", 100)
    longest = len(rows[1].ids)
    assert encode(EXAMPLES, TEMPLATE, LABELS, "bytes", longest) == rows
    assert encode(EXAMPLES, TEMPLATE, LABELS, "bytes", longest - 1) == rows[:1]
    assert bytes(rows[0].ids).decode() == "dull => bad"
    assert (rows[0].prompt, rows[0].gold) == (len("dull =>"), 0)


def test_only_the_label_s_tokens_are_learned() -> None:
    rows = encode(EXAMPLES, TEMPLATE, LABELS, "bytes", 100)
    batch = {name: values.tolist() for name, values in collate(rows).items()}
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    width = max(len(row.ids) for row in rows)
    for at, row in enumerate(rows):
        padding = width - len(row.ids)
        assert batch["input_ids"][at] == [*row.ids, *[0] * padding]
        assert batch["attention_mask"][at] == [1] * len(row.ids) + [0] * padding
        expected = [IGNORED] * row.prompt + list(row.ids[row.prompt :]) + [IGNORED] * padding
        assert batch["labels"][at] == expected


def lengths_of(groups: LengthGroups, lengths: list[int], size: int) -> list[list[int]]:
    order = list(groups)
    return [[lengths[i] for i in order[at : at + size]] for at in range(0, len(order), size)]


class TestOrder:
    @given(
        st.lists(st.integers(1, 40), min_size=1, max_size=300),
        st.integers(1, 9),
        st.integers(0, 3),
        st.integers(0, 3),
    )
    def test_is_a_permutation_of_seed_and_epoch(
        self, lengths: list[int], size: int, seed: int, epoch: int
    ) -> None:
        groups = LengthGroups(lengths, size, seed)
        groups.set_epoch(epoch)
        order = list(groups)
        assert sorted(order) == list(range(len(lengths))) == list(range(len(groups)))
        again = LengthGroups(lengths, size, seed)
        again.set_epoch(epoch)
        assert list(again) == order == list(groups)

    def test_another_epoch_and_another_seed_have_another_order(self) -> None:
        lengths = list(range(200))
        orders = set()
        for seed in range(3):
            groups = LengthGroups(lengths, 8, seed)
            for epoch in range(3):
                groups.set_epoch(epoch)
                orders.add(tuple(groups))
        assert len(orders) == 9

    def test_batches_are_of_nearly_one_length_and_in_no_order_of_length(self) -> None:
        lengths = [10 + (i * 37) % 90 for i in range(800)]
        batches = lengths_of(LengthGroups(lengths, 8, 0), lengths, 8)
        padding = sum(max(batch) * len(batch) - sum(batch) for batch in batches)
        assert padding < 0.03 * sum(lengths)
        means = [sum(batch) for batch in batches]
        assert means not in (sorted(means), sorted(means, reverse=True))

    def test_a_short_batch_is_the_last(self) -> None:
        lengths = [5] * 10
        sizes = [len(b) for b in lengths_of(LengthGroups(lengths, 4, 1), lengths, 4)]
        assert sizes == [4, 4, 2]


def test_a_row_is_its_ids_and_where_the_label_begins() -> None:
    assert TrainingRow((1, 2, 3), 2, 0).ids[2:] == (3,)
