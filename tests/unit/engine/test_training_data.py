"""Nothing that is evaluated is trained on, and every row is accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.config import SweepConfig
from engine.errors import DataError
from engine.training_data import TrainingData, load_training_data
from engine.types import Example
from tests.unit.fake_sweep import examples_of, sweep


def write(path: Path, texts: Sequence[str], **columns: Sequence[Any]) -> Path:
    rows = [
        {
            "text": text,
            "label": i % 2,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_of(path: Path, **fields: Any) -> SweepConfig:
    return sweep("occlusion", finetune=[{"name": "t", "data": str(path), **fields}])


def load(path: Path, evaluated: Sequence[Example] = (), **fields: Any) -> TrainingData:
    config = config_of(path, **fields)
    return load_training_data(config, config.finetune[0], evaluated)


def texts(examples: Sequence[Example]) -> list[str]:
    return [example.fields["text"] for example in examples]


def accounted(data: TrainingData) -> bool:
    return len(data.train) + sum(data.left_out.values()) == data.rows


def test_evaluated_texts_are_left_out_whatever_their_spaces_and_case(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", ["a fine film ", "A  Fine Film", "dull", "a fine films"])
    data = load(path, examples_of(["a fine film"]))
    assert texts(data.train) == ["dull", "a fine films"]
    assert data.left_out == {"evaluated": 2}
    assert accounted(data)


def test_short_ones_go_before_the_limit_samples(tmp_path: Path) -> None:
    long = [f"one two three {i}" for i in range(10)]
    path = write(tmp_path / "t.jsonl", [f"short {i}" for i in range(90)] + long)
    data = load(path, min_words=4, data={"path": str(path), "limit": 6})
    assert len(data.train) == 6
    assert set(texts(data.train)) < set(long)
    assert data.left_out == {"short": 90, "over_limit": 4}


def test_the_sample_does_not_depend_on_what_is_left_out(tmp_path: Path) -> None:
    """Of a hundred, those that are sampled stay so when an unsampled one is evaluated."""
    path = write(tmp_path / "t.jsonl", [f"text {i}" for i in range(100)])
    limited = {"path": str(path), "limit": 20}
    before = texts(load(path, data=limited).train)
    other = next(f"text {i}" for i in range(100) if f"text {i}" not in before)
    assert texts(load(path, examples_of([other]), data=limited).train) == before


class TestValidation:
    def test_a_fraction_is_held_out_with_equal_texts(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.jsonl", [f"text {i % 30}" for i in range(60)])
        data = load(path, validation=0.1)
        assert len(data.validation) == 6
        assert not set(texts(data.train)) & set(texts(data.validation))
        assert accounted(data)
        assert data.left_out["for_validation"] >= 6

    def test_data_of_its_own(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.jsonl", ["a", "b", "c", "d"])
        held = write(tmp_path / "v.jsonl", ["c ", "x", "y"])
        data = load(path, examples_of(["x", "d"]), validation=str(held))
        assert texts(data.validation) == ["c ", "y"]
        assert texts(data.train) == ["a", "b"]
        assert data.left_out == {"evaluated": 1, "in_validation": 1}

    def test_seeds_share_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "t.jsonl", [f"text {i}" for i in range(50)])
        one, two = load(path, validation=0.2, seeds=[0]), load(path, validation=0.2, seeds=[5])
        assert one == two


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", ["a", "b", "c", "d"], label=[0, None, 7, 1])
    assert load(path).left_out == {"unusable": 1, "no_label": 1}
    skipping = {"path": str(path), "other_labels": "skip"}
    assert load(path, data=skipping).left_out == {"other_label": 1, "no_label": 1}
    assert accounted(load(path, data=skipping))


def test_labels_count_in_the_prompt_s_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", ["a", "b"])
    turned = {"path": str(path), "label_names": ["positive", "negative"]}
    assert [e.label for e in load(path).train] == [0, 1]
    assert [e.label for e in load(path, data=turned).train] == [1, 0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"min_words": 9}, r"finetune\.t\.data: none of 2 rows .* is left \(2 short\)"),
        ({"validation": 0.9}, r"2 for_validation"),
    ],
)
def test_nothing_left_is_an_error(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "t.jsonl", ["a", "b"])
    with pytest.raises(DataError, match=said):
        load(path, **fields)
    with pytest.raises(DataError, match=r"finetune\.t\.validation: none of 2 rows .*2 evaluated"):
        load(path, examples_of(["a", "b"]), validation=str(path))
