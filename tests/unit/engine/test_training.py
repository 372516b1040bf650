from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.config import FinetuneConfig, parse_config
from engine.labels import LabelSet
from engine.prompts import parse_template
from engine.training import TrainingTask, content_digest
from engine.training_data import TrainingData
from engine.types import Example
from tests.unit.fake_sweep import raw_sweep

ROWS = (Example("a", {"text": "good"}, 1), Example("b", {"text": "bad"}, 0))
PLAIN = "305fa623f848fe36"
LABELS = LabelSet(("negative", "positive"), (" bad", " good"), ((1,), (2,)))


def entry(**fields: Any) -> FinetuneConfig:
    raw = {"name": "t", "data": "train.jsonl", **fields}
    return parse_config(raw_sweep("occlusion", finetune=[raw])).finetune[0]


def task(**changes: Any) -> TrainingTask:
    made = TrainingTask(
        model="folder",
        weights="0" * 64,
        precision="fp32",
        tokenizer="bytes",
        max_tokens=64,
        template=parse_template("{text}:"),
        labels=LABELS,
        data=TrainingData(ROWS, (), 2, {}),
        entry=entry(),
        seed=0,
    )
    return replace(made, **changes)


def test_the_fingerprint_has_all_that_an_adapter_depends_on() -> None:
    plain = task().fingerprint
    more = (*ROWS, Example("c", {"text": "fun"}, 1))
    for other in (
        {"weights": "1" * 64},
        {"precision": "nf4"},
        {"tokenizer": "other"},
        {"template": parse_template("{text}!")},
        {"template": parse_template("{text}:", add_special_tokens=False)},
        {"labels": replace(LABELS, token_ids=((1,), (3,)))},
        {"data": TrainingData(more, (), 3, {})},
        {"data": TrainingData(ROWS[::-1], (), 2, {})},
        {"data": TrainingData((replace(ROWS[0], label=0), ROWS[1]), (), 2, {})},
        {"data": TrainingData(ROWS, more[2:], 3, {})},
        {"entry": entry(rank=8)},
        {"seed": 1},
    ):
        assert task(**other).fingerprint != plain, other


def test_scales_quantized_once_are_another_base_and_nothing_else_is_renamed() -> None:
    four = task(precision="nf4")
    assert replace(four, double_quant=False).fingerprint != four.fingerprint
    # adapters of this fingerprint are there already
    assert task().fingerprint == PLAIN


def test_where_and_from_where_it_runs_is_left_out() -> None:
    plain = task().fingerprint
    renamed = tuple(replace(example, id=f"other-{example.id}") for example in ROWS)
    for same in (
        {"model": "another/place"},
        {"options": {"packing": False}},
        {"data": TrainingData(renamed, (), 9, {"short": 7})},
        {"entry": entry(name="other", data="other.jsonl", seeds=[0, 1], save_steps=3)},
    ):
        assert task(**same).fingerprint == plain, same


def test_the_digest_of_examples_is_of_texts_and_labels_in_order() -> None:
    assert content_digest(ROWS) == content_digest(tuple(ROWS))
    assert content_digest(ROWS) != content_digest(ROWS[::-1])
    assert content_digest(()) != content_digest(ROWS)
